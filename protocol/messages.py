"""The messages of a round: what the server asks of a site and what the site answers.

`Task` and `Reply` are plain bytes, words and numbers, so that any transport carries them: Flower's messages
here, and whatever lies between a courier and its trainer.

    query.describe   who are you, how many images?                    no model
    train            evaluate this model on your val split, then train it and send the update
    evaluate         evaluate this model on the split asked for       no update
"""

from collections.abc import Mapping
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

_MODEL, _TASK, _REPLY, _SCALARS = "model", "task", "reply", "scalars"


@dataclass(frozen=True)
class Task:
    """What the server asks of one site.

    Attributes:
        kind: what to do.
        round: the round's number, from 1; the closing evaluation has the last round's.
        schema: hash of the model's schema.
        model: the packed global model; empty for `query.describe`.
        split: the split to evaluate on, "val" or "test".
        settings: the run's complete table, as the site received it with the run.
    """

    kind: Kind
    round: int = 0
    schema: str = ""
    model: bytes = b""
    split: str = "val"
    settings: Table = field(default_factory=dict)


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


def task_content(task: Task) -> RecordDict:
    """The task as a Flower record (without its settings, which travel once, with the run)."""
    words = ConfigRecord({"round": task.round, "schema": task.schema, "split": task.split})
    return _with_model({_TASK: words}, task.model)


def read_task(kind: str, content: RecordDict, settings: Table) -> Task:
    """The task in a Flower message of type `kind`."""
    words = content[_TASK]
    return Task(
        kind=kind,  # type: ignore[arg-type]
        round=int(words["round"]),
        schema=str(words["schema"]),
        model=_model(content),
        split=str(words["split"]),
        settings=settings,
    )


def reply_content(reply: Reply) -> RecordDict:
    """The reply as a Flower record."""
    words = ConfigRecord({"site": reply.site, "round": reply.round, "schema": reply.schema})
    records = {_REPLY: words, _SCALARS: MetricRecord(dict(reply.scalars))}
    return _with_model(records, reply.model)


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
            model=_model(content),
            scalars={name: float(value) for name, value in scalars.items()},
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"a reply that is not of this protocol: {error!r}") from error


def _with_model(records: dict[str, ConfigRecord | MetricRecord], model: bytes) -> RecordDict:
    content = RecordDict(records)
    if model:
        packed = Array(dtype="uint8", shape=(len(model),), stype="bytes", data=model)
        content[_MODEL] = ArrayRecord({"packed": packed})
    return content


def _model(content: RecordDict) -> bytes:
    return content[_MODEL]["packed"].data if _MODEL in content else b""
