"""How long joining takes by docs/deploy.md: every command of both pages in turn, from empty folders, on one machine.

    python bench/joining.py [--set KEY=VALUE ...]

Prints the seconds since the first command at which each was done. The hospital has 72 phantoms; --set are settings
of the study for `site check`. What people do between the commands, and installing, is not in it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from protocol.settings import resolve
from simulation.settings import check_settings
from simulation.sites import make_sites
from tests.deployment.federation import Deployment, fedurwkv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    sets = [word for pair in parser.parse_args().sets for word in ("--set", pair)]
    with tempfile.TemporaryDirectory(prefix="fu-") as name:
        folder = Path(name)
        deployment, site = Deployment(folder), folder / "site"
        data = make_sites(check_settings(resolve({"data.sites": 1})), 0, folder / "sites")[0]
        began = time.monotonic()

        def done(what: str) -> None:
            print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

        deployment.init()
        done("coordinator init")
        with deployment.coordinator():
            done("coordinator start")
            fedurwkv("site", "init", site)
            _fill_in(site / "site.yaml", data, f"127.0.0.1:{deployment.port}")
            done("site init")
            fedurwkv("site", "keygen", site)
            (site / "ca.crt").write_bytes((deployment.study / "ca.crt").read_bytes())
            done("site keygen")
            fedurwkv("coordinator", "enroll", deployment.study, data.name, site / "site.pub")
            done("coordinator enroll")
            fedurwkv("site", "budget", site, "--open")
            done("site budget")
            fedurwkv("site", "check", site, *sets)
            done("site check")
            with deployment.sites([site]) as (running,):
                done("site start: connected")
                running.wait_for("serves ", 60)
                done("site start: its trainer is ready")


def _fill_in(path: Path, data: Path, coordinator: str) -> None:
    """What the engineer writes into site.yaml."""
    words = yaml.safe_load(path.read_text())
    words["data"] = str(data)
    words["connection"] |= {"name": data.name, "coordinator": coordinator}
    path.write_text(yaml.safe_dump(words))


if __name__ == "__main__":
    main()
