import math

import torch

from urwkv.ops.reference import biwkv_reference


def as_defined(w: float, u: float, k: list[float], v: list[float]) -> list[float]:
    """One channel, token by token, in the words of the definition."""
    result = []
    for t in range(len(k)):
        above, below = math.exp(u + k[t]) * v[t], math.exp(u + k[t])
        for i in range(len(k)):
            if i != t:
                weight = math.exp(-(abs(t - i) - 1) * w + k[i])
                above, below = above + weight * v[i], below + weight
        result.append(above / below)
    return result


def test_two_tokens_by_hand():
    # Neighbours weigh exp(k), a token itself exp(u + k): with k = 0 and u = ln 3, three to one.
    u = torch.tensor([math.log(3.0)])
    y = biwkv_reference(torch.tensor([7.0]), u, torch.zeros(2, 1), torch.tensor([[0.0], [4.0]]))
    torch.testing.assert_close(y, torch.tensor([[1.0], [3.0]]))


def test_definition():
    torch.manual_seed(0)
    k, v = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
    w, u = torch.tensor([-0.7, 0.0, 1.3]).double(), torch.tensor([0.2, -1.0, 0.5]).double()
    y = biwkv_reference(w, u, k, v)
    for b in range(2):
        for c in range(3):
            expected = as_defined(w[c].item(), u[c].item(), k[b, :, c].tolist(), v[b, :, c].tolist())
            torch.testing.assert_close(y[b, :, c], torch.tensor(expected, dtype=torch.float64))
