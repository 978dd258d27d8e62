"""The messages of a round: what the server asks of a site and what the site answers.

`Task` and `Reply` are plain bytes, words and numbers, so that any transport carries them: Flower's messages
here, and whatever lies between a courier and its trainer.

    query.describe   who are you, how many images?                    no model
    train            evaluate this model on the split asked for, if any, then train it and send the update
    evaluate         evaluate this model on the split asked for       no update
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from protocol.settings import Table

Kind = Literal["query.describe", "train", "evaluate"]
DESCRIBE: Kind = "query.describe"
TRAIN: Kind = "train"
EVALUATE: Kind = "evaluate"

REFUSED = 1000
"""Error code of a reply in which a site says why it did not do what was asked."""

SPENT = 1001
"""Error code of such a reply when the site's privacy budget is spent, so that it will not train in a later round."""

_MODEL, _RECEIVED, _TASK, _REPLY, _SCALARS = "model", "received", "task", "reply", "scalars"
_WORDS = ("round", "schema", "split", "study", "accepted", "received_schema", "site")


@dataclass(frozen=True)
class Task:
    """What the server asks of one site.

    Attributes:
        kind: what to do.
        round: the number, from 1, of the round to train in, or of the one whose model is to be evaluated.
        schema: hash of the model's schema.
        model: the packed global model; empty for `query.describe`.
        split: the split to evaluate on, "val" or "test"; "" for none.
        settings: the run's complete table, as the site received it with the run.
        study: what tells this study from every other, for a site that remembers something of it.
        accepted: the round whose state of the site belongs to the model: the last one before it whose reply the
            server counted; 0 before any was.
        keep: earlier rounds whose state the site must keep: that of the best model, and those to which a resumed
            run may go back.
        received_schema: hash of the schema of `received`.
        received: what travels beside the model (`Strategy.broadcast`), packed; empty when that is nothing.
        site: with `query.describe`, the name under which the site's key is enrolled; "" where there are no keys.
    """

    kind: Kind
    round: int = 0
    schema: str = ""
    model: bytes = b""
    split: str = "val"
    settings: Table = field(default_factory=dict)
    study: str = ""
    accepted: int = 0
    keep: tuple[int, ...] = ()
    received_schema: str = ""
    received: bytes = b""
    site: str = ""


@dataclass(frozen=True)
class Reply:
    """What one site answers.

    Attributes:
        site: the site's name.
        round: the round that it answers.
        schema: hash of the model's schema; empty without a model.
        model: the packed model after local training; empty unless asked to train.
        scalars: numbers that the site lets out, by dotted name: `train.images`, `val.dice`, `seconds.train`.
    """

    site: str
    round: int
    schema: str = ""
    model: bytes = b""
    scalars: Mapping[str, float] = field(default_factory=dict)


def task_contents(tasks: Iterable[Task]) -> list[RecordDict]:
    """The tasks as Flower records (without their settings, which travel once, with the run).

    What several of them carry is one array, so that Flower cuts and digests it once.
    """
    packed: dict[bytes, ArrayRecord] = {}
    contents = []
    for task in tasks:
        words = ConfigRecord({name: getattr(task, name) for name in _WORDS} | {"keep": list(task.keep)})
        contents.append(_with_arrays({_TASK: words}, {_MODEL: task.model, _RECEIVED: task.received}, packed))
    return contents


def read_task(kind: str, content: RecordDict, settings: Table) -> Task:
    """The task in a Flower message of type `kind`."""
    words = content[_TASK]
    return Task(
        kind=kind,  # type: ignore[arg-type]
        model=_array(content, _MODEL),
        received=_array(content, _RECEIVED),
        keep=tuple(words["keep"]),
        settings=settings,
        **{name: words[name] for name in _WORDS},
    )


def reply_content(reply: Reply) -> RecordDict:
    """The reply as a Flower record."""
    words = ConfigRecord({"site": reply.site, "round": reply.round, "schema": reply.schema})
    records = {_REPLY: words, _SCALARS: MetricRecord(dict(reply.scalars))}
    return _with_arrays(records, {_MODEL: reply.model}, {})


def read_reply(content: RecordDict) -> Reply:
    """The reply in a Flower record.

    Raises:
        ValueError: a record is missing or holds another type: the sender speaks another protocol.
    """
    try:
        words, scalars = content[_REPLY], content[_SCALARS]
        return Reply(
            site=str(words["site"]),
            round=int(words["round"]),
            schema=str(words["schema"]),
            model=_array(content, _MODEL),
            scalars={name: float(value) for name, value in scalars.items()},
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"a reply that is not of this protocol: {error!r}") from error


def _with_arrays(
    records: dict[str, ConfigRecord | MetricRecord], arrays: Mapping[str, bytes], packed: dict[bytes, ArrayRecord]
) -> RecordDict:
    """The records with the arrays that are not empty; those in `packed` are taken from there, others put there."""
    content = RecordDict(records)
    for name, data in arrays.items():
        if data and data not in packed:
            array = Array(dtype="uint8", shape=(len(data),), stype="bytes", data=data)
            packed[data] = ArrayRecord({"packed": array})
        if data:
            content[name] = packed[data]
    return content


def _array(content: RecordDict, name: str) -> bytes:
    return content[name]["packed"].data if name in content else b""
