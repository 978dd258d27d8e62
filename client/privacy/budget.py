"""`fedurwkv site budget DIR`: what a site's patients have spent, as a table."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.privacy.accounting import pld_epsilon, rdp_epsilon
from client.privacy.allowed import NONE
from client.privacy.ledger import Entry, Ledger
from client.privacy.policy import FILE, Policy, read_policy
from client.privacy.promise import void_promise
from protocol.errors import LedgerError

COLUMNS = ("when (UTC)", "study", "run", "round", "noise", "rate", "steps", "ε study", "left", "ε all", "left")


def budget(folder: Path, console: Console, *, new: bool, last: int) -> None:
    """Print the ledger of the site in `folder`, and of each sum both bounds, which can take some seconds.

    Args:
        new: open a ledger first.
        last: how many payments to print at most; the sums are over all.

    Raises:
        LedgerError: there is no such folder or no ledger, or it was damaged or changed; or `new` and there is one
            already.
        PolicyError: there is a site.yaml that cannot be read.
    """
    if not folder.is_dir():  # a ledger opened under a misspelt name would be nobody's
        raise LedgerError(f"{folder} is no folder: give the path of a site")
    policy = read_policy(folder) if (folder / FILE).exists() else None
    where = policy.ledger if policy else folder / "privacy"
    if new:
        Ledger(where).open()
    entries = read_ledger(where, folder)
    if entries:
        console.print(_table(entries[-last:]))
    with console.status("adding up") as status:
        for line in _summary(entries, policy, lambda what: status.update(escape(what))):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def read_ledger(where: Path, folder: Path) -> list[Entry]:
    """All payments in the ledger in `where`, which is that of the site in `folder`.

    Raises:
        LedgerError: there is no ledger, or it was damaged or changed.
    """
    ledger = Ledger(where)
    if not ledger.exists():
        raise LedgerError(
            f"{where} holds no ledger; if these patients' images were never trained on:"
            f" fedurwkv site budget {folder} --open"
        )
    return ledger.entries()


def check_readiness(folder: Path, *, asked: bool) -> Policy:
    """The policy of the site in `folder`, which could pay for a round: it has a ledger where privacy is wanted.

    Args:
        asked: whether a study asks for privacy; the site itself may insist on it, too.

    Raises:
        PolicyError: site.yaml cannot be read to the last key.
        LedgerError: privacy is wanted, and there is no ledger, or it was damaged or changed.
    """
    policy = read_policy(folder)
    if asked or policy.privacy.unit != NONE:
        read_ledger(policy.ledger, folder)
    return policy


def _table(entries: Sequence[Entry]) -> Table:
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:3] else "right")
    for entry in entries:
        request, charge = entry.request, entry.charge
        table.add_row(
            *(
                entry.utc.removesuffix("+00:00").replace("T", " "),
                *(escape(plain(word)) for word in (request.study, request.run)),
            ),
            str(request.round),
            *(f"{charge.noise:.4g}", f"{charge.rate:.4g}", str(charge.steps)),
            *(f"{entry.epsilon:.4g}", f"{entry.left:.4g}", f"{entry.epsilon_all:.4g}", f"{entry.left_all:.4g}"),
        )
    return table


def _summary(entries: Sequence[Entry], policy: Policy | None, begin: Callable[[str], None]) -> Iterator[str]:
    """The lines below the table; `begin` is told what is computed next."""
    if not entries:
        yield "nothing was spent yet"
    else:
        for study, last in {entry.request.study: entry for entry in entries}.items():
            own, name = [entry for entry in entries if entry.request.study == study], plain(study)
            begin(f"both bounds of {name}")
            both = _bounds(own, last.delta)
            yield f"{name}: epsilon {last.epsilon:.4g} at delta {last.delta:g}, {last.unit} privacy; {both}"
        end = entries[-1]
        payments = f"{len(entries)} payment{'s' if len(entries) > 1 else ''}"  # for rounds, and for noisy scores
        begin("both bounds of all studies")
        both = _bounds(entries, end.delta_all)
        yield f"all studies, {payments}: epsilon {end.epsilon_all:.4g} at delta {end.delta_all:g}; {both}"
    if policy is None:
        yield f"no {FILE}: nothing is trained on this site until the hospital writes one"
        return
    caps = policy.privacy
    yield (
        f"granted by {FILE}: epsilon {caps.epsilon_study:g} a study, {caps.epsilon_all:g} in all"
        f" at delta {caps.delta:g}"
    )
    if words := void_promise(policy):
        yield f"note: {words}"


def _bounds(entries: Sequence[Entry], delta: float) -> str:
    """What the payments cost together by either bound; each holds, and the ledger has counted one of them."""
    charges = [entry.charge for entry in entries]
    return f"by RDP {rdp_epsilon(charges, delta):.4g}, by PLD {pld_epsilon(charges, delta):.4g}"


def plain(word: str) -> str:
    """A server's word, on one line and without what would steer the terminal."""
    return word if word.isprintable() else ascii(word)
