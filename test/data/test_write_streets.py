"""Written streets come back as a data set, whatever their number."""

from __future__ import annotations

import numpy as np
import pytest

from panoptic_ros.data.coco_panoptic import CocoPanoptic
from panoptic_ros.data.synthetic import StreetScene
from panoptic_ros.data.write_streets import write_streets
from panoptic_ros.files.pictures import read_ids


@pytest.mark.parametrize("workers", [1, 2])
def test_written_streets_are_those_of_the_generator(tmp_path, workers):
    annotations = write_streets(tmp_path, 2, (96, 128), seed=3, progress=False, workers=workers)
    data = CocoPanoptic(annotations, tmp_path / "images")
    assert len(data) == 2
    image, target = data[1]
    rendered, ids, segments = StreetScene(3_000_001, (96, 128)).frame(1)
    np.testing.assert_array_equal(read_ids(tmp_path / "panoptic" / "000001.png"), ids)
    assert len(target.class_ids) == len(segments)
    difference = image.permute(1, 2, 0).numpy().astype(int) - rendered
    assert np.abs(difference).mean() < 8  # JPEG
    assert [c.id for c in data.categories] == list(range(1, 12))


def test_a_flat_image_may_show_no_ground():
    image = StreetScene(10, (64, 1024)).frame(0)[0]  # the camera looks above the horizon
    assert image.shape == (64, 1024, 3)
