"""Overlaps of moved masks and boxes, against counting pixels."""

from __future__ import annotations

import numpy as np
import pytest

from panoptic_ros.tracking.assignment import assign
from panoptic_ros.tracking.overlap import MaskGrid, MaskSamples, box_overlap


def box(x, y, width, height):
    """A box as the tracker writes it: centre of its pixels, logarithm of its size."""
    return [x + (width - 1) / 2, y + (height - 1) / 2, np.log(width), np.log(height)]


def image(*boxes, size=(40, 60)):
    labels = np.zeros(size, np.uint16)
    for label, (x, y, width, height) in boxes:
        labels[y : y + height, x : x + width] = label
    return labels


def test_the_overlap_of_masks_is_their_iou():
    rng = np.random.default_rng(3)
    ids = np.array([513, 514, 900])
    before, after = (np.kron(rng.choice([0, 257, *ids], (8, 12)), np.ones((5, 5))) for _ in "ab")
    before, after = before.astype(np.uint16), after.astype(np.uint16)
    grid = MaskGrid(after, ids)
    still = np.zeros((3, 4))
    found, part = grid.overlap(MaskGrid(before, ids).samples(), still, still)
    for row, one in enumerate(ids):
        for column, other in enumerate(ids):
            a, b = before == one, after == other
            assert found[row, column] == pytest.approx((a & b).sum() / (a | b).sum())
            smaller = min(a.sum(), b.sum())
            assert part[row, column] == pytest.approx((a & b).sum() / smaller)


def test_a_mask_moves_with_its_box():
    masks = MaskGrid(image((300, (5, 6, 10, 12))), np.array([300])).samples()
    grid = MaskGrid(image((777, (20, 9, 10, 12))), np.array([777]))
    before, after = (np.array([box(*b)]) for b in ((5, 6, 10, 12), (20, 9, 10, 12)))
    assert grid.overlap(masks, before, before)[0] == 0
    assert grid.overlap(masks, before, after)[0] == 1


def test_a_mask_grows_with_its_box():
    masks = MaskGrid(image((300, (10, 10, 10, 10))), np.array([300])).samples()
    grid = MaskGrid(image((777, (5, 5, 20, 20))), np.array([777]))
    before, after = (np.array([box(*b)]) for b in ((10, 10, 10, 10), (5, 5, 20, 20)))
    assert grid.overlap(masks, before, before)[0] == 0.25
    assert grid.overlap(masks, before, after)[0] == pytest.approx(1)


def test_what_leaves_the_image_does_not_count():
    masks = MaskGrid(image((300, (40, 10, 20, 10))), np.array([300])).samples()
    grid = MaskGrid(image((777, (50, 10, 10, 10))), np.array([777]))
    before, after = (np.array([box(*b)]) for b in ((40, 10, 20, 10), (50, 10, 20, 10)))
    assert grid.overlap(masks, before, after)[0] == 1


def test_a_large_image_is_sampled():
    size = (1080, 1920)
    masks = MaskGrid(image((300, (100, 200, 400, 300)), size=size), np.array([300])).samples()
    assert len(masks.x) < 40_000
    grid = MaskGrid(image((777, (200, 200, 400, 300)), size=size), np.array([777]))
    still = np.zeros((1, 4))
    assert grid.overlap(masks, still, still)[0] == pytest.approx(0.6, abs=0.02)


def test_some_masks_are_taken_and_joined():
    labels = image((300, (0, 0, 2, 1)), (301, (5, 5, 3, 1)), (302, (9, 9, 1, 1)))
    masks = MaskGrid(labels, np.array([300, 301, 302])).samples()
    taken = masks.take(np.array([2, 0]), 3)
    assert np.bincount(taken.owners).tolist() == [1, 2]
    both = taken.joined(masks, 2)
    assert np.bincount(both.owners).tolist() == [1, 2, 2, 3, 1]
    assert sorted(both.x[both.owners == 3].tolist()) == [5, 6, 7]
    assert len(MaskSamples.empty().take(np.zeros(0, int), 0).x) == 0


def test_boxes_by_hand():
    one = np.array([box(0, 0, 10, 10), box(30, 0, 10, 10)])
    other = np.array([box(5, 0, 10, 10), box(50, 0, 4, 4)])
    np.testing.assert_allclose(box_overlap(one, other, 0), [[1 / 3, 0], [0, 0]])
    # Enlarged by half of 10 on each side they are 20 wide, from -5 and 0 on: 15 x 20 shared.
    assert box_overlap(one, other, 0.5)[0, 0] == pytest.approx(300 / 500)


def test_the_best_of_all_assignments_counts():
    agreement = np.array([[0.9, 0.8, 0.0], [0.8, 0.1, 0.0]])
    rows, columns = assign(agreement, 0.2)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_pairs_that_agree_too_little_are_none():
    rows, columns = assign(np.array([[0.15, 0.0], [0.0, 0.5]]), 0.2)
    assert (rows.tolist(), columns.tolist()) == ([1], [1])
    assert [len(x) for x in assign(np.zeros((0, 3)), 0.2)] == [0, 0]
