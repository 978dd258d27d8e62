"""One study at one site: is it allowed, what is the plan, and each round is paid for before it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from client.privacy.accounting import Charge
from client.privacy.draws import rows_by_unit
from client.privacy.fingerprint import settings_hash
from client.privacy.ledger import Entry, Ledger, Request
from client.privacy.noised import noised_mean, score_charge, study_charges
from client.privacy.plan import check_private, make_plan
from client.privacy.policy import FILE, Policy
from client.privacy.randomness import Randomness
from client.privacy.settings import PrivacySettings
from protocol.errors import PolicyError
from protocol.seeds import seed_of
from protocol.settings import Table, section
from protocol.strategy import needed_scalars
from strategies import Strategy


class PrivateSite:
    """What the trainer asks before it trains.

        site = PrivateSite(policy, table, strategy, patients, epochs)      refuses a study
        site.scores(study, run, round, split, patients, values, asked)     the scores with noise, once they are paid
        site.pay(study, run, round, asked)                                 refuses a round, or it is on disk
        private_phase(passes, images, site.units, site.plan, randomness=site.randomness(round), ...)

    Args:
        policy: the hospital's; a simulation's is `replace(policy.OPEN, folder=...)`.
        table: the study's complete table.
        patients: of each training image, whose it is.
        epochs: local epochs a round, over all phases of the strategy.
        name: the site's name if it is a pretend one: then draws and noise follow from it, the study's seed and the
            round, and a round that is computed again is the same release, paid for once. None: a real site.

    Raises:
        PolicyError: the hospital does not allow the study, or keeps a number that the server cannot do without.
        SettingsError: privacy does not go with another setting, or the budget is too small.
    """

    def __init__(
        self,
        policy: Policy,
        table: Table,
        strategy: Strategy,
        patients: Sequence[str],
        epochs: int,
        name: str | None = None,
    ) -> None:
        policy.check(table, len(set(patients)), len(patients))
        policy.check_reports(needed_scalars(strategy))
        self.settings = section(table, "privacy", PrivacySettings)
        self.units = rows_by_unit(patients, self.settings.unit)
        self._policy, self._table, self._name, self._epochs = policy, table, name, epochs
        if not self.settings.asked:
            return
        check_private(self.settings, strategy, str(table["model.norm"]))
        rounds = int(table["federation.rounds"])
        beside = study_charges(policy.allow.scores, policy.allow.noise, rounds)
        self.plan = make_plan(self.settings, len(self.units), epochs, rounds, beside)
        self._ledger = Ledger(policy.ledger)
        if name is not None and not self._ledger.exists():
            self._ledger.open()
        self._entries()  # a damaged ledger refuses the study, not its first round

    def pay(self, study: str, run: str, number: int, asked: str) -> Entry:
        """Write round `number` into the ledger; when this returns, it is on disk.

        Args:
            asked: a hash of what came to be trained: from another model a round is another release.

        Raises:
            BudgetError: it would pass a limit.
            LedgerError: there is no ledger, or it was damaged or changed.
        """
        return self._spend(study, run, number, f"model {asked}", self.plan.charge(self._epochs), len(self.units))

    def scores(
        self,
        study: str,
        run: str,
        number: int,
        split: str,
        patients: Sequence[str],
        values: Mapping[str, npt.NDArray[np.float64]],
        asked: str,
    ) -> dict[str, float]:
        """The scores of a split that leave with noise alone; they are paid for, together, before it is drawn.

        Args:
            patients: of each image of the split, whose it is.
            values: of each metric that the policy names, what each image scores.

        Raises:
            BudgetError: they would pass a limit.
            LedgerError: there is no ledger, or it was damaged or changed.
        """
        bounds, noise = self._policy.allow.scores[split], self._policy.allow.noise
        units = rows_by_unit(patients, self.settings.unit)
        what = f"{len(values)} scores of {split}, model {asked}"
        self._spend(study, run, number, what, score_charge(noise, len(values)), len(units))
        drawn = self.randomness(number, f"scores of {split}")
        return {
            f"{split}.{name}": noised_mean(values[name], units, bounds[name], noise, drawn) for name in sorted(values)
        }

    def _spend(self, study: str, run: str, number: int, what: str, charge: Charge, units: int) -> Entry:
        request = Request(study, run, number, f"settings {settings_hash(self._table)}, {what}")
        entries = self._entries()
        if self._name is not None:
            for entry in entries:
                if (replace(entry.request, run=run), entry.charge) == (request, charge):
                    return entry
        limits = self._policy.limits(self._table)
        return self._ledger.spend(request, charge, self.settings.unit, units, limits)

    def _entries(self) -> list[Entry]:
        """All payments so far; PolicyError where they are no bound for whom the hospital wants to protect."""
        entries = self._ledger.entries()
        images = sum(entry.unit == "example" for entry in entries)
        if images and self._policy.privacy.unit == "patient":
            raise PolicyError(
                f"{images} of {len(entries)} payments in the ledger in {self._policy.ledger} were for single images:"
                f" what they cost a patient is not known, and {FILE} wants privacy.unit = patient; go on with unit:"
                " example"
            )
        return entries

    def randomness(self, number: int, what: str = "privacy") -> Randomness:
        """Where the draws and the noise of round `number` come from."""
        if self._name is None:
            return Randomness()
        return Randomness(seed_of(int(self._table["seed"]), self._name, number, what))
