"""What a CUDA graph of a frame needs, and, on a GPU, the graph itself."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
import torch

from panoptic_ros.frame_graph import RETRY, FrameGraphs
from panoptic_ros.frame_steps import FrameSteps, ImageKind, Thresholds
from panoptic_ros.model_zoo import load_config
from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.layers.folding import fold_batch_norm
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.truth import FrameSize, PredictionOptions
from test.networks.small import build
from test.shared_data import REPOSITORY


@pytest.mark.parametrize("name", NETWORKS)
def test_thresholds_may_be_tensors(name):
    small = build(name)
    raw, sizes = small.raw(1), [FrameSize(small.size, small.size)]
    thresholds = Thresholds.on(torch.device("cpu"))
    areas = set()
    for options in (PredictionOptions(0.1, 0.5, 0), PredictionOptions(0.3, 0.1, 500)):
        thresholds.set(options)
        tables = [
            encode_segments(
                small.network.predict(raw, sizes, given)[0],
                small.network.thing_ids,
                given.stuff_area_limit,
            )
            for given in (options, thresholds)
        ]
        for plain, scalar in zip(*tables, strict=True):
            assert torch.equal(plain, scalar)
        areas.add(tuple(tables[0].table[:, 1].tolist()))
    assert len(areas) == 2  # the options do something


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_one_graph_for_the_compiler(name):
    """A break would be no error there, but kernels that nothing fuses."""
    small = build(name)
    network = fold_batch_norm(small.network.eval().requires_grad_(False)).to(torch.bfloat16)
    images = small.images(1).to(torch.bfloat16)
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    with torch.inference_mode():
        expected, found = network(images), compiled(images)
    assert list(expected) == list(found)
    for key, value in expected.items():
        assert torch.equal(value, found[key])


def test_steps_of_a_frame_take_images_as_they_lie_in_memory():
    """BGR memory gives what its RGB view gives, at the size of the output."""
    small = build("panonet")
    bgr = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8))
    fit = partial(small.config.input.prepare, resolution=small.size, padded=small.size)
    steps, seen = FrameSteps(fit, lambda *_: []), []
    for pixels, is_bgr in ((bgr, True), (bgr.flip(-1), False)):
        batch, sizes = steps.prepared(pixels, ImageKind((48, 80), is_bgr, (30, 50)))
        assert sizes == [FrameSize(small.size, (30, 50))]
        seen.append(batch)
    assert torch.equal(*seen) and seen[0].abs().max() > 0


class Instead:
    """An engine that gives callables to be captured."""

    dtype, reentrant = torch.float32, True

    def __init__(self, *forwards):
        self.capturable = lambda: list(forwards)
        self.compiler = lambda: None


@pytest.fixture
def graphs(monkeypatch):
    """Graphs without CUDA, whose captures call the forward instead."""
    cuda = FrameGraphs.__init__.__globals__["torch"].cuda
    for name in ("graph_pool_handle", "Stream"):
        monkeypatch.setattr(cuda, name, lambda *_, **__: None)
    monkeypatch.setattr(FrameGraphs, "_capture", lambda self, kinds, way: way.forward(kinds))
    steps = FrameSteps(None, None)
    return lambda *forwards: FrameGraphs(Instead(*forwards), steps, torch.device("cpu"))


def fail(kinds):
    try:
        raise RuntimeError("no compiler")
    finally:
        raise ValueError("wrapped")


def test_what_fails_is_followed_by_the_next(graphs, caplog):
    made = graphs(("first", fail), ("second", lambda kinds: Replayed(kinds)))
    image = np.zeros((4, 6, 3), np.uint8)
    assert made([image], [(4, 6)], PredictionOptions()) is None
    assert made.wait() and not made.wait()
    assert made([image], [(4, 6)], PredictionOptions()) == 1
    assert made([image, image], [(4, 6)] * 2, PredictionOptions()) is None  # another graph
    assert "no CUDA graph with first: RuntimeError: no compiler" in caplog.text
    assert not made.gave_up


def test_without_anything_that_works_frames_stay_eager(graphs, caplog):
    made = graphs(("first", fail))
    image = np.zeros((4, 6, 3), np.uint8)
    for _ in range(2):
        assert made([image], [(4, 6)], PredictionOptions()) is None
        made.wait()
    assert made.gave_up and "frames run without a CUDA graph" in caplog.text


def test_a_size_without_memory_is_tried_again_and_costs_no_other(graphs, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    short = [True]

    def forward(kinds):
        if kinds[0].size == (50, 60) and short:
            raise RuntimeError("compiler") from torch.OutOfMemoryError("none left")
        return Replayed(kinds)

    made = graphs(("first", forward))

    def ask(side):
        found = made([np.zeros((side, 60, 3), np.uint8)], [(side, 60)], PredictionOptions())
        made.wait()
        return found

    assert ask(50) is None and "no memory for the CUDA graph of 1 x 50x60" in caplog.text
    assert ask(40) is None and ask(40) == 1  # another size gets its graph
    short.clear()
    assert ask(50) is None and ask(50) is None  # not yet
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + RETRY)
    assert ask(50) is None and ask(50) == 1
    assert not made.gave_up


class Replayed:
    def __init__(self, kinds):
        self.kinds = kinds

    def replay(self, images):
        return len(images)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="without a GPU")


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_gives_what_eager_gives(name):
    config = load_config(REPOSITORY / f"config/networks/{name}_small.yaml")
    images = [np.random.default_rng(i).integers(0, 255, (360, 480, 3), np.uint8) for i in range(2)]
    torch.manual_seed(0)
    segmenter = Segmenter(config, config.build(), "cuda", "fp32", engine="compiled")
    segmenter.warm_up((360, 480))
    segmenter.warm_up((360, 480), 2)
    assert not segmenter.graphs.gave_up
    for options in (config.options, PredictionOptions(0.05, 0.9, 0)):
        segmenter.options = options
        expected = segmenter.segment_eagerly(images, [(360, 480)] * 2)
        alone = [segmenter(image) for image in images]  # no result shares the memory of the next
        for found in (alone, segmenter(images)):
            for plain, graph in zip(expected, found, strict=True):
                assert (plain.labels == graph.labels).mean() > 0.99


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_confidence_has_a_graph_of_its_own(name):
    config = load_config(REPOSITORY / f"config/networks/{name}_small.yaml")
    image = np.random.default_rng(0).integers(0, 255, (360, 480, 3), np.uint8)
    torch.manual_seed(0)
    segmenter = Segmenter(config, config.build(), "cuda", "fp32", engine="compiled")
    segmenter.warm_up((360, 480), confidence=True)
    (plain,) = segmenter.segment_eagerly([image], [(360, 480)], confidence=True)
    graph = segmenter(image, confidence=True)
    assert graph.timings["predict"] == 0  # it is part of the graph
    assert (plain.labels == graph.labels).mean() > 0.99
    differs = np.abs(plain.confidence.astype(int) - graph.confidence)
    assert (differs <= 1).mean() > 0.98
    assert segmenter(image).confidence is None


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="without a second GPU")
@pytest.mark.parametrize("name", NETWORKS)
def test_another_gpu_than_the_current_one(name):
    """Triton's kernels and PyTorch's events go to the current device."""
    config = load_config(REPOSITORY / f"config/networks/{name}_small.yaml")
    image = np.random.default_rng(0).integers(0, 255, (360, 480, 3), np.uint8)
    labels = []
    for device in ("cuda:0", "cuda:1"):
        torch.manual_seed(0)
        segmenter = Segmenter(config, config.build(), device, "fp32", engine="eager")
        labels.append(segmenter.segment_eagerly([image], [(360, 480)])[0].labels)
    assert (labels[0] == labels[1]).mean() > 0.99
