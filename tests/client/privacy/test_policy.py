"""site.yaml: read strictly or not at all, and each of its words refuses what it should."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from client.privacy.fingerprint import code_version, settings_hash
from client.privacy.policy import OPEN, Policy, read_policy
from protocol.errors import PolicyError
from protocol.settings import ROOT, Table, resolve

YAML = """
data: data
privacy:
  unit: patient
  epsilon_study: 4
  epsilon_all: 10
  delta: 1e-5
  batch: 16
  patients: 50
  images: 80
allow:
  strategies: fedavg, fedprox
  scalars: train.images, val.dice
  decimals: 2
  code: any
  settings: any
"""


def policy(folder: Path, text: str = YAML) -> Policy:
    (folder / "site.yaml").write_text(text)
    return read_policy(folder)


def asked(**changed: object) -> Table:
    return resolve({"privacy.epsilon": 2.0}, {key.replace("_", ".", 1): str(value) for key, value in changed.items()})


def test_a_policy_is_read_with_its_optional_words(tmp_path: Path) -> None:
    read = policy(tmp_path)
    assert (read.place.data, read.place.device, read.ledger) == ("data", "auto", tmp_path / "privacy")
    assert read.privacy.delta == 1e-5
    read.check(asked(), patients=50, images=80)


def test_without_a_policy_there_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"site\.yaml is missing: without the hospital's own policy"):
        read_policy(tmp_path)


@pytest.mark.parametrize("line", [line for line in YAML.splitlines() if line.startswith("  ")])
def test_no_required_key_may_be_missing(tmp_path: Path, line: str) -> None:
    with pytest.raises(PolicyError, match=rf"{line.strip().partition(':')[0]} is missing; nothing is trained"):
        policy(tmp_path, YAML.replace(line + "\n", ""))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epsilon_study: 4", "epsilon_study: 4\n  epsilonall: 3", r"unknown key 'privacy.epsilonall'; did you mean"),
        ("epsilon_study: 4", "epsilon_study: four", "privacy.epsilon_study = 'four' must be a number"),
        ("epsilon_study: 4", "epsilon_study: .inf", "privacy.epsilon_study = inf must be a number"),
        (
            "epsilon_study: 4",
            "epsilon_study: 40",
            "privacy.epsilon_all = 10.0 must be at least",
        ),
        ("unit: patient", "unit: patients", "privacy.unit = 'patients' is not one of.*did you mean 'patient'"),
        ("batch: 16", "batch: 1", "privacy.batch = 1 must be at least 2"),
        ("fedprox", "fedproxx", "allow.strategies = 'fedproxx' must be any or of: fedavg"),
        ("scalars: train.images, val.dice", "scalars: [train.images]", "write a list as words with commas"),
        ("privacy:", "privacy: [", "is not valid YAML"),
    ],
)
def test_a_word_that_cannot_be_is_an_error(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(PolicyError, match=rf"site\.yaml.*{said}.*nothing is trained"):
        policy(tmp_path, YAML.replace(old, new))


NOISED = (
    YAML.replace("val.dice", "val.dice, val.loss") + "  noised: val.dice, val.loss\n  noise: 20\n  loss_bound: 2\n"
)


def test_scores_that_leave_with_noise_have_bounds(tmp_path: Path) -> None:
    assert policy(tmp_path).allow.scores == {"val": {}, "test": {}}
    assert policy(tmp_path, NOISED).allow.scores == {"val": {"dice": 1.0, "loss": 2.0}, "test": {}}
    every = NOISED.replace("val.dice, val.loss\n  dec", "any\n  dec").replace("noised: val.dice", "noised: test.nsd")
    assert policy(tmp_path, every.replace("scalars: train.images, ", "scalars: ")).allow.scores["test"] == {
        "nsd": 1.0
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "noised: val.dice",
            "noised: train.loss",
            r"allow.noised = 'train.loss' must be none or of: val.dice.*no other",
        ),
        ("noised: val.dice", "noised: test.hd95", r"'test.hd95' must be none or of"),
        ("noised: val.dice", "noised: val.images", r"'val.images' must be none or of"),
        ("noised: val.dice", "noised: val.iou", r"allow.noised = 'val.iou' must be among allow.scalars, too"),
        ("noise: 20", "noise: 0", r"allow.noise = 0.0 must be above 0 where allow.noised names any"),
        ("  noise: 20\n", "", r"allow.noise = 0.0 must be above 0 where"),
        ("  loss_bound: 2\n", "", r"allow.loss_bound = 0.0 must be above 0 where allow.noised names a loss"),
        ("noised: val.dice, val.loss", "noised: val.dice", r"allow.loss_bound = 2.0 must be"),
        ("noised: val.dice, val.loss\n", "noised: none\n", r"allow.noise = 20.0 must be"),
        ("unit: patient", "unit: none", r"allow.noised = .* hides nobody beside an update without any"),
    ],
)
def test_noise_that_covers_nothing_is_an_error(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in NOISED
    with pytest.raises(PolicyError, match=rf"site\.yaml.*{said}.*nothing is trained"):
        policy(tmp_path, NOISED.replace(old, new))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"privacy_epsilon": 0}, r"privacy\.epsilon = 0.*wants patient privacy of epsilon 4 at most"),
        ({"privacy_epsilon": 4.1}, r"privacy\.epsilon = 4\.1 is refused.*allows 4 a study"),
        ({"privacy_unit": "example"}, r"privacy\.unit = 'example' is refused.*wants patient"),
        ({"privacy_delta": 1e-4}, r"privacy\.delta = 0\.0001 is refused"),
        ({"privacy_batch": 15}, r"privacy\.batch = 15 of 50 patients is refused.*wants 16 at least"),
        ({"federation_strategy": "fedadam"}, r"federation\.strategy = 'fedadam' is refused.*fedavg, fedprox alone"),
    ],
)
def test_a_study_that_breaks_it_is_refused_with_a_reason(tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        policy(tmp_path).check(asked(**changed), patients=50, images=80)


def test_too_little_data_are_refused(tmp_path: Path) -> None:
    read = policy(tmp_path)
    with pytest.raises(PolicyError, match=r"49 training patients is refused.*wants 50 at least"):
        read.check(asked(), patients=49, images=80)
    with pytest.raises(PolicyError, match=r"79 training images is refused.*wants 80 at least"):
        read.check(asked(), patients=50, images=79)
    few = replace(read, privacy=replace(read.privacy, patients=2, images=2))
    with pytest.raises(PolicyError, match=r"privacy\.batch = 64 of 10 patients"):
        few.check(asked(), patients=10, images=80)


def test_delta_must_be_below_one_over_the_patients_whatever_the_policy_allows(tmp_path: Path) -> None:
    read = policy(tmp_path, YAML.replace("delta: 1e-5", "delta: 0.1"))
    with pytest.raises(PolicyError, match="below 1 / 50 patients"):
        read.check(asked(privacy_delta=0.05), patients=50, images=80)


def test_all_studies_are_not_counted_at_a_delta_that_gives_a_patient_away(tmp_path: Path) -> None:
    read = policy(tmp_path, YAML.replace("delta: 1e-5", "delta: 0.02"))
    with pytest.raises(
        PolicyError, match=r"privacy\.epsilon_all = 10 at privacy\.delta = 0\.02 is refused.*50 train"
    ):
        read.check(asked(), patients=50, images=80)
    policy(tmp_path, YAML.replace("delta: 1e-5", "delta: 0.0199")).check(asked(), patients=50, images=80)


def test_code_and_settings_can_be_pinned(tmp_path: Path) -> None:
    table = asked()
    pinned = YAML.replace("code: any", f"code: {code_version()}")
    read = policy(tmp_path, pinned.replace("settings: any", f"settings: {settings_hash(table)}"))
    read.check(table, patients=50, images=80)
    read.check(asked(tracking_uri="none", run_out="elsewhere"), patients=50, images=80)
    with pytest.raises(PolicyError, match="the settings have the hash"):
        read.check(asked(train_epochs=3), patients=50, images=80)
    other = replace(read, allow=replace(read.allow, code="0.0.9+0123456789abcdef"))
    with pytest.raises(PolicyError, match=r"this program is 0\.1\.0\+[0-9a-f]{16} is refused.*insists on 0\.0\.9"):
        other.check(table, patients=50, images=80)


def test_a_hospital_that_needs_no_privacy_still_refuses_batches_of_one(tmp_path: Path) -> None:
    read = policy(tmp_path, YAML.replace("unit: patient", "unit: none").replace("batch: 16", "batch: 2"))
    read.check(asked(privacy_epsilon=0), patients=50, images=80)
    with pytest.raises(PolicyError, match=r"train\.batch = 1 is refused.*wants 2 at least"):
        read.check(asked(privacy_epsilon=0, train_batch=1), patients=50, images=80)


def test_the_limits_of_a_study_are_its_own_and_the_hospitals(tmp_path: Path) -> None:
    limits = policy(tmp_path).limits(asked(privacy_delta=1e-6))
    assert [(limit.epsilon, limit.delta) for limit in limits.study] == [(2.0, 1e-6), (4.0, 1e-6)]
    assert (limits.everything.epsilon, limits.everything.delta) == (10.0, 1e-5)


def test_only_named_scalars_leave_and_the_others_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for loss in (0.1234, 0.0987):
            out = policy(tmp_path).let_out({"train.images": 80.0, "val.dice": 0.8765, "train.loss": loss})
    assert out == {"train.images": 80.0, "val.dice": 0.88}
    assert [record.getMessage() for record in caplog.records] == [
        f"kept here, as allow.scalars of {tmp_path / 'site.yaml'} does not name them: train.loss"
    ]


@pytest.mark.parametrize(
    ("scalars", "uncovered"),
    [
        ("train.images, val.dice, test.hd95, epsilon, train.steps", ["val.dice", "test.hd95"]),
        ("train.images, train.travel, test.images", []),
        ("none", []),
        ("any", ["any"]),
    ],
)
def test_numbers_that_no_epsilon_covers_are_known(tmp_path: Path, scalars: str, uncovered: list[str]) -> None:
    assert policy(tmp_path, YAML.replace("train.images, val.dice", scalars)).allow.uncovered == uncovered
    assert policy(tmp_path, NOISED).allow.uncovered == []


def test_a_pretend_hospital_allows_everything() -> None:
    OPEN.check(asked(privacy_epsilon=0, train_batch=1), patients=1, images=1)
    OPEN.check(asked(privacy_epsilon=1000, privacy_delta=0.2), patients=2, images=2)
    assert OPEN.let_out({"train.loss": 0.123456789}) == {"train.loss": 0.123456789}


def test_what_was_spent_is_not_rounded_down(tmp_path: Path) -> None:
    named = policy(tmp_path, YAML.replace("val.dice", "val.dice, epsilon"))
    assert named.let_out({"epsilon": 1.234567, "val.dice": 0.1234567}) == {"epsilon": 1.234567, "val.dice": 0.12}


def test_the_examples_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    noised, whole = (
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "privacy.md").read_text(), re.DOTALL)
    )
    assert not any(policy(tmp_path, yaml.safe_dump(whole)).allow.scores.values())
    whole["allow"] |= noised["allow"]
    assert policy(tmp_path, yaml.safe_dump(whole)).allow.scores == {
        "val": {"dice": 1.0, "loss": 2.0},
        "test": {"dice": 1.0},
    }
