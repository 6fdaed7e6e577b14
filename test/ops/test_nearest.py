"""Which cluster cells and pixels belong to, against loops over cells, pixels and centres."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import nearest as clusters
from panoptic_ros.ops.nearest import Classes, nearest_of_class, paint_clusters


def test_pixels_that_are_not_of_the_class_of_their_cell():
    cell_class = torch.tensor([[0, 1, 1], [2, 0, 0]])
    pixel_class = torch.zeros(7, 9, dtype=torch.int16)
    pixel_class[:4, 4:] = 1
    pixel_class[4:, :4] = 2
    pixel_class[1, 3] = 1
    pixel_class[6, 8] = 5
    classes = Classes.of(pixel_class, cell_class, 4)
    assert [part.tolist() for part in classes.others] == [[1 * 9 + 3, 6 * 9 + 8], [0, 5]]
    assert classes.other().tolist() == [1, 5]


@pytest.fixture
def embedding():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 300, generator=generator)
    centers = torch.randn(9, 12, generator=generator)
    groups = torch.tensor([0, 0, 2, 2, 2, -1, 0, 2, -1])
    return features, torch.tensor([0.5, 1.0, 2.0]), centers, groups


def random_classes():
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(0, 5, (15, 20), generator=generator).short()
    pixels = torch.randint(0, 5, (29, 39), generator=generator).short()
    return Classes.of(pixels, cells, 2)


def test_nearest_centre_of_every_class(embedding):
    features, bandwidths, centers, groups = embedding
    nearest = clusters._nearest_everywhere(*embedding)
    for index in range(3):
        own = [k for k in range(9) if groups[k] == index]
        for cell in range(300):
            distance = [(features[:, cell] / bandwidths[index] - centers[k]).norm() for k in own]
            expected = own[torch.stack(distance).argmin()] if own else -1
            assert nearest[index, cell] == expected


def test_nearest_centre_where_it_is_asked_for_and_the_slots_of_all_pixels(embedding):
    classes, everywhere = random_classes(), clusters._nearest_everywhere(*embedding)
    nearest = nearest_of_class(*embedding, classes)
    of_cluster = torch.tensor([1, 0, 3, 4, 5, 6, 7, 8, 9])
    slots = paint_clusters(classes, nearest, of_cluster)
    for y, row in enumerate(classes.pixels.tolist()):
        for x, own in enumerate(row):
            cluster = everywhere[own, y // 2 * 20 + x // 2] if own < 3 else -1
            of_thing = of_cluster[cluster] if cluster >= 0 else 0
            assert slots[y, x] == (of_thing if own < 3 else 10 + own - 3)


def test_nobody_asks(embedding):
    classes = Classes.of(torch.full((29, 39), 4).short(), torch.full((15, 20), 3).short(), 2)
    assert (nearest_of_class(*embedding, classes) == -1).all()
