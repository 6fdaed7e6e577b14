"""Which kernels of Panoptic FCN's weight maps count, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from panoptic_ros.networks.panoptic_fcn.kernels import (
    LEVELS,
    pool_kernels,
    stuff_kernels,
    thing_kernels,
)
from panoptic_ros.networks.panoptic_fcn.targets import ThingTargets
from panoptic_ros.networks.panoptic_fcn.training import sample_kernels


def test_things_are_the_peaks_of_the_smoothed_centers():
    raw = {}
    for level in LEVELS:
        raw[f"centers_{level}"] = torch.full((1, 2, 5, 6), -50.0)
        raw[f"kernels_{level}"] = torch.arange(30.0).view(1, 1, 5, 6)
    raw["centers_p3"][0, 1, 2, 3] = 0.0  # 0.5; its mean over 3 x 3 cells is 0.5 / 9
    raw["centers_p3"][0, 1, 2, 4] = -1.0  # no peak beside it
    raw["centers_p7"][0, 0, 2, 2] = 0.0  # on P6 and P7 over 5 x 5 cells
    things = thing_kernels(raw, 3, 0.05)
    assert things.scores.shape == (1, 3 * len(LEVELS))
    beside = 1 / (1 + math.e)
    expected = {0: (0.5 + (0.5 + beside) / 9) / 2, 12: (0.5 + 0.5 / 25) / 2}
    assert torch.nonzero(things.scores[0]).flatten().tolist() == list(expected)
    assert things.scores[0, [0, 12]].tolist() == pytest.approx(list(expected.values()))
    assert things.classes[0, [0, 12]].tolist() == [1, 0]
    assert things.weights[0, [0, 12], 0].tolist() == [2 * 6 + 3, 2 * 6 + 2]


def test_stuff_has_the_score_and_the_kernels_of_its_own_cells():
    raw = {}
    for level in LEVELS:
        raw[f"regions_{level}"] = torch.tensor([[3.0, 2.0, -4.0], [0.0, 1.0, -3.0], [-9] * 3])
        raw[f"regions_{level}"] = raw[f"regions_{level}"].view(1, 3, 1, 3)
        raw[f"kernels_{level}"] = torch.tensor([5.0, 7.0, 9.0]).view(1, 1, 1, 3)
    levels = stuff_kernels(raw, 0.05)
    assert len(levels) == len(LEVELS)
    # The first channel is the best of the first two cells, the second of the third, where it is
    # below the threshold; the last of none.
    mean = (1 / (1 + math.exp(-3)) + 1 / (1 + math.exp(-2))) / 2
    assert levels[0].scores[0].tolist() == pytest.approx([mean, 0.0, 0.0])
    assert levels[0].weights[0, :, 0].tolist() == pytest.approx([(5 + 7) / 3, 9 / 3, 0.0])
    assert levels[0].classes[0].tolist() == [0, 1, 2]


def test_kernels_are_pooled_over_all_cells():
    kernels = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 8.0]]])
    regions = torch.tensor([[[True, False], [False, True]], [[False, False], [False, False]]])
    pooled = pool_kernels(kernels, regions, own_mean=False)
    assert pooled.tolist() == [[5 / 4, 8 / 4], [0.0, 0.0]]


def test_kernels_of_a_region_may_be_averaged_over_its_own_cells():
    kernels = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    regions = torch.tensor([[[True, False], [False, True]], [[False, False], [False, False]]])
    assert pool_kernels(kernels, regions, own_mean=True).tolist() == [[2.5], [0.0]]


def test_samples_are_the_best_cells_of_an_instance_and_share_by_score():
    masks = torch.tensor([[[1.0, 1.0], [0.2, 0.0]], [[0.0, 0.0], [0.0, 0.1]]])
    places = torch.zeros(2, 2)
    things = ThingTargets(torch.tensor([1, 1]), masks, torch.tensor([1, 0]), places, places)
    scores = torch.tensor([[[0.9, 0.9], [0.9, 0.9]], [[0.2, 0.6], [0.4, 0.8]]])
    scores = torch.stack((torch.full_like(scores, 0.5), scores))  # they are in the second image
    kernels = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[10.0, 20.0], [30.0, 40.0]]]])
    sampled, shares = sample_kernels(scores.logit(), kernels, things, 2)
    assert sampled[0, :, 0].tolist() == [20.0, 30.0]  # 40 is better, but outside
    assert shares[0].tolist() == pytest.approx([0.6, 0.4])
    assert shares[1].tolist() == [0.0, 0.0]  # a tenth of a cell is outside
    sampled, shares = sample_kernels(scores.logit(), kernels, things, 7)
    assert sampled.shape == (2, 4, 1)  # the level has no more
    assert shares[0].tolist() == pytest.approx([0.5, 1 / 3, 1 / 6, 0.0])
