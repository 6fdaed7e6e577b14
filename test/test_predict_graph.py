"""Thresholds as scalars on the device, and, on a GPU, predict as one graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panoptic_ros.model_zoo import load_config
from panoptic_ros.networks import NETWORKS
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.predict_graph import Thresholds
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


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="without a GPU")


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_gives_what_eager_predict_gives(name):
    config = load_config(REPOSITORY / f"config/networks/{name}_small.yaml")
    images = [np.random.default_rng(i).integers(0, 255, (360, 480, 3), np.uint8) for i in range(2)]
    torch.manual_seed(0)
    network = config.build()
    graph = Segmenter(config, network, "cuda", "fp32", engine="compiled")
    for options in (config.options, PredictionOptions(0.05, 0.9, 0)):
        graph.options = options
        found = [graph(image) for image in images]  # replayed: no result outlives its memory
        raw_sizes = [graph.prepare([torch.from_numpy(image).cuda()]) for image in images]
        for (batch, sizes), prediction in zip(raw_sizes, found, strict=True):
            (encoded,) = graph.predict(graph.forward(batch), sizes)
            labels = encoded.labels.cpu().numpy().view(np.uint16)
            assert (labels == prediction.labels).mean() > 0.999
