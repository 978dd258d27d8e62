import math

import pytest
import torch

from urwkv.metrics import dice, hd95, iou, nsd

ALL = (dice, iou, hd95, nsd)
H, W = 20, 30
DIAGONAL = math.hypot(H, W)


def box(top, left, bottom, right, label=1):
    labels = torch.zeros(1, H, W, dtype=torch.uint8)
    labels[0, top:bottom, left:right] = label
    return labels


EMPTY = box(0, 0, 0, 0)


def scores(prediction, truth, num_classes=1):
    return [metric(prediction, truth, num_classes).item() for metric in ALL]


def test_two_overlapping_boxes_by_hand():
    # 4 x 4 boxes, one two columns to the right: 8 pixels of 16 in common.
    # Of 12 outline pixels 4 lie on the other's outline, and none farther than 2 from it.
    a, b = box(5, 5, 9, 9), box(5, 7, 9, 11)
    assert scores(a, b) == pytest.approx([0.5, 8 / 24, 2.0, 1.0])
    assert nsd(a, b, tolerance=0.5).item() == pytest.approx(4 / 12)


def test_a_shift_is_its_distance():
    a, b = box(2, 2, 5, 5), box(2, 12, 5, 15)
    # The left column is 10 away, the middle 9, the right 8: the 95th percentile of 8 pixels is 10.
    assert scores(a, b) == pytest.approx([0.0, 0.0, 10.0, 0.0])


def test_hd95_takes_the_worse_direction_and_forgives_five_percent():
    a, b = box(2, 2, 18, 18), box(2, 2, 18, 18)
    b[0, 10, 29] = 1  # one stray pixel of 61 is forgiven
    assert hd95(a, b).item() == 0.0
    b[0, 2:18, 29] = 1  # a stray column is not, in whichever direction
    assert hd95(a, b).item() == hd95(b, a).item() == 12.0


def test_perfect_is_perfect():
    a = box(2, 3, 9, 11)
    assert scores(a, a) == [1.0, 1.0, 0.0, 1.0]


def test_empty_rules():
    a = box(2, 3, 9, 11)
    assert scores(EMPTY, EMPTY) == [1.0, 1.0, 0.0, 1.0]
    assert scores(a, EMPTY) == pytest.approx([0.0, 0.0, DIAGONAL, 0.0])
    assert scores(EMPTY, a) == pytest.approx([0.0, 0.0, DIAGONAL, 0.0])


def test_classes_are_averaged_without_background():
    truth = box(2, 2, 6, 6, 1) + box(10, 10, 14, 14, 2)
    prediction = box(2, 2, 6, 6, 1) + box(10, 12, 14, 16, 2)
    # Class 1 is perfect, class 2 half overlaps, class 3 is in neither.
    assert scores(prediction, truth, 4) == pytest.approx([2.5 / 3, (2 + 1 / 3) / 3, 2 / 3, 1.0])


def test_one_class_takes_any_label_above_zero():
    a, b = box(5, 5, 9, 9), box(5, 7, 9, 11)
    assert scores(a, b * 255) == scores(a, b)


@pytest.mark.parametrize("metric", ALL)
def test_images_are_scored_one_by_one(metric):
    predictions = torch.cat([box(5, 5, 9, 9), EMPTY, box(1, 1, 3, 3)]).long()
    truths = torch.cat([box(5, 7, 9, 11), EMPTY, EMPTY])
    found = metric(predictions, truths)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    alone = [metric(p[None], t[None]).item() for p, t in zip(predictions, truths, strict=True)]
    assert found.tolist() == alone


@pytest.mark.parametrize("metric", [dice, iou])
def test_overlaps_ask_the_device_for_no_value(metric):
    labels = torch.empty(2, H, W, dtype=torch.uint8, device="meta")
    assert metric(labels, labels, 3).shape == (2,)
