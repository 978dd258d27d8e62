"""Pool the site folders of a run into one site, splits kept: the centralised twin of a federation.

python bench/pool_sites.py RUN/sites OUT        then: fedurwkv simulate --set data.root=OUT ...
"""

import argparse
import csv
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sites", type=Path)
    parser.add_argument("out", type=Path)
    words = parser.parse_args()
    pooled = words.out / "pooled"
    (pooled / "images").mkdir(parents=True)
    (pooled / "masks").mkdir()
    rows: list[dict[str, str]] = []
    for site in sorted(path for path in words.sites.iterdir() if (path / "images").is_dir()):
        for row in csv.DictReader((site / "site.csv").open()):
            name = f"{site.name}-{row['name']}"
            patient = row["patient"] and f"{site.name}-{row['patient']}"
            rows.append({**row, "name": name, "patient": patient})
            for folder in ("images", "masks"):
                (source,) = (site / folder).glob(f"{row['name']}.*")
                shutil.copy(source, pooled / folder / f"{name}{source.suffix}")
    with (pooled / "site.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} cases in {pooled}")


if __name__ == "__main__":
    main()
