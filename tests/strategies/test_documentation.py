"""docs/strategies.md says what the code does."""

import re
from pathlib import Path

import pytest
import torch

from strategies import STRATEGIES
from strategies.testbed import federate

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "strategies.md").read_text()


@pytest.mark.slow
def test_the_worked_strategy_ends_where_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "docs/strategies.md", "exec"), names)
    assert "1.5" in capsys.readouterr().out
    path = names["path"]
    assert path[0]["w"].item() == pytest.approx(1.5, abs=1e-12)
    assert path[-1]["w"].item() == pytest.approx(2.4, abs=1e-9)
    x0 = {"w": torch.zeros(1, dtype=torch.float64)}
    silent, lost = (
        federate(names["SlowAnchor"](mu=1.0), x0, names["losses"], [1, 1], 6, 3, 0.1, **{how: {(2, 0), (3, 1)}})
        for how in ("silent", "lost")
    )
    assert silent == lost


def test_the_table_lists_every_strategy_with_its_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", TEXT.split("## What goes with what")[0], re.MULTILINE))
    assert list(rows) == list(STRATEGIES)
    for name, cls in STRATEGIES.items():
        own = cls.hyperparameters()
        listed = dict(re.findall(r"`(\w+)` ([\w.-]+)", rows[name].split("|")[3]))
        assert listed == {key: str(value) for key, value in own.items()}
