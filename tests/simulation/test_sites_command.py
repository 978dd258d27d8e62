"""`fedurwkv partition`: sites, a table, and a report that stands alone."""

import json
import re
from pathlib import Path

import pytest

from protocol.errors import SettingsError
from simulation.sites_command import partition_command
from tests.simulation import archives


def test_sites_table_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archives.packed(tmp_path / "root/busi", 60)
    scenario = tmp_path / "small.yaml"
    scenario.write_text("data:\n  partition: dirichlet\n  sites: 3\n  size: 32\n")
    out = tmp_path / "out"
    partition_command(scenario, out, [f"data.root={tmp_path / 'root'}", "seed=4"])
    printed = capsys.readouterr().out
    assert all(f"site{number}" in printed for number in (1, 2, 3))
    assert re.search(r"unlike by 0\.\d\d in lesion size \(chance 0\.\d\d\)", printed)
    facts = json.loads((out / "partition.json").read_text())
    assert facts["seed"] == 4
    assert [site["name"] for site in facts["sites"]] == ["site1", "site2", "site3"]
    assert sum(sum(site["counts"].values()) for site in facts["sites"]) == 60
    assert all((out / site["name"] / "site.csv").is_file() for site in facts["sites"])
    page = (out / "partition.html").read_text()
    assert "Sites of small" in page
    assert "dirichlet" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", page)


def test_a_wrong_word_is_an_error(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("data: {partition: dirichlett}\n")
    with pytest.raises(SettingsError, match="did you mean 'dirichlet'"):
        partition_command(scenario, tmp_path / "out", [])
