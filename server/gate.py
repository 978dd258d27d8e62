"""The quarantine gate: every reply is checked before it may touch the global model.

A bad reply is named with its reason and left out; the round goes on with the honest ones.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message

from protocol.codec import Codec, decode
from protocol.messages import SPENT, Reply, read_reply
from protocol.packing import Schema
from server.roster import Member
from strategies import Update
from strategies.groups import MEAN, VARIANCE, group_of
from strategies.local import LOSS_BEFORE, STEPS

STATISTICS = 1e4
"""How often the variance of activations, plus one, may grow in a round; means may move by its square root."""

LONGEST_REASON = 300
"""Characters of a site's reason that are kept."""

COUNTS = 2.0**31
"""Most steps that a counter may gain in a round."""

LARGEST_LOSS = 1e9
"""What the loss that a strategy raises to a power may be."""

STEPS_RANGE = 1e-12, 1e12
"""What the sum of a round's learning rates, their mean, or its steps may be; strategies divide by them."""


class QuarantineError(Exception):
    """A reply that must not count; its text is the reason, for both ends' logs.

    Args:
        spent: whether the site refused because its privacy budget is spent.
    """

    def __init__(self, reason: str, *, spent: bool = False) -> None:
        super().__init__(reason)
        self.spent = spent


@dataclass(frozen=True)
class Gate:
    """What the replies of one round are checked against.

    Attributes:
        schema: the global model's schema.
        x: the global model that was sent.
        round: the round's number.
        max_update: largest plausible |y_i - x| over trainable parameters, as a multiple of |x|.
        needed: scalars that the strategy cannot do without; any other is the site's to withhold.
        codec: how updates travel.
    """

    schema: Schema
    x: Mapping[str, npt.NDArray[Any]]
    round: int
    max_update: float
    needed: tuple[str, ...] = ()
    codec: Codec = "fp32"

    def read(self, message: Message, member: Member) -> Reply:
        """The reply in `message`, once its sender, round and scalars are in order.

        Raises:
            QuarantineError: they are not, or the site says that it failed.
        """
        if message.has_error():
            raise QuarantineError(_last_line(message.error.reason), spent=message.error.code == SPENT)
        try:
            reply = read_reply(message.content)
        except ValueError as error:
            raise QuarantineError(str(error)) from error
        if reply.site != member.name:
            raise QuarantineError(f"the reply says it comes from {reply.site!r}")
        if reply.round != self.round:
            raise QuarantineError(f"a reply to round {reply.round} in round {self.round}")
        for name in self.needed:
            if name not in reply.scalars:
                raise QuarantineError(f"{name}, which the strategy needs, is missing")
        for name, value in reply.scalars.items():
            self._check_scalar(name, value, member)
        return reply

    def update(self, reply: Reply, member: Member) -> Update:
        """The update in a reply to a training task, once every check has passed.

        Raises:
            QuarantineError: schema, values, norm or number of examples cannot be right.
        """
        if reply.schema != self.schema.hash:
            raise QuarantineError("the update has another schema than the global model")
        try:
            arrays = decode(self.codec, self.schema, self.x, reply.model)
        except ValueError as error:
            raise QuarantineError(str(error)) from error
        examples = int(reply.scalars.get("train.images", 0))
        if not 1 <= examples <= member.images["train"]:
            raise QuarantineError(f"{examples} training images, where the site joined with {member.images['train']}")
        self._check_values(arrays)
        return Update(reply.site, arrays, examples, reply.scalars)

    def _check_scalar(self, name: str, value: float, member: Member) -> None:
        split, _, what = name.partition(".")
        if not math.isfinite(value):
            raise QuarantineError(f"{name} is {value}")
        if value < 0 or (what in ("dice", "iou", "nsd") and value > 1):
            raise QuarantineError(f"{name} is {value}, which it cannot be")
        if name == LOSS_BEFORE and value > LARGEST_LOSS:
            raise QuarantineError(f"{name} is {value:g}, beyond {LARGEST_LOSS:g}")
        if name in STEPS and not STEPS_RANGE[0] <= value <= STEPS_RANGE[1]:
            raise QuarantineError(f"{name} is {value:g}, which no training takes")
        if what == "images" and split in member.images and not 0 <= value <= member.images[split]:
            raise QuarantineError(f"{name} is {value:.0f}, where the site joined with {member.images[split]}")

    def _check_values(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        moved = 0.0
        for name, y in arrays.items():
            if group_of(name, y.dtype) == "parameter":
                step = (y - self.x[name]).reshape(-1)
                moved += float(np.dot(step, step))
            else:
                self._check_buffer(name, np.asarray(y, np.float64))
        limit = self.max_update * self._size
        if not math.sqrt(moved) <= limit:
            wrong = [name for name, y in arrays.items() if y.dtype.kind == "f" and not np.isfinite(y).all()]
            if wrong:
                raise QuarantineError(f"{wrong[0]} has values that are not finite")
            raise QuarantineError(f"the update's norm is {math.sqrt(moved):.3g}, beyond {limit:.3g}")

    @cached_property
    def _size(self) -> float:
        """|x| over the trainable parameters."""
        trainable = (x.reshape(-1) for name, x in self.x.items() if group_of(name, x.dtype) == "parameter")
        return math.sqrt(sum(float(np.dot(x, x)) for x in trainable))

    def _check_buffer(self, name: str, y: npt.NDArray[np.float64]) -> None:
        """Statistics may move far in a round, from their initial values to the data's, but not out of all bounds."""
        x = np.asarray(self.x[name], np.float64)
        if name.endswith(VARIANCE):
            plausible = (y >= 0) & (y <= STATISTICS * (1 + x))
        elif name.endswith(MEAN) and (variance := name.removesuffix(MEAN) + VARIANCE) in self.x:
            plausible = np.abs(y - x) <= np.sqrt(STATISTICS * (1 + np.asarray(self.x[variance], np.float64)))
        elif group_of(name, self.x[name].dtype) == "counter":
            plausible = (y >= x) & (y - x <= COUNTS)
        else:
            plausible = np.isfinite(y)
        if not plausible.all():
            raise QuarantineError(f"{name} has values that local training cannot have reached")


def _last_line(reason: str | None) -> str:
    """A site's reason without the stack trace that Flower may put before it."""
    lines = [line.strip() for line in (reason or "").splitlines() if line.strip()]
    return lines[-1] if lines else "the site failed and gave no reason"


def printable(reason: str) -> str:
    """A reason as it may be shown and kept: one line of printable characters, not too long."""
    words = "".join(letter if letter.isprintable() else " " for letter in reason)
    return words if len(words) <= LONGEST_REASON else words[: LONGEST_REASON - 3] + "..."
