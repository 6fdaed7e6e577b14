from __future__ import annotations

import cv2
import numpy as np
import pytest

from panoptic_ros.data.cityscapes import Cityscapes, panoptic_segments, read_instance_ids
from test.files.test_image_size import flipped_png

# 7 road, 11 building, 4 static (not evaluated), 26000/26001 two cars, 26 a group of cars,
# 29000 a caravan (a thing that is not evaluated)
INSTANCE_IDS = np.array([[7, 7, 26000, 26001], [4, 11, 26, 26], [29000, 11, 26, 7]], np.uint16)


def test_groups_become_crowds_and_ignored_classes_void():
    ids, segments = panoptic_segments(INSTANCE_IDS.astype(np.int32))
    assert ids.tolist() == [[7, 7, 26000, 26001], [0, 11, 26, 26], [0, 11, 26, 7]]
    assert {s["id"]: (s["category_id"], s["iscrowd"]) for s in segments} == {
        7: (7, 0),
        11: (11, 0),
        26: (26, 1),
        26000: (26, 0),
        26001: (26, 0),
    }


@pytest.fixture
def root(tmp_path):
    truth = tmp_path / "gtFine" / "val" / "ulm"
    images = tmp_path / "leftImg8bit" / "val" / "ulm"
    truth.mkdir(parents=True)
    images.mkdir(parents=True)
    cv2.imwrite(str(truth / "ulm_000000_000019_gtFine_instanceIds.png"), INSTANCE_IDS)
    picture = np.full((3, 4, 3), (10, 20, 30), np.uint8)  # blue, green, red
    cv2.imwrite(str(images / "ulm_000000_000019_leftImg8bit.png"), picture)
    return tmp_path


def test_reader(root):
    data = Cityscapes(root, "val")
    image, target = data[0]
    assert len(data) == 1
    assert image[:, 0, 0].tolist() == [30, 20, 10]
    assert target.class_ids.tolist() == [7, 11, 26, 26, 26]
    assert target.is_crowd.tolist() == [False, False, True, False, False]
    assert len(target.instances) == 2
    assert target.semantic().tolist() == [[7, 7, 26, 26], [0, 11, 26, 26], [0, 11, 26, 7]]


def test_missing_and_wrong_files_are_named(root):
    with pytest.raises(FileNotFoundError, match="train"):
        Cityscapes(root, "train")
    (image,) = root.glob("leftImg8bit/*/*/*.png")
    with pytest.raises(ValueError, match="3 channels"):
        read_instance_ids(image)
    image.unlink()
    with pytest.raises(FileNotFoundError, match="has no image"):
        Cityscapes(root, "val")


def test_ids_that_are_none_are_refused(tmp_path):
    wide = np.full((2, 3), 2**31 - 1, np.int32)  # 8 GB to count
    file = tmp_path / "ids.png"
    file.write_bytes(cv2.imencode(".tif", wide)[1].tobytes())
    with pytest.raises(ValueError, match="1 channels of int32"):
        read_instance_ids(file)
    file.write_bytes(flipped_png(16, 0x40))
    with pytest.raises(OSError, match=r"ids.png: the header .* is damaged"):
        read_instance_ids(file)


def test_a_truth_of_another_size_than_its_image_is_refused(root):
    image = next(root.glob("leftImg8bit/val/ulm/*.png"))
    cv2.imwrite(str(image), np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"instanceIds\.png is 3x4, but its image .* 6x8"):
        Cityscapes(root, "val")[0]
