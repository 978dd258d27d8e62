import torch

from urwkv.labels import foreground

LABELS = torch.tensor([[[0, 1, 2]]], dtype=torch.uint8)


def test_one_class_is_every_label_above_zero():
    assert foreground(LABELS, 1).tolist() == [[[[False, True, True]]]]


def test_more_classes_are_one_map_each_without_background():
    assert foreground(LABELS, 3).int().tolist() == [[[[0, 1, 0]], [[0, 0, 1]]]]
