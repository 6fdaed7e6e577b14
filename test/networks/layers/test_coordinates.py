from __future__ import annotations

import torch

from panoptic_ros.networks.layers.coordinates import append_coordinates, coordinate_maps


def test_rows_come_before_columns_and_both_reach_from_minus_one_to_one():
    vertical, horizontal = coordinate_maps(torch.empty(2, 5, 3, 5))[1]
    assert vertical.tolist() == [[-1.0] * 5, [0.0] * 5, [1.0] * 5]
    assert horizontal.tolist() == [[-1.0, -0.5, 0.0, 0.5, 1.0]] * 3


def test_coordinates_stand_behind_the_features_in_their_precision():
    features = torch.randn(2, 5, 4, 6, dtype=torch.bfloat16)
    appended = append_coordinates(features)
    assert appended.shape == (2, 7, 4, 6)
    assert appended.dtype == torch.bfloat16
    assert torch.equal(appended[:, :5], features)
