import torch

from urwkv.leaves import PerSample, Scale


def test_scale_multiplies_the_last_axis():
    scaled = Scale(torch.tensor([2.0, 3.0]))(torch.ones(4, 5, 2))
    assert torch.equal(scaled, torch.tensor([2.0, 3.0]).expand(4, 5, 2))


def test_per_sample_hands_each_sample_the_vector():
    handed = PerSample(torch.tensor([2.0, 3.0]))(torch.zeros(3, 7, 7, 2))
    assert handed.tolist() == [[2.0, 3.0]] * 3


def test_initial_values_are_not_shared():
    initial = torch.ones(2)
    first, second = Scale(initial), Scale(initial)
    first.weight.data += 1
    assert torch.equal(second.weight.data, torch.ones(2))
