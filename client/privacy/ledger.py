"""What this hospital's patients have spent of their privacy: every round of every study, on the hospital's own disk.

A round is written down, and is on disk, before its first step, so whatever is trained or sent later was counted. A
round that is given up, killed or asked for again was counted too: the ledger may say too much, never too little.
The study's name is the server's word, so the sum over all studies has a limit of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.privacy.accounting import Accountant, Charge, epsilon_of, pld_epsilon, rdp_epsilon
from client.privacy.chain import Chain, Record
from protocol.errors import BudgetError, LedgerError

FORMAT = 1
OPENED, SPENT = "opened", "spent"


@dataclass(frozen=True)
class Request:
    """Who asks: the server's name of study and run, the round, and in what words (a hash of the settings, say)."""

    study: str
    run: str
    round: int
    words: str


@dataclass(frozen=True)
class Limit:
    """The most that may be spent: epsilon at delta, who says so, and by which bound (pld: the smaller of both)."""

    epsilon: float
    delta: float
    word: str
    accountant: Accountant = "pld"


@dataclass(frozen=True)
class Limits:
    """`study` limits a study's rounds, each of them by itself; `everything` all rounds of all studies."""

    study: tuple[Limit, ...]
    everything: Limit


@dataclass(frozen=True)
class Entry:
    """One round that was paid for.

    Attributes:
        utc: when, in ISO 8601.
        unit: patient or example; `units` how many there were.
        epsilon: what the study had cost after it, at `delta`; `left`: of the study's strictest limit.
        epsilon_all: what all studies had cost after it, at `delta_all`; `left_all`: of their limit.
    """

    utc: str
    request: Request
    charge: Charge
    unit: str
    units: int
    delta: float
    epsilon: float
    left: float
    delta_all: float
    epsilon_all: float
    left_all: float


class Ledger:
    """The ledger in a folder.

    Raises (all methods): LedgerError when there is none, or when it was damaged or changed.
    """

    def __init__(self, folder: Path) -> None:
        self._chain = Chain(folder)

    def exists(self) -> bool:
        """Whether there is a ledger, sound or not."""
        return self._chain.exists()

    def open(self) -> None:
        """Begin one. Somebody must say so: a ledger that was lost is not a new one.

        Raises:
            LedgerError: there is one already.
        """
        self._chain.create({"kind": OPENED, "format": FORMAT, "utc": _now()})

    def entries(self) -> list[Entry]:
        """All rounds, in order."""
        return _entries(self._chain.read())

    def spend(self, request: Request, charge: Charge, unit: str, units: int, limits: Limits) -> Entry:
        """Pay for a round before it begins; when this returns, it is on disk.

        Raises:
            BudgetError: it would pass a limit; nothing is spent.
        """

        def make(records: list[Record]) -> Record:
            before = _entries(records)
            own = [entry.charge for entry in before if entry.request.study == request.study]
            every = [entry.charge for entry in before]
            which = f"round {request.round} of study {request.study!r}"
            for limit in limits.study:
                _refuse_beyond(limit, own, charge, which, "this study")
            _refuse_beyond(limits.everything, every, charge, which, "all studies")
            study = min(limits.study, key=lambda limit: limit.epsilon)
            bound = rdp_epsilon if study.accountant == "rdp" else epsilon_of  # one throughout: so it never falls
            epsilon = bound([*own, charge], study.delta)
            epsilon_all = _bound([*every, charge], limits.everything)
            return {
                "kind": SPENT,
                "utc": _now(),
                "request": vars(request),
                "charge": vars(charge),
                "unit": unit,
                "units": units,
                "delta": study.delta,
                "epsilon": epsilon,
                "left": study.epsilon - epsilon,
                "delta_all": limits.everything.delta,
                "epsilon_all": epsilon_all,
                "left_all": limits.everything.epsilon - epsilon_all,
            }

        return _entry(self._chain.append(make))


def _refuse_beyond(limit: Limit, spent: Sequence[Charge], charge: Charge, which: str, what: str) -> None:
    after = _bound([*spent, charge], limit)
    if after <= limit.epsilon:
        return
    before = _bound(spent, limit)
    raise BudgetError(
        f"{which} is refused: it would bring what {what} cost this site's patients to epsilon {after:.4g} at delta"
        f" {limit.delta:g}, beyond {limit.word} = {limit.epsilon:g}; spent {before:.4g}, left"
        f" {max(0.0, limit.epsilon - before):.4g}; ask for fewer rounds or more noise, or have the hospital raise its"
        " limit"
    )


def _bound(charges: Sequence[Charge], limit: Limit) -> float:
    """Epsilon by the quick bound where that is within the limit, else by the one that the limit asks for."""
    quick = rdp_epsilon(charges, limit.delta)
    if quick <= limit.epsilon or limit.accountant == "rdp":
        return quick
    return min(quick, pld_epsilon(charges, limit.delta))


def _entries(records: Iterable[Record]) -> list[Entry]:
    first, *others = records
    if first.get("kind") != OPENED or first.get("format") != FORMAT:
        raise LedgerError(
            f"the privacy ledger is of format {first.get('format')!r}, this program knows {FORMAT}: use the program"
            " that wrote it"
        )
    return [_entry(record) for record in others]


def _entry(record: Record) -> Entry:
    words: dict[str, Any] = {key: record[key] for key in Entry.__dataclass_fields__ if key in record}
    try:
        return Entry(**words | {"request": Request(**record["request"]), "charge": Charge(**record["charge"])})
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"line {record.get('n')} of the privacy ledger is not a round: {error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
