"""Two sites whose optima a reader can work out by hand: f_i(x) = a_i/2 (x - b_i)^2, a = (1, 3), b = (0, 4).

With equal weights the global optimum is sum a_i b_i / sum a_i = 3.
"""

from collections.abc import Callable

import numpy as np
import torch

from strategies import Strategy, Update

CURVATURES, CENTRES = (1.0, 3.0), (0.0, 4.0)
LEARNING_RATE = 0.1

Local = Callable[[float, float, float, Strategy], float]


def gradient_steps(count: int) -> Local:
    """`count` full-batch gradient steps at a site, through the strategy's own correction."""

    def solve(x: float, a: float, b: float, strategy: Strategy) -> float:
        start = torch.tensor([x], dtype=torch.float64)
        y = start.clone().requires_grad_()
        for _ in range(count):
            y.grad = None
            (a / 2 * (y - b) ** 2).sum().backward()
            strategy.correct([y], [start])
            with torch.no_grad():
                y -= LEARNING_RATE * y.grad
        return y.item()

    return solve


def federate(strategy: Strategy, local: Local, rounds: int, x: float = 0.0) -> list[float]:
    """The global model after each round."""
    path = []
    for _ in range(rounds):
        updates = [
            Update(f"site-{i}", {"w": np.array([local(x, a, b, strategy)])}, 1)
            for i, (a, b) in enumerate(zip(CURVATURES, CENTRES, strict=True))
        ]
        x = float(strategy.aggregate({"w": np.array([x])}, updates)["w"][0])
        path.append(x)
    return path
