from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from panoptic_ros.data.coco_panoptic import CocoPanoptic, segments_info
from panoptic_ros.files.pictures import ids_to_rgb, read_ids, rgb_to_ids, write_ids
from test.shared_data import shared_path


def test_ids_are_coded_as_panopticapi_does():
    ids = np.array([[0, 1, 256], [65536, 65536 + 2 * 256 + 3, 2**24 - 1]])
    rgb = ids_to_rgb(ids)
    assert rgb.tolist() == [
        [[0, 0, 0], [1, 0, 0], [0, 1, 0]],
        [[0, 0, 1], [3, 2, 1], [255, 255, 255]],
    ]
    assert np.array_equal(rgb_to_ids(rgb), ids)


@pytest.mark.parametrize("bad", [-1, 2**24])
def test_ids_beyond_24_bits_are_refused(bad):
    with pytest.raises(ValueError, match="24 bits"):
        ids_to_rgb(np.array([[bad]]))


@pytest.fixture
def data_set(tmp_path):
    """Two images of 4x6, one with a crowd and void, in the COCO panoptic format."""
    ids = [np.full((4, 6), 5000), np.zeros((4, 6), int)]
    ids[0][1:3, 1:4] = 70000
    ids[1][0, :2] = 3
    segments = [
        [
            {"id": 5000, "category_id": 2, "area": 18, "bbox": [0, 0, 6, 4], "iscrowd": 0},
            {"id": 70000, "category_id": 5, "area": 6, "bbox": [1, 1, 3, 2], "iscrowd": 0},
        ],
        [{"id": 3, "category_id": 5, "area": 2, "bbox": [0, 0, 2, 1], "iscrowd": 1}],
    ]
    (tmp_path / "images").mkdir()
    (tmp_path / "truth").mkdir()
    for i in range(2):
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[..., 0] = 200 + i  # red
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), picture[..., ::-1])
        write_ids(tmp_path / "truth" / f"{i}.png", ids[i])
    content = {
        "images": [{"id": 10 + i, "file_name": f"{i}.png"} for i in (1, 0)],
        "annotations": [
            {"image_id": 10 + i, "file_name": f"{i}.png", "segments_info": segments[i]}
            for i in range(2)
        ],
        "categories": [
            {"id": 2, "name": "road", "isthing": 0, "color": [1, 2, 3]},
            {"id": 5, "name": "car", "isthing": 1},
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path


def test_reader_gives_image_and_truth(data_set):
    data = CocoPanoptic(data_set / "truth.json", data_set / "images")
    assert len(data) == 2
    assert [(c.id, c.is_thing) for c in data.categories] == [(2, False), (5, True)]
    image, target = data[0]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 4, 6)
    assert image[:, 0, 0].tolist() == [200, 0, 0]
    assert target.class_ids.tolist() == [2, 5]
    assert target.boxes.tolist() == [[0, 0, 6, 4], [1, 1, 4, 3]]
    assert target.slots[1].tolist() == [1, 2, 2, 2, 1, 1]
    image, target = data[1]
    assert image[0, 0, 0] == 201
    assert target.is_crowd.tolist() == [True]
    assert target.slots.sum() == 2


def test_reader_names_the_file_that_is_wrong(data_set):
    (data_set / "other").mkdir()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CocoPanoptic(data_set / "truth.json", data_set / "nowhere")
    data = CocoPanoptic(data_set / "truth.json", data_set / "other")
    with pytest.raises(OSError, match=r"other.0\.png"):
        data[0]
    data = CocoPanoptic(data_set / "truth.json", data_set / "images")
    write_ids(data_set / "truth" / "0.png", np.full((4, 6), 77))
    with pytest.raises(ValueError, match=r"truth.0\.png: ids \[77\]"):
        data[0]
    write_ids(data_set / "truth" / "0.png", np.full((4, 5), 5000))
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        data[0]
    (data_set / "truth.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match="categories"):
        CocoPanoptic(data_set / "truth.json", data_set / "images")


def test_segments_info_equals_the_official_one():
    folder = shared_path("data/coco_sample/sample_data")
    annotations = json.loads((folder / "panoptic_examples.json").read_text())["annotations"]
    for annotation in annotations:
        ids = read_ids(folder / "panoptic_examples" / annotation["file_name"])
        category_of = {s["id"]: s["category_id"] for s in annotation["segments_info"]}
        found = {s["id"]: s for s in segments_info(ids, category_of)}
        assert set(found) == set(np.unique(ids)) - {0}
        for official in annotation["segments_info"]:
            segment = found[official["id"]]
            assert segment["area"] == official["area"]
            assert segment["bbox"] == official["bbox"]


def test_reader_agrees_with_the_annotations_of_camvid():
    folder = shared_path("data/camvid")
    data = CocoPanoptic(folder / "panoptic_val.json", folder / "val")
    for index in range(0, len(data), 25):
        image, target = data[index]
        assert image.shape[1:] == target.slots.shape
        segments = sorted(data.entries[index][1]["segments_info"], key=lambda s: s["id"])
        assert target.class_ids.tolist() == [s["category_id"] for s in segments]
        x1, y1, x2, y2 = target.boxes.T
        boxes = torch.stack((x1, y1, x2 - x1, y2 - y1), 1)
        assert boxes.tolist() == [s["bbox"] for s in segments]
        areas = target.slots.flatten().bincount(minlength=len(segments) + 1)[1:]
        assert areas.tolist() == [s["area"] for s in segments]


def test_images_are_chosen_by_their_names(data_set):
    def names(**choice):
        data = CocoPanoptic(data_set / "truth.json", data_set / "images", **choice)
        return sorted(image["file_name"] for image, _ in data.entries)

    assert names() == ["0.png", "1.png"]
    assert names(only="^1") == ["1.png"]
    assert names(without="^1") == ["0.png"]
    assert names(only="png", without="^0|^1") == []
