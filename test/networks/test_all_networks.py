"""What all five networks promise alike, in their small configurations and at tiny sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.truth import FrameSize, SegmentMap

from .small import OPTIONS, build


@pytest.fixture(scope="module", params=NETWORKS)
def small(request):
    return build(request.param)


def check_contract(network: PanopticNetwork, segments: SegmentMap, size: tuple[int, int]) -> None:
    slots, class_ids, scores = segments[:3]
    assert slots.shape == size
    assert (slots.dtype, class_ids.dtype) == (torch.int32, torch.int64)
    assert class_ids.ndim == 1 and class_ids.shape == scores.shape
    assert slots.min() >= 0 and slots.max() <= len(class_ids)
    stuff = class_ids[torch.isin(class_ids, network.stuff_ids)]
    assert len(stuff.unique()) == len(stuff)
    known = torch.cat((network.thing_ids, network.stuff_ids))
    assert torch.isin(class_ids[class_ids > 0], known).all()
    assert scores.dtype == torch.float32
    assert scores.min() >= 0 and scores.max() <= 1  # fails for NaN, too
    painted = slots.unique()
    assert (class_ids[painted[painted > 0] - 1] > 0).all()


def things_in(network: PanopticNetwork, segments: SegmentMap) -> int:
    painted = segments.slots.unique()
    classes = segments.class_ids[painted[painted > 0] - 1]
    return int(torch.isin(classes, network.thing_ids).sum())


# Predict


def sizes_of(size: tuple[int, int]) -> list[FrameSize]:
    """A whole input, and two that are padded and have other outputs."""
    height, width = size
    return [
        FrameSize(size, size),
        FrameSize((height - 31, width), (height + 17, 2 * width + 1)),
        FrameSize((height, width - 42), (61, 47)),
    ]


def test_each_image_of_a_batch_is_predicted_as_if_alone(small):
    sizes, network = sizes_of(small.size), small.network
    raw = small.raw(len(sizes))
    found = network.predict(raw, sizes, OPTIONS)
    assert len(found) == len(sizes)
    for i, (segments, size) in enumerate(zip(found, sizes, strict=True)):
        check_contract(network, segments, size.output)
        assert things_in(network, segments) > 0
        alone = network.predict({k: v[i : i + 1] for k, v in raw.items()}, [size], OPTIONS)[0]
        labels, single = (
            encode_segments(s, network.thing_ids).labels.long() for s in (segments, alone)
        )
        assert (labels == single).float().mean() > 0.999


def test_forward_of_a_batch_is_that_of_its_images(small):
    images = small.images(2)
    with torch.inference_mode():
        both, second = small.network(images), small.network(images[1:])
    for name, maps in both.items():
        assert len(maps) == 2
        torch.testing.assert_close(maps[1:], second[name], rtol=1e-3, atol=1e-4)


def empty(name: str, raw: dict[str, torch.Tensor], things: int) -> dict[str, torch.Tensor]:
    """Raw outputs that say there is no thing anywhere, and in Panoptic FCN no stuff either."""
    raw = {key: value.clone() for key, value in raw.items()}
    if name == "fpsnet":
        raw["class_logits"][:] = -20
    elif name == "panonet":
        raw["semantic"][:, :things] -= 1000
    elif name == "epsnet":
        raw["class_logits"][..., 0] = 20
    else:
        for key in raw:
            if key.startswith(("box_class", "centers", "regions")):
                raw[key][:] = -20
    return raw


def test_nothing_found_is_no_error(small):
    network = small.network
    raw = empty(small.name, small.raw(2), len(network.thing_ids))
    sizes = sizes_of(small.size)[:2]
    for segments, size in zip(network.predict(raw, sizes, OPTIONS), sizes, strict=True):
        check_contract(network, segments, size.output)
        assert things_in(network, segments) == 0
        encode_segments(segments, network.thing_ids)


@torch.inference_mode()
def test_confidence_is_the_probability_of_the_class_of_a_pixel(small):
    """That of stuff equals the softmax of the logits, interpolated by PyTorch."""
    network, size = small.network, small.size
    (segments,) = network.predict(small.raw(1), [FrameSize(size, size)], OPTIONS)
    plain = encode_segments(segments, network.thing_ids)
    labels, confidence = encode_segments(segments, network.thing_ids, confidence=True).labels
    assert (labels == plain.labels).all()
    expected = torch.cat((torch.zeros(1), segments.scores))[segments.slots.long()]
    if small.name != "panoptic_fcn":
        logits = segments.logits
        step = [int(n / covered) for n, covered in zip(size, logits.covered, strict=True)]
        whole = [n * s for n, s in zip(logits.logits.shape[1:], step, strict=True)]
        probability = torch.nn.functional.interpolate(
            logits.logits.float().softmax(0)[None], whole, mode="bilinear"
        )[0, :, : size[0], : size[1]]
        for slot, class_id in enumerate(segments.class_ids, start=1):
            if class_id in network.stuff_ids:
                (channel,) = (logits.class_ids == class_id).nonzero()[0]
                expected = torch.where(segments.slots == slot, probability[channel], expected)
    assert (confidence - expected * 255).abs().max() <= 0.51
    assert len(confidence.unique()) > 3


# Through the Segmenter


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_odd_sizes_come_back_at_their_size(name, precision, monkeypatch):
    small = build(name)
    seen = []
    predict = small.network.predict
    monkeypatch.setattr(small.network, "predict", lambda *a: seen.append(predict(*a)) or seen[-1])
    segmenter = Segmenter(small.config, small.network, "cpu", precision, small.size, "eager")
    generator = np.random.default_rng(0)
    shapes = [(101, 211), (333, 77), (1, 1)]
    images = [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    predictions = segmenter(images)
    for shape, prediction, segments in zip(shapes, predictions, *seen, strict=True):
        check_contract(small.network, segments, shape)
        assert prediction.labels.shape == shape and prediction.labels.dtype == np.uint16
        ids, areas = np.unique(prediction.labels[prediction.labels > 0], return_counts=True)
        found = dict(zip(ids.tolist(), areas.tolist(), strict=True))
        assert {segment.id: segment.area for segment in prediction.segments} == found
