"""A frame on a GPU, with fake tensors: nothing waits, nothing is copied, no shape depends on it.

Nothing is computed, so this needs no GPU. Whatever passes can be captured as one CUDA graph.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from panoptic_ros.frame_steps import Thresholds
from panoptic_ros.model_zoo import load_config
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import FrameSize

from ..shared_data import REPOSITORY

GPU = torch.device("cuda:0")
CONFIGURATIONS = sorted(path.stem for path in (REPOSITORY / "config/networks").glob("*.yaml"))


# These wait inside, which fake tensors do not show.
WAITING = {"isin", "_unique", "_unique2", "unique_dim", "bincount", "histc", "nonzero"}


class HostWork(TorchDispatchMode):
    """Notes operations that wait, or read or write tensors of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        tensors = [
            leaf
            for leaf in tree_leaves((arguments, settings, result))
            if isinstance(leaf, torch.Tensor)
        ]
        name = function.overloadpacket.__name__
        waits = name in WAITING or (name.startswith("index_put") and _is_masked(arguments[1]))
        if waits or any(tensor.device.type == "cpu" for tensor in tensors):
            self.operations[function.name()] += 1
        return result


@contextmanager
def made_in(dtype):
    """Make floats in another type: fake modules cannot be cast."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _is_masked(indices):
    return any(index is not None and index.dtype == torch.bool for index in indices)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_frame_never_touches_the_host(name):
    config = load_config(REPOSITORY / f"config/networks/{name}.yaml")
    size = config.input.resolution
    sizes = [FrameSize(size, (300, 540)), FrameSize((size[0] - 8, size[1] - 12), (280, 500))]
    if config.input.resize == "stretch":
        sizes = [FrameSize(size, output) for _, output in sizes]
    host = HostWork()
    with FakeTensorMode(), torch.no_grad():
        with GPU, made_in(torch.bfloat16):
            network = config.build().eval()
            batch = torch.empty(2, 3, *network.padded_size(size))
        with host:
            raw = network(batch)
            found = network.predict(raw, sizes, config.options)
            encoded = [encode_segments(segments, network.thing_ids, 10) for segments in found]
            confident = [encode_segments(item, network.thing_ids, 10, True) for item in found]
    assert not host.operations
    for item, (_, output) in zip(confident, sizes, strict=True):
        assert item.labels.device == GPU and item.labels.shape == (2, *output)
    for item, (_, output) in zip(encoded, sizes, strict=True):
        assert item.labels.device == item.table.device == GPU
        assert item.labels.shape == output


class Frame(torch.nn.Module):
    """All of a frame: uint8 image (H, W, 3) to label image and table."""

    def __init__(self, config, network, confidence):
        super().__init__()
        self.config, self.network, self.confidence = config, network, confidence

    def forward(self, pixels, score_threshold, overlap_threshold, stuff_area_limit):
        thresholds = Thresholds(score_threshold, overlap_threshold, stuff_area_limit)
        resolution = self.config.input.resolution
        batch, sizes = self.config.input.prepare(
            [pixels], resolution, self.network.padded_size(resolution), torch.bfloat16
        )
        found = self.network.predict(self.network(batch), sizes, thresholds)
        things, limit = self.network.thing_ids, thresholds.stuff_area_limit
        return [tuple(encode_segments(item, things, limit, self.confidence)) for item in found]


@pytest.mark.parametrize(
    ("name", "confidence"),
    [
        *((name, False) for name in CONFIGURATIONS),
        *((name, True) for name in CONFIGURATIONS if name.endswith("_small")),
    ],
)
def test_a_frame_is_one_graph_for_compilers(name, confidence):
    """A break raises, and so does whatever depends on the picture."""
    config = load_config(REPOSITORY / f"config/networks/{name}.yaml")
    height, width = config.input.resolution
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        with GPU, made_in(torch.bfloat16):
            network = config.build().eval()
        with GPU:
            pixels = torch.empty(height - 40, width, 3, dtype=torch.uint8)
            given = (torch.zeros(()), torch.zeros(()), torch.zeros((), dtype=torch.int64))
        exported = torch.export.export(
            Frame(config, network, confidence), (pixels, *given), strict=True
        )
    labels, table = (node.meta["val"] for node in exported.graph.output_node().args[0])
    planes = (2,) if confidence else ()
    assert labels.shape == (*planes, *pixels.shape[:2]) and labels.dtype == torch.int16
    assert table.shape[1] == 9


class Launches(TorchDispatchMode):
    """Counts operations that are at least a kernel: all but views."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        makes = any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(result))
        is_view = function.is_view or "unsafe_view" in function.name()
        self.operations[function.name()] += makes and not is_view
        return result


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_few_operations_turn_maps_into_labels(name):
    """At most 150; what is made once for each size is there from the first frame on."""
    config = load_config(REPOSITORY / f"config/networks/{name}.yaml")
    sizes = [FrameSize(config.input.resolution, config.input.resolution)]
    with FakeTensorMode(), torch.no_grad():
        with GPU, made_in(torch.bfloat16):
            network = config.build().eval()
            batch = torch.empty(1, 3, *network.padded_size(sizes[0].valid))
        raw = network(batch)
        network.predict(raw, sizes, config.options)
        with Launches() as launches:
            (found,) = network.predict(raw, sizes, config.options)
            encode_segments(found, network.thing_ids, 10)
    assert 50 < launches.operations.total() <= 150, launches.operations.most_common(10)
