"""`fedurwkv` as it is, but that private steps get no noise, whatever the ledgers say: the `inf` of bench/privacy.py.

    python bench/noiseless.py simulate ...

For pictures that are public anyway: what such a run leaves protects nobody.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from client.privacy import phase
from client.privacy.plan import Plan
from fedurwkv import main

private_phase = phase.private_phase


def noiseless_phase(passes: Any, images: Any, units: Any, plan: Plan, **words: Any) -> phase.Walked:
    """The same clipped steps on the same kind of draws."""
    return private_phase(passes, images, units, replace(plan, noise=0.0), **words)


if __name__ == "__main__":
    phase.private_phase = noiseless_phase
    main()
