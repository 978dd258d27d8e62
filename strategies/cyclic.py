"""Cyclic weight transfer: the model travels from site to site and is trained at each.

Chang et al., Distributed deep learning networks among institutions for medical imaging, Journal of the American
Medical Informatics Association 2018, https://doi.org/10.1093/jamia/ocy017

    round:   x <- y_1(x), x <- y_2(x), ..., x <- y_N(x),   site after site by name; y_i(x): K_i local steps from x
    server:  none
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update
from strategies.local import Arrays
from strategies.mean import checked, like


class Cyclic(Strategy):
    """Every round the model visits each site once, in a turn of its own; nothing is averaged."""

    def __init__(self) -> None:
        super().__init__()

    def turns(self, sites: Sequence[str]) -> list[list[str]]:
        return [[site] for site in sorted(sites)]

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        visited = list(checked(x, updates))
        if len(visited) > 1:
            sites = ", ".join(sorted(update.site for update in visited))
            raise ValueError(f"cyclic weight transfer takes the model of one site a turn, not of {sites}")
        return like(x, {name: np.array(y) for name, y in visited[0].arrays.items()})
