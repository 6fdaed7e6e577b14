"""Fixed-slot selection of boxes, by hand and against torchvision's batched_nms."""

from __future__ import annotations

import torch
from torchvision.ops import batched_nms

from panoptic_ros.ops.suppression import Candidates, per_anchor, suppress, top_candidates


def candidates(labels, locations=None):
    labels = torch.tensor(labels)
    if locations is None:
        locations = torch.arange(labels.shape[1]).expand_as(labels)
    return Candidates(torch.zeros(labels.shape), locations, labels)


def random_boxes(batch, number, generator):
    corners = torch.rand(batch, number, 2, generator=generator) * 80
    sides = 5 + torch.rand(batch, number, 2, generator=generator) * 40
    return torch.cat((corners, corners + sides), dim=2)


def test_top_candidates_are_the_best_of_each_level():
    values = torch.tensor([[[9.0, 1.0], [8.0, 7.0], [0.0, 2.0]]])  # two levels: 2 and 1 locations
    found = top_candidates(values, [2, 1], 3)
    assert found.values.tolist() == [[9, 8, 7, 2, 0]]
    assert found.locations.tolist() == [[0, 1, 1, 2, 2]]
    assert found.labels.tolist() == [[0, 0, 1, 1, 0]]


def test_the_worse_of_two_overlapping_boxes_goes_within_a_class_only():
    boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 9.0]]])
    found = suppress(candidates([[0, 0, 1]]), boxes, torch.tensor([[0.6, 0.9, 0.7]]), 0.5, 3)
    assert found.locations.tolist() == [[1, 2, 0]]
    assert found.labels.tolist() == [[0, 1, 0]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.9, 0.7, 0.0]]))
    assert found.valid.tolist() == [[True, True, False]]
    assert found.boxes.tolist() == [[[0, 0, 10, 8], [0, 0, 10, 9], [0, 0, 0, 0]]]


def test_images_of_a_batch_do_not_suppress_each_other():
    boxes = torch.tensor([[[0, 0, 10, 10.0]], [[0, 0, 10, 10.0]]])
    found = suppress(candidates([[0], [0]]), boxes, torch.tensor([[0.9], [0.8]]), 0.5, 2)
    assert found.valid.tolist() == [[True, False], [True, False]]


def test_more_boxes_than_slots_keep_the_best():
    boxes = torch.tensor([[[20.0 * i, 0, 20 * i + 10, 10] for i in range(5)]])
    scores = torch.tensor([[0.1, 0.5, 0.3, 0.9, 0.7]])
    found = suppress(candidates([[0] * 5]), boxes, scores, 0.5, 2)
    assert found.locations.tolist() == [[3, 4]]


def test_no_box_at_all_gives_empty_slots():
    found = suppress(candidates([[0, 0]]), torch.ones(1, 2, 4), torch.zeros(1, 2), 0.5, 3)
    assert not found.valid.any()
    assert all((field == 0).all() for field in found)


def test_a_box_without_a_score_suppresses_nothing():
    boxes = torch.tensor([[[0, 0, 10, 10.0], [0, 0, 10, 10]]])
    found = suppress(candidates([[0, 0]]), boxes, torch.tensor([[0.0, 0.4]]), 0.5, 2)
    assert found.locations.tolist() == [[1, 0]]
    assert found.valid.tolist() == [[True, False]]


def test_random_boxes_agree_with_torchvision():
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(3, 200, generator)
    scores = torch.rand(3, 200, generator=generator)
    labels = torch.randint(0, 4, (3, 200), generator=generator)
    found = suppress(candidates(labels.tolist()), boxes, scores, 0.5, 200)
    for i in range(3):
        keep = batched_nms(boxes[i], scores[i], labels[i], 0.5)
        assert 10 < len(keep) < 190
        assert found.locations[i, : len(keep)].tolist() == keep.tolist()
        assert found.valid[i].sum() == len(keep)
        assert torch.equal(found.boxes[i, : len(keep)], boxes[i, keep])


def test_every_anchor_of_a_map_gets_a_row():
    """Two anchors with three outputs at two by two cells; a value tells row, column, channel."""
    cells = torch.tensor([[0, 10], [100, 110]])
    maps = cells + torch.arange(6)[:, None, None]
    expected = [
        [cell + first + i for i in range(3)] for cell in (0, 10, 100, 110) for first in (0, 3)
    ]
    assert per_anchor(maps[None], 3).tolist() == [expected]
