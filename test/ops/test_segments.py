"""The label image and its table, on maps small enough to count by hand."""

from __future__ import annotations

import numpy as np
import torch

from panoptic_ros.ops.segments import (
    _extent_by_counts,
    _extent_by_runs,
    encode_segments,
)
from panoptic_ros.truth import SegmentMap

THINGS = torch.tensor([7, 9])


def encode(slots, class_ids, scores, limit=0):
    encoded = encode_segments(
        SegmentMap(torch.tensor(slots), torch.tensor(class_ids), torch.tensor(scores)),
        THINGS,
        limit,
    )
    return encoded.labels.numpy().view(np.uint16), encoded.table.numpy()


def test_labels_hold_class_and_instance_by_score():
    labels, table = encode([[1, 1, 2, 2], [3, 3, 0, 4]], [7, 7, 2, 9], [0.4, 0.8, 1.0, 0.5])
    # slot 2 is the better of class 7 and becomes instance 1; stuff class 2 has instance 0
    assert labels.tolist() == [
        [7 * 256 + 2, 7 * 256 + 2, 7 * 256 + 1, 7 * 256 + 1],
        [512, 512, 0, 9 * 256 + 1],
    ]
    label, area, x1, y1, x2, y2, score, center_x, center_y = table[1]
    assert (label, area, x1, y1, x2, y2) == (7 * 256 + 1, 2, 2, 0, 3, 0)
    assert (center_x, center_y) == (2.5, 0.0)
    assert score == np.float32(0.8)


def test_slots_without_pixels_or_class_do_not_count():
    labels, table = encode([[3, 2], [0, 2]], [7, 0, 7], [0.9, 0.5, 0.1])
    # slot 1 has no pixel, slot 2 no class: slot 3 is the first instance of its class
    assert labels.tolist() == [[7 * 256 + 1, 0], [0, 0]]
    assert table[:, 1].tolist() == [0, 0, 1]


def test_small_stuff_becomes_void_and_things_stay():
    slots = [[1, 1, 1, 2, 2, 3]]
    labels, table = encode(slots, [1, 2, 7], [1.0, 1.0, 0.9], limit=3)
    assert labels.tolist() == [[256, 256, 256, 0, 0, 7 * 256 + 1]]
    assert table[:, 1].tolist() == [3, 0, 1]


def test_equal_scores_keep_slot_order():
    labels, _ = encode([[1, 2, 3]], [7, 7, 7], [0.5, 0.5, 0.5])
    assert (labels % 256).tolist() == [[1, 2, 3]]


def test_more_instances_than_fit_share_instance_zero():
    scores = torch.linspace(1, 0, 300).tolist()
    labels, table = encode([list(range(1, 301))], [9] * 300, scores)
    assert (labels[0, :255] % 256).tolist() == list(range(1, 256))
    assert (labels[0, 255:] == 9 * 256).all()
    assert table[:, 1].sum() == 300


def test_highest_class_survives_the_sign_bit():
    labels, _ = encode([[1]], [255], [1.0])
    assert labels.tolist() == [[255 * 256]]


def test_table_equals_counting_on_a_random_map():
    generator = torch.Generator().manual_seed(3)
    slots = torch.randint(0, 9, (40, 61), generator=generator)
    classes = torch.tensor([7, 7, 9, 9, 9, 1, 2, 3])
    encoded = encode_segments(
        SegmentMap(slots, classes, torch.rand(8, generator=generator)), THINGS
    )
    labels = encoded.labels.numpy().view(np.uint16)
    for row in encoded.table.numpy():
        y, x = np.nonzero(labels == row[0])
        assert row[1] == len(y)
        assert row[2:6].tolist() == [x.min(), y.min(), x.max(), y.max()]
        np.testing.assert_allclose(row[7:], [x.mean(), y.mean()])


def test_counts_without_the_host_equal_runs():
    """What is computed on CUDA, on the CPU."""
    generator = torch.Generator().manual_seed(4)
    slots = torch.randint(0, 9, (23, 17), generator=generator).short()
    for a, b in zip(_extent_by_counts(slots, 8), _extent_by_runs(slots, 8), strict=True):
        torch.testing.assert_close(a, b, check_dtype=False)
