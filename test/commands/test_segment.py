"""``panoptic segment`` on images, folders, videos and bags, with a segmenter of known answers."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from panoptic_ros.commands.segment import segment_files
from panoptic_ros.data.coco_panoptic import segments_info
from panoptic_ros.evaluation.evaluate import evaluate_predictions
from panoptic_ros.files.bag import BagError, write_image_bag
from panoptic_ros.files.pictures import write_ids
from panoptic_ros.prediction import Category, PanopticPrediction, Segment

ROAD = Category(3, "road", False, (128, 64, 128))
CAR = Category(200, "car", True, (0, 0, 142))
SIZE = (40, 60)  # rows, columns


class BrightIsCar:
    """Sees a car in the box around all pixels above 128, road elsewhere."""

    name = "bright_is_car"
    categories = (ROAD, CAR)

    def __call__(self, image):
        bright = image[..., 0] > 128
        labels = np.where(bright, 200 * 256 + 1, 3 * 256).astype(np.uint16)
        segments = [self.segment(CAR, 200 * 256 + 1, bright, 0.75)] if bright.any() else []
        segments.append(self.segment(ROAD, 3 * 256, ~bright, 1.0))
        return PanopticPrediction(labels, tuple(segments), self.categories)

    def segment(self, category, label, mask, score):
        rows, columns = np.nonzero(mask)
        x, y = int(columns.min()), int(rows.min())
        bbox = (x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1)
        center = (float(columns.mean()), float(rows.mean()))
        thing, area = category.is_thing, int(mask.sum())
        return Segment(label, category.id, category.name, thing, score, area, bbox, center)


@pytest.fixture(autouse=True)
def segmenter(monkeypatch):
    """Put the known segmenter where models are loaded; returns the arguments it was given."""
    given = []

    def load(*arguments):
        given.append(arguments)
        return BrightIsCar()

    monkeypatch.setattr("panoptic_ros.commands.segment.Segmenter.load", load)
    return given


def street(x):
    """A dark image with a bright box of 10 x 20 pixels at column ``x``."""
    image = np.full((*SIZE, 3), 30, np.uint8)
    image[10:20, x : x + 20] = 220
    return image


def truth_ids(x):
    ids = np.full(SIZE, 7)
    ids[10:20, x : x + 20] = 9
    return ids


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, x in (("a.png", 5), ("b.bmp", 30), ("000139.png", 12)):
        assert cv2.imwrite(str(folder / name), street(x))
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_gives_labels_overlays_and_segments(folder, tmp_path, segmenter):
    output = tmp_path / "out"
    assert segment_files(folder, "m", output, device="cpu", resolution="32x64") == []
    assert segmenter == [("m", "cpu", "auto", "32x64", "auto")]
    for name, x in (("a", 5), ("b", 30), ("000139", 12)):
        labels = cv2.imread(str(output / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint16
        assert np.array_equal(labels == 200 * 256 + 1, truth_ids(x) == 9)
        assert cv2.imread(str(output / "overlays" / f"{name}.png")).shape == (*SIZE, 3)
        written = json.loads((output / "segments" / f"{name}.json").read_text())
        car = written["segments"][0]
        assert (car["class_name"], car["score"], car["area"]) == ("car", 0.75, 200)
        assert (car["bbox"], car["center"]) == ([x, 10, 20, 10], [x + 9.5, 14.5])


def test_the_predictions_are_coco_panoptic_and_evaluate_reads_them(folder, tmp_path):
    segment_files(folder, "m", tmp_path / "out")
    truth = tmp_path / "truth.json"
    (tmp_path / "truth").mkdir()
    images, annotations = [], []
    for index, (name, x) in enumerate((("a.png", 5), ("b.bmp", 30), ("000139.png", 13)), 1):
        ids = truth_ids(x)
        write_ids(tmp_path / "truth" / f"{index}.png", ids)
        images.append({"id": index, "file_name": name, "width": SIZE[1], "height": SIZE[0]})
        segments = segments_info(ids, {7: 3, 9: 200})
        file = f"{index}.png"
        annotations.append({"image_id": index, "file_name": file, "segments_info": segments})
    categories = [
        {"id": 3, "name": "road", "isthing": 0, "color": [128, 64, 128]},
        {"id": 200, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    truth.write_text(json.dumps(content))
    metrics = evaluate_predictions(truth, tmp_path / "out" / "predictions.json", False).metrics
    assert (metrics["per_class"][200]["tp"], metrics["per_class"][200]["fp"]) == (3, 0)
    # Two cars are exact; the third is off by one column of twenty.
    assert metrics["per_class"][200]["pq"] == pytest.approx((1 + 1 + 190 / 210) / 3)


def test_images_named_by_number_have_it_as_id(folder, tmp_path):
    segment_files(folder, "m", tmp_path / "out")
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())
    ids = {image["file_name"]: image["id"] for image in predictions["images"]}
    assert ids == {"a.png": "a", "b.bmp": "b", "000139.png": 139}
    by_id = {a["image_id"]: a for a in predictions["annotations"]}
    assert by_id[139]["file_name"] == "000139.png"
    assert by_id[139]["segments_info"][0] == {
        "id": 200 * 256 + 1,
        "category_id": 200,
        "area": 200,
        "bbox": [12, 10, 20, 10],
        "iscrowd": 0,
        "score": 0.75,
    }


def test_bad_files_are_reported_and_skipped(folder, tmp_path, capfd):
    ok, jpeg = cv2.imencode(".jpg", street(5))
    assert ok
    (folder / "cut.jpg").write_bytes(jpeg.tobytes()[:-50])
    (folder / "empty.tiff").write_bytes(b"")
    failures = segment_files(folder, "m", tmp_path / "out")
    assert [failure.split()[0] for failure in failures] == ["cut.jpg", "empty.tiff"]
    assert "truncated" in failures[0]
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 3
    told = "".join(capfd.readouterr())
    assert "skipped cut.jpg" in told and "3 images segmented, 2 skipped" in told


def test_files_of_one_stem_keep_apart(tmp_path):
    for name, x in (("a.png", 5), ("a.bmp", 30)):
        cv2.imwrite(str(tmp_path / name), street(x))
    segment_files(tmp_path, "m", tmp_path / "out")
    names = {file.name for file in (tmp_path / "out" / "labels").iterdir()}
    assert names == {"a.png.png", "a.bmp.png"}


def test_a_single_image(folder, tmp_path):
    assert segment_files(folder / "b.bmp", "m", tmp_path / "out") == []
    assert [f.name for f in (tmp_path / "out" / "labels").iterdir()] == ["b.png"]


def count_frames(path):
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.read()[0]:
        count += 1
    return count, video.get(cv2.CAP_PROP_FPS)


def test_a_video_gives_a_video(tmp_path):
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 8, SIZE[::-1])
    for x in (0, 10, 20, 30):
        writer.write(street(x))
    writer.release()
    assert segment_files(path, "m", tmp_path / "out") == []
    assert count_frames(tmp_path / "out" / "overlay.mp4") == (4, pytest.approx(8))
    labels = cv2.imread(str(tmp_path / "out" / "labels" / "000002.png"), cv2.IMREAD_UNCHANGED)
    agree = (labels == 200 * 256 + 1) == (truth_ids(20) == 9)
    assert agree.mean() > 0.97  # JPEG blurs the edge
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_video_that_ends_too_early_says_so(tmp_path):
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 8, SIZE[::-1])
    for x in (0, 5, 10, 15, 20, 25):
        writer.write(street(x))
    writer.release()
    data = path.read_bytes()
    third = [place for place in range(len(data)) if data[place : place + 4] == b"00dc"][2]
    index = data.rindex(b"idx1")  # which says that there are six
    path.write_bytes(data[:third] + bytes(index - third) + data[index:])
    (failure,) = segment_files(path, "m", tmp_path / "out")
    assert "declares 6 frames" in str(failure) and "cut short" in str(failure)
    assert count_frames(tmp_path / "out" / "overlay.mp4")[0] == 1


def test_a_bag_gives_a_video_and_labels_named_by_stamp(tmp_path):
    write_image_bag(tmp_path / "bag", [street(0), street(10)], 10.0)
    assert segment_files(tmp_path / "bag", "m", tmp_path / "out") == []
    assert count_frames(tmp_path / "out" / "overlay.mp4") == (2, pytest.approx(10))
    names = sorted(file.name for file in (tmp_path / "out" / "labels").iterdir())
    assert names == ["1000000000.png", "1100000000.png"]


def test_it_needs_no_ros():
    blocked = ("rclpy", "sensor_msgs", "std_msgs", "panoptic_ros.msg")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
        "import panoptic_ros.commands.segment, panoptic_ros.demo.demo"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_sources_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="there is no file or folder"):
        segment_files(tmp_path / "nothing", "m", tmp_path / "out")
    with pytest.raises(ValueError, match="has no images"):
        segment_files(tmp_path, "m", tmp_path / "out")
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(ValueError, match="neither an image, a video"):
        segment_files(tmp_path / "text.txt", "m", tmp_path / "out")
    (tmp_path / "broken.mp4").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="not a video"):
        segment_files(tmp_path / "broken.mp4", "m", tmp_path / "out")
    write_image_bag(tmp_path / "bag", [street(0)], 10.0)
    with pytest.raises(BagError, match="/camera/image_raw"):
        segment_files(tmp_path / "bag", "m", tmp_path / "out", topic="/other")
