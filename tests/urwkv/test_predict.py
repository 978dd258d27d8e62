import torch

from urwkv.predict import predict_labels


def test_one_class_is_cut_at_one_half():
    labels = predict_labels(torch.tensor([[[[-0.1, 0.0, 0.1]]]]))
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[[0, 0, 1]]]


def test_more_classes_are_the_largest_logit():
    labels = predict_labels(torch.tensor([3.0, 1.0, 0.0, 2.0, 1.0, 4.0]).view(1, 3, 1, 2))
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[[0, 2]]]
