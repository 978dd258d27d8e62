"""Pool the site folders of a run into one site, splits kept: the centralised twin of a federation.

python bench/pool_sites.py RUN/sites OUT        then: fedurwkv simulate --set data.root=OUT ...
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from client.site import read_site
from simulation.pooled import pool_sites


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sites", type=Path)
    parser.add_argument("out", type=Path)
    words = parser.parse_args()
    folders = sorted(path for path in words.sites.iterdir() if (path / "images").is_dir())
    # the splits stand in each site.csv, so seed and shares are of no account
    sites = [read_site(folder, seed=0, val=0.5, test=0.0) for folder in folders]
    pooled = pool_sites(sites, words.out, {"sites": str(words.sites.resolve())})
    print(f"{sum(len(site.cases) for site in sites)} cases in {pooled}")


if __name__ == "__main__":
    main()
