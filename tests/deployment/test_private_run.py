"""A deployed run under differential privacy, to the end of its hospitals' budgets."""

import json

import pytest

from client.privacy.accounting import Charge, noise_for
from client.privacy.ledger import Ledger, Limit, Limits, Request
from tests.client.hospitals import PRIVACY, short_folder
from tests.client.phantoms import SMALL, sets_of, small, small_sites
from tests.deployment.federation import Deployment, fedurwkv, left_over

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDY = SMALL | {"data.size": 16, "federation.rounds": 3, "federation.deadline": 120}
STUDY |= {"privacy.epsilon": 4.0, "privacy.batch": 3, "privacy.accountant": "rdp"}
DELTA = 1e-5


def test_a_run_ends_when_its_hospitals_have_no_privacy_left() -> None:
    """Of the 4 that the hospitals grant in all, 3.2 were spent before, so that one round of three fits."""
    with short_folder() as folder:
        deployment = Deployment(folder)
        deployment.init()
        hospitals = [deployment.hospital(site, privacy=PRIVACY) for site in small_sites(folder, small())]
        names = [hospital.name.removeprefix("h-") for hospital in hospitals]
        with deployment.coordinator(), deployment.sites(hospitals) as (site, _):
            assert f"nothing can be trained yet: {hospitals[0]}/privacy holds no ledger" in site.log.read_text()
            for hospital in hospitals:
                fedurwkv("site", "budget", hospital, "--open")
                wide = Limit(100.0, DELTA, "")
                charge = Charge(noise_for(3.2, DELTA, 1.0, 1, "rdp"), 1.0, 1)
                Ledger(hospital / "privacy").spend(
                    Request("before", "run", 1, ""), charge, "patient", 7, Limits((wide,), wide)
                )
            said = fedurwkv("coordinator", "run", deployment.study, *sets_of(STUDY))
        assert "beyond privacy.epsilon_all of site.yaml = 4" in said
        (run,) = (deployment.study / "runs").iterdir()
        result = json.loads((run / "result.json").read_text())
        (record,) = result["rounds"]
        for name, hospital in zip(names, hospitals, strict=True):
            assert record["failed"][name].startswith("round 2: round 2 of study ")
            spent = Ledger(hospital / "privacy").entries()
            assert [entry.request.round for entry in spent] == [1, 1]
            assert record["sites"][name]["epsilon"] == spent[-1].epsilon
        assert result["final"]["global_dice"] is not None
        assert left_over(folder) == []
