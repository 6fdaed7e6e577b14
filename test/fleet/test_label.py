"""What labelled bags hold, compared with the segmenter and with readers of their formats."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptic_ros.data.cityscapes import Cityscapes
from panoptic_ros.data.coco_panoptic import CocoPanoptic
from panoptic_ros.fleet.label import Labeller
from panoptic_ros.fleet.parts import cityscapes_ids
from panoptic_ros.model_zoo import load_model, parse_config, save_model
from panoptic_ros.prediction import Category
from panoptic_ros.segmenter import Segmenter
from test.fleet.bags import (
    COMPRESSED,
    IMAGE,
    SECOND,
    camera_bag,
    jpeg,
    raw,
    read_labels,
    read_messages,
    write_bag,
)


@pytest.fixture(scope="module")
def segmenter(tiny_model):
    return Segmenter.load(tiny_model, "cpu", engine="eager")


def rows_of(report):
    return {
        (b["path"].rsplit("/", 1)[-1], t): r
        for b in report["bags"]
        for t, r in b["topics"].items()
    }


def test_every_frame_has_its_labels_stamp_and_time(label, segmenter, streets, tmp_path):
    bag = camera_bag(tmp_path / "drive", streets)
    report = label([bag], tmp_path / "out", span=5)
    assert report["frames"] == {
        "declared": 12,
        "labelled": 12,
        "refused": 0,
        "missing": 0,
        "waiting": 0,
    }
    labels = read_labels(tmp_path / "out/drive/labels")
    assert [stamp for stamp, _ in labels] == [SECOND + i * SECOND // 10 for i in range(12)]
    for (_, given), image in zip(labels, streets, strict=True):
        assert np.array_equal(given, segmenter(image).labels)
    messages = read_messages(tmp_path / "out/drive/labels")
    times = [time for topic, time, _ in messages if topic.endswith("/labels")]
    assert times == [SECOND + i * SECOND // 10 + 5_000_000 for i in range(12)]
    assert {m.header.frame_id for t, _, m in messages if t.endswith("/labels")} == {"front_camera"}
    assert os.listdir(tmp_path / "out/.work") == ["lock"]


def test_instances_and_categories_are_those_of_the_prediction(label, streets, tmp_path):
    options = {"precision": "fp32", "resolution": "96x128"}
    segmenter = Segmenter.load("fpsnet_small", "cpu", **options, engine="eager")
    bag = camera_bag(tmp_path / "drive", streets[:4])
    label([bag], tmp_path / "out", model="fpsnet_small", **options)
    messages = read_messages(tmp_path / "out/drive/labels")
    assert [t for t, _, _ in messages].count("/panoptic/categories") == 1
    topic, _, table = messages[0]
    assert topic == "/panoptic/categories" and table.label_divisor == 256
    assert [(c.id, c.name, c.is_thing, tuple(c.color)) for c in table.categories] == [
        (c.id, c.name, c.is_thing, c.color) for c in segmenter.categories
    ]
    arrays = [m for t, _, m in messages if t == "/panoptic/front/image/instances"]
    for array, image in zip(arrays, streets[:4], strict=True):
        expected = segmenter(image).instances
        assert (array.width, array.height, array.model) == (64, 48, "fpsnet_small")
        assert [(i.id, i.area, i.class_name) for i in array.instances] == [
            (s.id, s.area, s.class_name) for s in expected
        ]
        boxes = [
            (i.roi.x_offset, i.roi.y_offset, i.roi.width, i.roi.height) for i in array.instances
        ]
        assert boxes == [s.bbox for s in expected]
        for i in array.instances:  # neither tracked nor seen in space
            assert (i.track_id, i.track_age, i.first_seen.sec) == (0, 0, 0)
            assert np.isnan([getattr(v, a) for v in (i.position, i.size) for a in "xyz"]).all()
    assert any(array.instances for array in arrays)


def test_refused_frames_are_listed_with_their_reasons(label, streets, tmp_path):
    wrong = np.zeros((4, 4, 3), np.uint8)
    rows = [
        ("/a", COMPRESSED, 1, jpeg(11, streets[0])),
        ("/a", COMPRESSED, 2, jpeg(12, streets[1], cut=-20)),
        ("/a", COMPRESSED, 3, b"\0\1\0\0 no message"),
        ("/a", COMPRESSED, 4, jpeg(14, np.zeros((80, 100, 3), np.uint8))),
        ("/b", IMAGE, 5, raw(15, streets[0])),
        ("/b", IMAGE, 6, raw(16, wrong, "rainbow")),
    ]
    report = label([write_bag(tmp_path / "bag", rows)], tmp_path / "out", max_pixels=5000)
    rows = rows_of(report)
    assert rows["bag", "/a"] == {"declared": 4, "labelled": 1, "refused": 3, "missing": 0}
    assert rows["bag", "/b"] == {"declared": 2, "labelled": 1, "refused": 1, "missing": 0}
    lines = (tmp_path / "out/bag/refused.jsonl").read_text().splitlines()
    refused = [json.loads(line) for line in lines]
    assert [(r["topic"], r["time"], r["stamp"]) for r in refused] == [
        ("/a", 2, 12),
        ("/a", 3, None),
        ("/a", 4, 14),
        ("/b", 6, 16),
    ]
    for line, reason in zip(
        refused, ("truncated", "are no sensor_msgs", "max_pixels", "rainbow"), strict=True
    ):
        assert reason in line["reason"]


def test_coco_files_hold_what_the_bag_holds(label, segmenter, streets, tmp_path):
    rows = [("/cam", COMPRESSED, i, jpeg(50 + i // 2, image)) for i, image in enumerate(streets)]
    bag = write_bag(tmp_path / "drive", rows)  # each stamp is there twice
    label([bag], tmp_path / "out", span=4, formats=["coco"], images=True)
    coco = tmp_path / "out/drive/coco"
    data = CocoPanoptic(coco / "panoptic.json", coco / "images")
    assert data.categories == segmenter.categories and len(data) == len(streets)
    for (image, target), street, (_, labels) in zip(
        data,
        streets,
        read_labels(tmp_path / "out/drive/labels", "/panoptic/cam/labels"),
        strict=True,
    ):
        seen = cv2.imdecode(cv2.imencode(".jpg", street[..., ::-1])[1], cv2.IMREAD_COLOR)
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - seen[..., ::-1]).max() <= 2
        ids = np.array([0, *np.unique(labels[labels > 0])])
        assert np.array_equal(ids[target.slots.numpy()], labels)
        assert target.class_ids.tolist() == (ids[1:] // 256).tolist()
    assert len({image["file_name"] for image, _ in data.entries}) == len(streets)


def cityscapes_model(tiny_model, folder):
    config, _ = load_model(tiny_model)
    fields = {"name": "city", "network": {"name": config.network, **config.settings}}
    fields |= {"categories": "cityscapes", "input": {"resolution": [96, 128]}}
    config = parse_config({**fields, "prediction": {"score_threshold": 0.0}})
    return save_model(folder, config, config.build())


def test_cityscapes_files_hold_what_the_bag_holds(label, tiny_model, streets, tmp_path):
    model = str(cityscapes_model(tiny_model, tmp_path / "city"))
    bag = camera_bag(tmp_path / "drive", streets[:5])
    options = {"formats": ["cityscapes"], "images": True}
    label([bag], tmp_path / "out", model=model, span=2, **options)
    data = Cityscapes(tmp_path / "out/drive/cityscapes")
    assert len(data) == 5
    for (image, target), street, (_, labels) in zip(
        data, streets, read_labels(tmp_path / "out/drive/labels"), strict=False
    ):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), street)
        classes = np.array([0, *target.class_ids.tolist()])[target.slots.numpy()]
        assert np.array_equal(classes, labels // 256)
        assert len(target.class_ids) == len(np.unique(labels[labels > 0]))


def test_cityscapes_ids_by_hand():
    car, road = Category(26, "car", True, (0, 0, 0)), Category(7, "road", False, (0, 0, 0))
    labels = np.array([[0, 7 * 256, 26 * 256, 26 * 256 + 1, 26 * 256 + 255]], np.uint16)
    assert cityscapes_ids(labels, (car, road)).tolist() == [[0, 7, 26, 26001, 26255]]


def test_cityscapes_needs_its_classes(label, streets, tmp_path):
    bag = camera_bag(tmp_path / "drive", streets[:1])
    with pytest.raises(ValueError, match="classes of Cityscapes"):
        label([bag], tmp_path / "out", formats=["cityscapes"])


def break_third_chunk(file):
    """Give the first record in a chunk a length that no file has; the index stays whole."""
    content = bytearray(file.read_bytes())
    at, chunks = 8, 0  # after the magic
    while chunks < 3:
        chunks += content[at] == 6
        start, at = at, at + 9 + struct.unpack_from("<Q", content, at + 1)[0]
    records = start + 9 + 28 + 4 + 8  # its header, with no name of a compression
    content[records + 1 : records + 9] = b"\xff" * 8
    file.write_bytes(content)


def test_a_damaged_bag_keeps_what_can_be_read(label, streets, tmp_path):
    images = [
        np.random.default_rng(i).integers(0, 255, (256, 512, 3), np.uint8) for i in range(12)
    ]
    bag = camera_bag(tmp_path / "drive", images)  # about a megabyte a chunk: several chunks
    break_third_chunk(bag / "drive.mcap")
    good = camera_bag(tmp_path / "good", streets[:2])
    report = label([bag, good], tmp_path / "out", span=3, max_pixels=200_000)
    first, second = report["bags"]
    assert (first["state"], second["state"]) == ("damaged", "whole")
    assert "is damaged" in first["reason"]
    row = first["topics"]["/front/image"]
    assert row["declared"] == 12 and row["labelled"] + row["missing"] == 12
    assert row["labelled"] >= 6 and row["missing"] >= 1
    stamps = [stamp for stamp, _ in read_labels(tmp_path / "out/drive/labels")]
    assert len(set(stamps)) == len(stamps) == row["labelled"]


def test_a_full_disk_stops_the_run_and_the_next_one_goes_on(label, streets, tmp_path, monkeypatch):
    bag = camera_bag(tmp_path / "drive", streets)
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 25:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*run the same\s+command again"):
            label([bag], tmp_path / "out", span=3)
    assert not (tmp_path / "out/drive").exists()
    parts = [p.name for p in (tmp_path / "out/.work/drive").iterdir() if p.is_dir()]
    assert parts and all(name.isdigit() for name in parts)
    before = {p: (tmp_path / "out/.work/drive" / p).stat().st_mtime_ns for p in parts}
    report = label([bag], tmp_path / "out", span=3)
    assert before and report["states"]["whole"] == 1
    stamps = [stamp for stamp, _ in read_labels(tmp_path / "out/drive/labels")]
    assert len(stamps) == len(set(stamps)) == 12


def test_a_second_run_labels_nothing_twice(label, streets, tmp_path, monkeypatch):
    bag = camera_bag(tmp_path / "drive", streets[:3])
    first = label([bag], tmp_path / "out")
    file = tmp_path / "out/drive/labels/labels.mcap"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    monkeypatch.setattr(Segmenter, "load", lambda *_: pytest.fail("nothing is to be labelled"))
    other = camera_bag(tmp_path / "empty", [])
    second = label([bag, other], tmp_path / "out")
    assert second["bags"][0] == first["bags"][0]
    assert second["bags"][1]["state"] == "refused"
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_a_model_that_cannot_run_refuses_no_frame(label, streets, tmp_path):
    bag = camera_bag(tmp_path / "drive", streets[:2])
    options = {"model": "epsnet_small", "resolution": "96x128"}  # too small for it
    with pytest.raises(OSError, match="use a resolution of more than"):
        label([bag], tmp_path / "out", **options)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["frames"]["waiting"] == 2 and report["states"]["unfinished"] == 1


def test_a_span_that_kills_its_workers_fails_alone(
    label, streets, tiny_model, tmp_path, monkeypatch
):
    bag = camera_bag(tmp_path / "drive", streets * 3)

    def run(spans, settings, workers, devices):
        attempts = Path(settings.output) / ".work/drive/000001.attempts"
        attempts.write_bytes(b"....")  # as four workers leave it that died of the second span
        yield from map(Labeller(settings), spans)

    with monkeypatch.context() as patch:
        patch.setattr("panoptic_ros.fleet.command.run_local", run)
        report = label([bag], tmp_path / "out", span=12)
    [only] = report["bags"]
    assert only["state"] == "unfinished" and "4 workers died" in only["reason"]
    assert report["frames"]["labelled"] == 24 and report["frames"]["waiting"] == 12
    assert label([bag], tmp_path / "out", span=12)["frames"]["labelled"] == 36


def test_a_bag_that_is_away_for_a_moment_is_not_damaged(label, streets, tmp_path, monkeypatch):
    bag = camera_bag(tmp_path / "drive", streets)

    def away(self, *_, **__):
        raise OSError(5, "Input/output error")
        yield

    with monkeypatch.context() as patch:
        patch.setattr("panoptic_ros.files.bag_reader.BagReader.messages", away)
        report = label([bag], tmp_path / "out")
    assert report["states"]["refused"] == 1 and "Input/output" in report["bags"][0]["reason"]
    assert label([bag], tmp_path / "out")["frames"]["labelled"] == 12
