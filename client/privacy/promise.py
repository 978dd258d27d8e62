"""What training without privacy does to a bound that patients were promised: it is void, and nothing restores it."""

from client.privacy.allowed import NONE
from client.privacy.ledger import Ledger
from client.privacy.policy import FILE, Policy
from protocol.errors import LedgerError


def void_promise(policy: Policy) -> str:
    """What is to be said where `unit: none` meets a ledger with payments; empty where it does not.

    It is said and not refused: `unit: none` is the hospital's own written word, and the way around a refusal would be
    another ledger, where nobody sees what these patients have spent.
    """
    ledger = Ledger(policy.ledger)
    if policy.privacy.unit != NONE or not ledger.exists():
        return ""
    try:
        count = len(ledger.entries())
    except LedgerError:
        held = "is damaged, so what it holds is not known"
    else:
        if not count:
            return ""
        held = f"holds {count} payment{'s' if count > 1 else ''}"
    return (
        f"privacy.unit = {NONE} in {policy.folder / FILE} lets studies train without privacy, and the ledger in"
        f" {policy.ledger} {held}: its bound of epsilon {policy.privacy.epsilon_all:g} in all, and every study's, is"
        " void for patients who are trained on in that way; write unit: patient, or, for patients who are in none of"
        " those studies, name a ledger of their own in privacy.ledger"
    )
