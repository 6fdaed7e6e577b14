"""The fusion of Panoptic FCN's kernels, by hand."""

from __future__ import annotations

import torch

from panoptic_ros.networks.panoptic_fcn.kernels import Kernels, fuse_stuff, fuse_things


def kernels(weights, classes, scores) -> Kernels:
    return Kernels(torch.tensor([weights]), torch.tensor([classes]), torch.tensor([scores]))


def unit(degrees):
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    return [float(angle.cos()), float(angle.sin())]


def test_fusion_of_things_by_hand():
    """0.9 is 25.8 degrees. The third equals the second, which is removed: it goes nowhere."""
    weights = [unit(0), unit(20), unit(40), unit(0), unit(100)]
    fused = fuse_things(kernels(weights, [0, 0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5]), 0.9)
    torch.testing.assert_close(fused.scores, torch.tensor([[0.9, 0.0, 0.0, 0.6, 0.5]]))
    mean = (torch.tensor(unit(0)) + torch.tensor(unit(20))) / 2
    torch.testing.assert_close(fused.weights[0, 0], mean)
    torch.testing.assert_close(fused.weights[0, 3], torch.tensor(unit(0)))  # another class
    torch.testing.assert_close(fused.weights[0, 4], torch.tensor(unit(100)))


def test_empty_slots_contribute_nothing():
    fused = fuse_things(kernels([[1.0, 0.0], [4.0, 0.0]], [0, 0], [0.9, 0.0]), 0.9)
    assert fused.weights[0, 0].tolist() == [1.0, 0.0]


def test_fusion_of_stuff_averages_the_levels_that_found_it():
    first = kernels([[1.0], [2.0], [9.0]], [0, 1, 2], [0.5, 0.4, 0.0])
    second = kernels([[3.0], [7.0], [9.0]], [0, 1, 2], [0.7, 0.0, 0.0])
    fused = fuse_stuff([first, second])
    assert fused.weights[0, :, 0].tolist() == [2.0, 2.0, 0.0]
    torch.testing.assert_close(fused.scores, torch.tensor([[0.6, 0.4, 0.0]]))
