"""The panoptic merge on hand-made masks, and against the walk over single pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panoptic_ros.ops.merging import merge_panoptic


def masks(*rows):
    return torch.tensor(rows, dtype=torch.bool)[:, None, :]


def test_better_instances_are_in_front():
    merged = merge_panoptic(
        masks([1, 1, 1, 0, 0], [0, 0, 1, 1, 0]), torch.tensor([[1, 1, 1, 1, 2]]), 0.5
    )
    assert merged.tolist() == [[1, 1, 1, 2, 4]]


def test_an_instance_covered_by_half_stays_and_by_more_goes():
    first = [1, 1, 0, 0, 0, 0]
    half, more = [0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1]
    stuff = torch.zeros(1, 6, dtype=torch.long)
    assert merge_panoptic(masks(first, half), stuff, 0.5).tolist() == [[1, 1, 2, 0, 0, 0]]
    assert merge_panoptic(masks(first, more), stuff, 0.5).tolist() == [[1, 1, 0, 0, 0, 0]]


def test_a_dropped_instance_does_not_cover_later_ones():
    first, dropped, later = [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]
    merged = merge_panoptic(masks(first, dropped, later), torch.zeros(1, 4, dtype=torch.long), 0.5)
    assert merged.tolist() == [[1, 1, 1, 3]]


def test_no_instance_and_empty_masks():
    stuff = torch.tensor([[0, 1, 2]])
    assert merge_panoptic(torch.zeros(0, 1, 3, dtype=torch.bool), stuff, 0.5).tolist() == [
        [0, 1, 2]
    ]
    assert merge_panoptic(masks([0, 0, 0]), stuff, 0.5).tolist() == [[0, 2, 3]]


def merge_by_definition(instance_masks, stuff, threshold):
    """Kirillov's heuristic, written on sets of pixels."""
    owner = {}
    for index, mask in enumerate(instance_masks):
        pixels = set(zip(*np.nonzero(mask), strict=True))
        if not pixels or len(pixels & owner.keys()) / len(pixels) > threshold:
            continue
        owner.update({p: index + 1 for p in pixels - owner.keys()})
    out = np.where(stuff > 0, stuff + len(instance_masks), 0)
    for pixel, value in owner.items():
        out[pixel] = value
    return out


@pytest.mark.parametrize("seed", range(5))
def test_random_masks_equal_the_definition(seed):
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 20, (12, 4))
    instance_masks = np.zeros((12, 24, 24), bool)
    for mask, (y, x, h, w) in zip(instance_masks, boxes, strict=True):
        mask[y : y + h, x : x + w] = True
    stuff = rng.integers(0, 4, (24, 24))
    merged = merge_panoptic(torch.from_numpy(instance_masks), torch.from_numpy(stuff), 0.5)
    np.testing.assert_array_equal(merged, merge_by_definition(instance_masks, stuff, 0.5))
