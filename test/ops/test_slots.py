"""The best places of a row, against a stable sort."""

import pytest
import torch

from panoptic_ros.ops.slots import best_places


@pytest.mark.parametrize("kinds", [1, 2, 5, 10_000])
def test_best_places_are_those_of_a_stable_sort(kinds):
    torch.manual_seed(kinds)
    scores = torch.randint(0, kinds, (2, 3, 400)).float() / kinds
    scores[0, 0] = 1.0
    values, places = best_places(scores.transpose(0, 1), 70)
    expected, order = scores.transpose(0, 1).sort(dim=-1, descending=True, stable=True)
    assert torch.equal(values, expected[..., :70])
    assert torch.equal(places, order[..., :70])
