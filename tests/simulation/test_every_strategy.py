"""Every strategy over the real server and the real trainers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from client.data import load_split
from client.device import PlaceSettings, find_place
from client.evaluation import evaluate
from client.inference import Inference
from client.site import read_site
from protocol.settings import Table, section
from simulation.simulate import simulate
from strategies import STRATEGIES
from strategies.layers import head, normalisation_layers, statistics
from strategies.local import Arrays
from tests.simulation.studies import model, run, tiny, weights
from urwkv.weights import load_model, read_header

Sites = Callable[[Table], list[Path]]


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_runs_and_leaves_a_model(name: str, tmp_path: Path, sites: Sites) -> None:
    table = tiny(name)
    out = run(tmp_path / "run", table, sites(table))
    result = json.loads((out / "result.json").read_text())
    assert result["strategy"] == name
    assert [record["failed"] for record in result["rounds"]] == [{}, {}]
    assert all(record["global_dice"] is not None for record in result["rounds"])
    assert len(result["final"]["sites"]) == table["data.sites"]
    x = model(out)
    assert all(np.isfinite(a).all() for a in x.values())
    before = {n: t.numpy() for n, t in load_model(out / "model.safetensors").state_dict().items()}
    assert before.keys() == x.keys()
    own = sorted(out.glob("state/*/personal.safetensors"))
    assert bool(own) == (name in ("fedbn", "silobn", "ditto", "fedrep"))
    assert sorted({path.parent.name for path in out.glob("state/*/*")}) == (
        [site["name"] for site in result["sites"]] if STRATEGIES[name].remembers else []
    )


@pytest.mark.parametrize(
    ("name", "kept"), [("fedbn", normalisation_layers), ("silobn", statistics), ("fedrep", head)]
)
def test_what_a_site_keeps_stays_there_and_the_rest_is_shared(
    name: str, kept: Callable[[Arrays], frozenset[str]], tmp_path: Path, sites: Sites
) -> None:
    table = tiny(name)
    out = run(tmp_path / "run", table, sites(table))
    best = model(out, "model.safetensors")
    names = kept(best)
    assert names
    owns = [model(path.parent, path.name) for path in sorted(out.glob("state/*/personal.safetensors"))]
    assert len(owns) == 3
    shared = best.keys() - names
    assert all((own[n] == best[n]).all() for own in owns for n in shared)
    assert all(any((own[n] != best[n]).any() for n in names) for own in owns)
    assert any((owns[0][n] != owns[1][n]).any() for n in names)


def test_the_sites_own_best_model_is_for_use(tmp_path: Path, sites: Sites) -> None:
    """It is the network, and of the best round: its test Dice is what the result says of the site."""
    table = tiny("ditto", federation_rounds=3)
    folders = sites(table)
    out = run(tmp_path / "run", table, folders)
    result = json.loads((out / "result.json").read_text())
    place = find_place(section(table, "train", PlaceSettings))
    for folder in folders:
        path = out / "state" / folder.name / "personal.safetensors"
        _, words = read_header(path)
        assert words == {"round": str(result["final"]["best_round"]), "data.size": "16", "site": folder.name}
        test = load_split(read_site(folder, seed=0, val=0.15, test=0.2), "test", 16, 3, 1)
        scores = evaluate(Inference(load_model(path), place, None), test, 1, place, surfaces=False)
        assert scores["dice"] == pytest.approx(result["final"]["sites"][folder.name]["dice"], abs=1e-6)


def test_the_command_runs_them_too(tmp_path: Path) -> None:
    sets = [f"{key}={value}" for key, value in tiny("fedbn").items() if value != "" and not key.startswith("run.")]
    for name in ("fedbn", "cyclic"):
        out = tmp_path / name
        words = [*sets, f"federation.strategy={name}", "federation.sites=0"]
        simulate(None, "local", words, out, False, Console(quiet=True))
        assert (out / "report.html").stat().st_size > 0
        assert len(json.loads((out / "result.json").read_text())["rounds"]) == 2


def test_fedprox_with_mu_zero_is_fedavg_bit_for_bit(tmp_path: Path, sites: Sites) -> None:
    table = tiny("fedavg", train_epochs=2)
    average = run(tmp_path / "average", table, sites(table))
    prox = run(tmp_path / "prox", tiny("fedprox", strategy_mu=0.0, train_epochs=2), sites(table))
    assert weights(prox) == weights(average)
    pulled = run(tmp_path / "pulled", tiny("fedprox", strategy_mu=1.0, train_epochs=2), sites(table))
    assert weights(pulled) != weights(average)


def test_dittos_shared_model_is_fedavgs_bit_for_bit(tmp_path: Path, sites: Sites) -> None:
    table = tiny("fedavg", train_epochs=2)
    average = model(run(tmp_path / "average", table, sites(table)))
    ditto = model(run(tmp_path / "ditto", tiny("ditto", train_epochs=2), sites(table)))
    assert all(ditto[name].tobytes() == average[name].tobytes() for name in average)
