"""Hostile sites: who they are, what they send by hand, and what a run says of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from PIL import Image
from rich.console import Console

from protocol.errors import SettingsError
from protocol.packing import Schema
from server.app import main as server_main
from simulation.attacks import AttackSettings, attackers, check_attack, flip_labels, flipped, poisoned
from simulation.simulate import simulate
from tests.client.phantoms import SMALL, small, small_sites

X = {"w": np.array([1.0, 2.0], np.float32), "n.running_mean": np.array([0.0], np.float32), "k": np.array(3)}
Y = {"w": np.array([1.5, 1.0], np.float32), "n.running_mean": np.array([0.7], np.float32), "k": np.array(4)}
SCHEMA = Schema.of((name, a.shape, a.dtype) for name, a in X.items())


@pytest.mark.parametrize(
    ("kind", "scale", "w"),
    [
        ("sign_flip", 10.0, [0.5, 3.0]),
        ("scaling", 10.0, [6.0, -8.0]),
        ("scaling", -2.0, [0.0, 4.0]),
        ("nan", 10.0, [np.nan, np.nan]),
        ("free_rider", 10.0, [1.0, 2.0]),
    ],
)
def test_what_is_sent_by_hand(kind: str, scale: float, w: list[float]) -> None:
    sent = poisoned(AttackSettings(kind, 0.5, scale), X, Y, SCHEMA)
    np.testing.assert_array_equal(sent["w"], np.array(w, np.float32))
    assert sent["w"].dtype == np.float32
    assert sent["n.running_mean"] == Y["n.running_mean"]
    assert sent["k"] == 4


def test_attackers_are_drawn_by_seed_and_name_alone() -> None:
    names = [f"site{number}" for number in range(10)]
    attack = AttackSettings("nan", 0.3, 10.0)
    drawn = attackers(attack, names, seed=1)
    assert len(drawn) == 3
    assert drawn == attackers(attack, names[::-1], seed=1)
    assert len({tuple(attackers(attack, names, seed)) for seed in range(20)}) > 5
    assert attackers(AttackSettings("none", 0.0, 10.0), names, 0) == []
    with pytest.raises(SettingsError, match=r"attack\.share = 0\.04 of 10 sites is nobody: raise it to 0\.1"):
        attackers(AttackSettings("nan", 0.04, 10.0), names, 0)


def test_kind_and_share_go_together() -> None:
    with pytest.raises(SettingsError, match=r"attack\.share = 0\.0 does not go with attack\.kind = 'nan'"):
        check_attack(small(attack_kind="nan"), "local")
    with pytest.raises(SettingsError, match="did you mean 'sign_flip'"):
        check_attack(small(attack_kind="sign_flop", attack_share=0.5), "local")


def test_under_ray_only_data_can_be_poisoned() -> None:
    with pytest.raises(SettingsError, match=r"attack\.kind = 'scaling' needs --engine local"):
        check_attack(small(attack_kind="scaling", attack_share=0.5), "ray")
    check_attack(small(attack_kind="label_flip", attack_share=0.5), "ray")


def test_labels_the_other_way_round() -> None:
    assert flipped(np.array([[0, 1]], np.uint8), 1).tolist() == [[1, 0]]
    assert flipped(np.array([[0, 1, 2]], np.uint8), 3).tolist() == [[2, 1, 0]]


def test_only_the_attackers_masks_are_flipped(tmp_path: Path) -> None:
    table = small()
    sites = small_sites(tmp_path, table)
    seen = flip_labels(sites, [sites[1].name], table, tmp_path / "flipped")
    assert [site.name for site in seen] == [site.name for site in sites]
    for honest, site in zip(sites, seen, strict=True):
        for mask in sorted((honest / "masks").iterdir()):
            before, after = (np.asarray(Image.open(path)) for path in (mask, site / "masks" / mask.name))
            assert np.array_equal(after, before if site.name == sites[0].name else 1 - before)
        assert (site / "site.csv").read_text() == (honest / "site.csv").read_text()
        assert sorted(p.name for p in (site / "images").iterdir()) == sorted(
            p.name for p in (honest / "images").iterdir()
        )


def test_a_run_names_its_attackers_and_the_gate_leaves_them_out(tmp_path: Path) -> None:
    changed = SMALL | {"federation.rounds": 1, "train.augment": "false", "attack.kind": "nan", "attack.share": 0.5}
    sets = [f"{key}={value}" for key, value in changed.items()]
    run = simulate(None, "local", sets, tmp_path / "run", False, Console(quiet=True))
    result = json.loads((run / "result.json").read_text())
    (hostile,) = result["attack"]["sites"]
    assert result["attack"] | {"sites": []} == {"kind": "nan", "share": 0.5, "scale": 10.0, "sites": []}
    assert list(result["rounds"][0]["failed"]) == [hostile]
    assert "not finite" in result["rounds"][0]["failed"][hostile]
    assert f"On purpose: {hostile} attacked in every round (nan)." in (run / "report.html").read_text()


def test_no_attack_outside_a_simulation() -> None:
    table = small(attack_kind="nan", attack_share=0.5)
    with pytest.raises(SettingsError, match=r"attack\.kind = 'nan' is for simulations alone"):
        server_main(None, Context(1, 0, {}, RecordDict(), table))
