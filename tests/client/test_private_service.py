"""Privacy at a real site, through its service and the courier: no ledger, paid rounds, a spent budget."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from flwr.app import Context, Message
from typer.testing import CliRunner

from client.app import SOCKET
from client.app import app as client_app
from client.commands import site as commands
from client.courier import ask
from client.hospital import Hospital
from client.privacy.accounting import Charge, epsilon_of
from client.privacy.ledger import Ledger, Limit, Limits, Request
from client.service import make_trainer, serve
from protocol.errors import BudgetError, DeploymentError
from protocol.messages import DESCRIBE, TRAIN, Task
from protocol.packing import Schema
from protocol.settings import Table
from server.app import initial_model
from server.journal import Journal, State
from server.rounds import Federation
from server.status import Status
from simulation.local_grid import LocalGrid
from tests.client.hospitals import PRIVACY, hospital_at, short_folder
from tests.client.phantoms import small, small_sites

PRIVATE = {"privacy_epsilon": 4.0, "privacy_batch": 3, "privacy_accountant": "rdp", "data_size": 16}
EPSILON, DELTA = float(PRIVACY["epsilon_all"]), float(PRIVACY["delta"])  # type: ignore[arg-type]


@pytest.fixture
def hospitals() -> Iterator[list[Hospital]]:
    with short_folder() as folder:
        sites = small_sites(folder, small(**PRIVATE))
        yield [hospital_at(folder / f"h{n}", data, privacy=PRIVACY) for n, data in enumerate(sites)]


def open_ledger(hospital: Hospital) -> Ledger:
    done = CliRunner().invoke(commands, ["budget", str(hospital.folder), "--open"])
    assert done.exit_code == 0, done.output
    return Ledger(hospital.folder / "privacy")


def serving(hospital: Hospital) -> contextlib.AbstractContextManager[None]:
    return serve(hospital, partial(make_trainer, hospital))


def training(table: Table, number: int) -> Task:
    x = initial_model(table)
    schema = Schema.like(x)
    return Task(TRAIN, number, schema.hash, schema.pack(x), settings=table, study="s", accepted=number - 1)


def test_without_a_ledger_nothing_is_trained_until_it_is_opened(hospitals: list[Hospital]) -> None:
    table, (hospital, _) = small(**PRIVATE), hospitals
    with serving(hospital):
        with pytest.raises(DeploymentError, match=r"privacy holds no ledger; .*fedurwkv site budget DIR --open"):
            ask(hospital.socket, Task(DESCRIBE, settings=table), 60)
        ledger = open_ledger(hospital)
        assert 0 < ask(hospital.socket, training(table, 1), 100).scalars["epsilon"] < 4
    assert len(ledger.entries()) == 1


def test_only_a_spent_budget_is_told_as_one(hospitals: list[Hospital]) -> None:
    table, (hospital, _) = small(**PRIVATE, federation_rounds=1), hospitals
    open_ledger(hospital)
    with serving(hospital):
        ask(hospital.socket, training(table, 1), 100)
        with pytest.raises(BudgetError, match=r"round 2 of study 's' is refused: .* beyond privacy\.epsilon = 4"):
            ask(hospital.socket, training(table, 2), 100)
        with pytest.raises(DeploymentError, match=r"privacy\.epsilon = 0, which is training without .* is refused"):
            ask(hospital.socket, training(table | {"privacy.epsilon": 0.0}, 2), 100)


def spend_all_but_one_round(ledger: Ledger) -> None:
    """After one round, spend for another study: one more such round fits into what the hospital grants, no second."""
    charge = ledger.entries()[0].charge
    fits = 2
    while epsilon_of([times(charge, fits + 1)], DELTA) <= EPSILON:
        fits += 1
    wide = Limit(100.0, DELTA, "")
    ledger.spend(Request("before", "run", 1, ""), times(charge, fits - 2), "patient", 7, Limits((wide,), wide))


def times(charge: Charge, rounds: int) -> Charge:
    return replace(charge, steps=rounds * charge.steps)


def test_a_run_over_real_sites_ends_when_their_budgets_are_spent(hospitals: list[Hospital], tmp_path: Path) -> None:
    """The server, the courier and the services as they are; only Flower's SuperLink is left out between them."""
    table = small(**PRIVATE, federation_rounds=3)

    def app(message: Message, context: Context) -> Message:
        hospital = hospitals[int(context.node_config["partition-id"])]
        return client_app(message, replace(context, node_config={SOCKET: str(hospital.socket)}))

    with contextlib.ExitStack() as stack:
        for hospital in hospitals:
            ledger = open_ledger(hospital)
            stack.enter_context(serving(hospital))
            ask(hospital.socket, training(table, 1), 100)
            spend_all_but_one_round(ledger)
        run = tmp_path / "run"
        state = State(settings=table | {"federation.sites": 2}, model=initial_model(table))
        grid = LocalGrid(app, 2, 1, table)
        try:
            tests = Federation(grid, state, Journal(run), Status(run)).run()
        finally:
            grid.close()
    names = [hospital.name for hospital in hospitals]
    assert state.ended == f"the privacy budget of {', '.join(names)} is spent"
    assert (state.round, state.best_round, state.closed) == (1, 1, True)
    (record,) = state.history
    for name in names:
        assert "beyond privacy.epsilon_all of site.yaml = 4" in record["failed"][name]
        assert tests[name].scalars["test.dice"] >= 0
