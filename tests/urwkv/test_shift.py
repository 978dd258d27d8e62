import pytest
import torch

from urwkv.shift import shift_tokens


def channel(grid, index):
    return grid[..., index].int().tolist()


def test_quad_by_hand():
    grid = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None].expand(2, 2, 4)
    moved = shift_tokens(grid, "quad")
    assert channel(moved, 0) == [[0, 1], [0, 3]]  # from the left
    assert channel(moved, 1) == [[2, 0], [4, 0]]  # from the right
    assert channel(moved, 2) == [[0, 0], [1, 2]]  # from above
    assert channel(moved, 3) == [[3, 4], [0, 0]]  # from below


def test_quad_on_any_grid_and_more_axes():
    grid = torch.randn(2, 3, 5, 1, 8)
    moved = shift_tokens(grid, "quad")
    assert moved.shape == grid.shape
    assert not moved[..., :4].any()  # a grid one token wide has no neighbours beside
    assert torch.equal(moved[:, :, 1:, :, 4:6], grid[:, :, :-1, :, 4:6])


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_paper_as_specified(side):
    grid = torch.arange(side * side).view(side, side, 1)

    def f(i):
        return i if i < side / 2 else side - 1 - (i - side // 2)

    expected = [[int(grid[f(c), r, 0]) for c in range(side)] for r in range(side)]
    assert channel(shift_tokens(grid, "paper"), 0) == expected


@pytest.mark.parametrize("side", [3, 4, 5, 16])
def test_paper_loses_no_token(side):
    grid = torch.arange(side * side).view(side, side, 1)
    assert torch.equal(shift_tokens(grid, "paper").flatten().sort().values, grid.flatten())


def test_paper_needs_a_square():
    with pytest.raises(ValueError, match="square grids only, not 2 x 3"):
        shift_tokens(torch.zeros(2, 3, 4), "paper")


def test_none_is_the_token_itself():
    grid = torch.randn(2, 3, 4)
    assert torch.equal(shift_tokens(grid, "none"), grid)


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="shift = 'left' is not one of: quad, paper, none"):
        shift_tokens(torch.zeros(2, 2, 4), "left")
