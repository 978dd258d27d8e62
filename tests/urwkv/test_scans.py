import torch

from urwkv.scans import one_order, quad_scan, two_orders, undo_quad_scan

#   0 1 2
#   3 4 5
GRID = torch.arange(6.0).view(1, 2, 3, 1)


def listed(scans):
    return scans[0, ..., 0].int().tolist()


def test_the_four_scans_by_hand():
    assert listed(quad_scan(GRID)) == [
        [0, 1, 2, 3, 4, 5],
        [2, 1, 0, 5, 4, 3],
        [0, 3, 1, 4, 2, 5],
        [3, 0, 4, 1, 5, 2],
    ]


def test_the_two_orders_by_hand():
    assert listed(two_orders(GRID)) == [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]]
    assert listed(one_order(GRID)) == [[0, 1, 2, 3, 4, 5]]


def test_undoing_gives_the_map_back():
    maps = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(undo_quad_scan(quad_scan(maps), 3, 5), maps)


def test_undoing_averages_what_was_done_to_each_scan():
    scans = quad_scan(GRID) * torch.tensor([1.0, 3.0, 5.0, 11.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(undo_quad_scan(scans, 2, 3), GRID * 5)


def test_each_sees_the_grids_of_the_scans():
    seen = []

    def look(grid):
        seen.append(grid[0, ..., 0].int().tolist())
        return grid

    quad_scan(GRID, look)
    assert seen == [
        [[[0, 1, 2], [3, 4, 5]], [[2, 1, 0], [5, 4, 3]]],
        [[[0, 3], [1, 4], [2, 5]], [[3, 0], [4, 1], [5, 2]]],
    ]
