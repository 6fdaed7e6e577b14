"""Which cluster cells and pixels belong to, against loops over cells, pixels and centres."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops.nearest import nearest_of_class, pixels_of_other_class


def test_pixels_that_are_not_of_the_class_of_their_cell():
    cell_class = torch.tensor([[0, 1, 1], [2, 0, 0]])
    pixel_class = torch.zeros(7, 9, dtype=torch.int16)
    pixel_class[:4, 4:] = 1
    pixel_class[4:, :4] = 2
    pixel_class[1, 3] = 1
    pixel_class[6, 8] = 5
    pixels, cells = pixels_of_other_class(pixel_class, cell_class, 4)
    assert pixels.tolist() == [1 * 9 + 3, 6 * 9 + 8]
    assert cells.tolist() == [0, 5]


@pytest.fixture
def embedding():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 300, generator=generator)
    centers = torch.randn(9, 12, generator=generator)
    groups = torch.tensor([0, 0, 2, 2, 2, -1, 0, 2, -1])
    return features, torch.tensor([0.5, 1.0, 2.0]), centers, groups


def test_nearest_centre_of_every_class(embedding):
    features, bandwidths, centers, groups = embedding
    nearest = nearest_of_class(*embedding)
    for index in range(3):
        own = [k for k in range(9) if groups[k] == index]
        for cell in range(300):
            distance = [(features[:, cell] / bandwidths[index] - centers[k]).norm() for k in own]
            expected = own[torch.stack(distance).argmin()] if own else -1
            assert nearest[index, cell] == expected


def test_nearest_centre_where_it_is_wanted(embedding):
    wanted = torch.rand(5, 300, generator=torch.Generator().manual_seed(1)) > 0.7
    nearest = nearest_of_class(*embedding, torch.nonzero(wanted).unbind(1))
    assert torch.equal(nearest, nearest_of_class(*embedding).where(wanted[:3], -1))


def test_nothing_is_wanted(embedding):
    nothing = torch.zeros(0, dtype=torch.int64)
    assert (nearest_of_class(*embedding, (nothing, nothing)) == -1).all()
