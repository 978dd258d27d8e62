"""Faults, gathered by kind: a hundred of one kind are three lines and a count."""

import re
from collections.abc import Iterable

NAMED = 3
"""Faults of one kind that are written out."""


class Faults:
    """What is wrong with a site, in the order in which the kinds were met; `len` counts every fault."""

    def __init__(self) -> None:
        self._kinds: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(len(texts) for texts in self._kinds.values())

    def say(self, sentence: str, *parts: object) -> None:
        """A fault in the words of `sentence`, with `parts` in place of its {}; the sentence is its kind."""
        self._kinds.setdefault(sentence, []).append(sentence.format(*parts))

    def say_error(self, text: str, paths: Iterable[object]) -> None:
        """A fault in the words of an error, of one kind with all that differ in numbers and `paths` alone."""
        kind = text
        for path in paths:
            kind = kind.replace(str(path), "")
        self._kinds.setdefault(re.sub(r"\d+", "", kind), []).append(text)

    def first(self) -> str:
        """The first fault; StopIteration when there is none."""
        return next(texts[0] for texts in self._kinds.values())

    def lines(self) -> list[str]:
        """The first three of each kind; the third says how many more there are."""
        lines = []
        for texts in self._kinds.values():
            lines += texts[:NAMED]
            if len(texts) > NAMED:
                lines[-1] += f" ... and {len(texts) - NAMED} more like this"
        return lines
