"""The soft masks of dense detection in one kernel against the plain form."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import agreement

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("levels", [1, 5])
@pytest.mark.parametrize("number", [0, 1, 11])
def test_soft_masks(number, levels):
    generator = torch.Generator().manual_seed(number)
    corner = 40 * torch.rand(number, 2, generator=generator)
    side = 20 * torch.rand(number, 2, generator=generator)
    side[::3] = 0  # a box without area
    boxes = torch.cat((corner, corner + side), 1)
    labels = torch.randint(0, 3, (number,), generator=generator)
    dense = 60 * torch.rand(levels, 37, 29, 4, generator=generator)
    probability = torch.rand(3, 37, 29, generator=generator)
    plain = list(agreement._everywhere(boxes, labels, dense, probability))
    arguments = (x.to(DEVICE) for x in (boxes, labels, dense, probability))
    (ours,) = agreement._on_cuda(*arguments)
    assert ours.shape == (number, 37, 29)
    if number:
        torch.testing.assert_close(ours.cpu(), torch.cat(plain))
