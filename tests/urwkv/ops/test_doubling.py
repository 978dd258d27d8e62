"""Twice the side: what torch.compile is told is what is computed as written."""

import pytest
import torch

from urwkv.ops.doubling import Doubling, copied


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_copy_is_nearest_neighbour_and_its_gradient_the_sum_of_four(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    dy = torch.randn(2, 3, 10, 8, dtype=torch.float64)
    plain, copy = Doubling()(x), copied(x)
    assert torch.equal(plain, copy)
    for mine, expected in zip(*(torch.autograd.grad(y, x, dy) for y in (copy, plain)), strict=True):
        torch.testing.assert_close(mine, expected)


def test_torch_compile_sees_the_copy() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(torch.compile(Doubling(), backend=backend, fullgraph=True)(x), Doubling()(x))
    assert "expand" in graphs[0].code
    assert "interpolate" not in graphs[0].code
