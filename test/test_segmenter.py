"""The segmenter: results that belong to their image, and arguments that are refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from panoptic_ros.devices import DeviceError, resolve_device, resolve_precision
from panoptic_ros.model_zoo import load_model
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.truth import SegmentMap


@pytest.fixture(scope="module")
def segmenter(tiny_model):
    return Segmenter.load(tiny_model, device="cpu", precision="fp32", engine="eager")


def photo(seed, size=(90, 130)):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, size[0] // 6 + 1, 0), size[1] // 8 + 1, 1)[
        : size[0], : size[1]
    ].copy()


def assert_consistent(prediction, size):
    assert prediction.labels.dtype == np.uint16
    assert prediction.labels.shape == size
    ids, areas = np.unique(prediction.labels, return_counts=True)
    assert {s.id: s.area for s in prediction.segments} == {
        int(i): int(a) for i, a in zip(ids, areas, strict=True) if i
    }
    for segment in prediction.segments:
        assert segment.class_id == segment.id // 256
        y, x = np.nonzero(prediction.labels == segment.id)
        assert segment.bbox == (
            x.min(),
            y.min(),
            x.max() - x.min() + 1,
            y.max() - y.min() + 1,
        )
        assert segment.center == pytest.approx((x.mean(), y.mean()))


@pytest.mark.parametrize("size", [(90, 130), (360, 480), (64, 300), (1, 1), (500, 40)])
def test_labels_have_the_size_of_the_image_and_agree_with_the_segments(segmenter, size):
    assert_consistent(segmenter(photo(1, size)), size)


def test_a_list_gives_what_its_images_give_alone(segmenter):
    images = [photo(seed, size) for seed, size in ((1, (90, 130)), (2, (60, 60)), (3, (96, 128)))]
    together = segmenter(images)
    for image, prediction in zip(images, together, strict=True):
        alone = segmenter(image)
        assert_consistent(prediction, image.shape[:2])
        assert np.mean(alone.labels == prediction.labels) > 0.999
    assert segmenter([]) == []


def test_a_smaller_image_gives_labels_of_the_size_that_is_asked_for(segmenter):
    image = cv2.GaussianBlur(photo(2, (192, 256)), (0, 0), 3)  # else half of it has other details
    whole = segmenter(image)
    (prediction,) = segmenter([cv2.resize(image, (128, 96))], [(192, 256)])
    assert_consistent(prediction, (192, 256))
    assert np.mean(prediction.labels == whole.labels) > 0.95
    assert segmenter.fit((192, 256)) == (96, 128)
    with pytest.raises(ValueError):
        segmenter([image, image], [(192, 256)])


def test_output_sizes_count_for_a_single_image_and_must_fit(segmenter):
    assert_consistent(segmenter(photo(1), [(180, 260)]), (180, 260))
    with pytest.raises(ValueError, match="1 output sizes for 2 images; expected one each"):
        segmenter([photo(1), photo(2)], [(180, 260)])


def test_views_give_what_copies_give(segmenter):
    image = photo(4)
    expected = segmenter(image).labels
    bgr = np.ascontiguousarray(image[..., ::-1])
    padded = np.zeros((90, 150, 3), np.uint8)
    padded[:, :130] = image
    frozen = image.copy()
    frozen.flags.writeable = False
    upside_down = np.ascontiguousarray(image[::-1])
    for view in (bgr[..., ::-1], padded[:, :130], frozen, upside_down[::-1]):
        np.testing.assert_array_equal(segmenter(view).labels, expected)


def test_stages_are_timed(segmenter):
    timings = segmenter(photo(1)).timings
    assert list(timings) == ["upload", "preprocess", "forward", "predict", "download"]
    assert all(seconds >= 0 for seconds in timings.values())


def test_things_come_first_by_score_then_stuff(segmenter):
    segments = segmenter(photo(5)).segments
    keys = [(not s.is_thing, -s.score if s.is_thing else s.class_id) for s in segments]
    assert keys == sorted(keys)


def test_bf16_agrees_with_fp32(tiny_model, segmenter):
    half = Segmenter.load(tiny_model, device="cpu", precision="bf16", engine="eager")
    image = photo(6)
    agreement = np.mean(half(image).semantic() == segmenter(image).semantic())
    assert agreement > 0.8  # random weights have margins near zero


def test_resolution_is_what_the_network_sees(tiny_model):
    small = Segmenter.load(tiny_model, device="cpu", resolution="64x64", engine="eager")
    assert small.resolution == (64, 64)
    assert_consistent(small(photo(1)), (90, 130))


def test_options_can_be_replaced_at_any_time(tiny_model):
    segmenter = Segmenter.load(tiny_model, device="cpu", precision="fp32", engine="eager")
    image = photo(7)
    assert any(not s.is_thing for s in segmenter(image).segments)
    segmenter.options = dataclasses.replace(segmenter.options, stuff_area_limit=10**9)
    assert all(s.is_thing for s in segmenter(image).segments)
    segmenter.options = dataclasses.replace(segmenter.options, score_threshold=1.0)
    assert segmenter(image).segments == ()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(segmenter, image):
    with pytest.raises(ValueError, match=r"expected uint8 \(height, width, 3\)"):
        segmenter(image)


class ManyInstances(PanopticNetwork):
    """Sees 300 cars (class 9), one per pixel of the first row."""

    def __init__(self):
        super().__init__([9], [1])
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return {"images": images}

    def predict(self, raw, sizes, options):
        slots = torch.zeros(sizes[0].output, dtype=torch.long)
        slots[0] = torch.arange(1, 301)
        return [SegmentMap(slots, torch.full((300,), 9), torch.linspace(1, 0.1, 300))]

    def loss(self, images, targets):
        raise NotImplementedError


def test_instances_that_do_not_fit_are_counted_and_joined(tiny_model):
    config, _ = load_model(tiny_model)
    prediction = Segmenter(config, ManyInstances(), "cpu", engine="eager")(
        np.zeros((2, 300, 3), np.uint8)
    )
    assert prediction.overflow == 45
    assert len(prediction.instances) == 255
    joined = next(s for s in prediction.segments if s.id == 9 * 256)
    assert (joined.area, joined.bbox, joined.center) == (45, (255, 0, 45, 1), (277.0, 0.0))


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "meta", ""])
def test_unknown_devices_are_refused(device):
    with pytest.raises(ValueError, match="expected auto, cpu, cuda"):
        resolve_device(device)


def test_a_missing_gpu_is_named():
    with pytest.raises(DeviceError, match=r"cuda:99 asked for.*device:=cpu"):
        resolve_device("cuda:99")


def test_precisions():
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) in ("bf16", "fp32")
    assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(ValueError, match="expected auto, fp32"):
        resolve_precision("int4", cpu)


def test_inference_imports_nothing_of_training():
    program = """
import sys
from panoptic_ros.networks import NETWORKS
from panoptic_ros.segmenter import Segmenter
for name in NETWORKS:
    __import__(f"panoptic_ros.networks.{name}")
names = [name for name in sys.modules if name.startswith("panoptic_ros")]
print([name for name in names if "training" in name])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"
