"""Scores of masks against sums written out."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops.dynamic_kernels import mask_scores, soft_masks


def test_a_mask_scores_its_mean_where_it_is_above_the_threshold():
    encoding = torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]])
    kernels = torch.tensor([[[1.0], [-1.0], [0.0]]])
    up, down = torch.tensor([1.0, 2.0]).sigmoid().tolist()
    scores = mask_scores(kernels, encoding, 0.6)
    assert scores[0].tolist() == pytest.approx([(up + down) / 2, up, 0.0], abs=1e-5)
    masks = soft_masks(kernels[0], encoding[0])
    assert masks.shape == (3, 2, 2)
    assert masks[0, 1, 0] == pytest.approx(down)
