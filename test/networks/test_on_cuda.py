"""The way of a batch on a GPU, with fake tensors: what is on which device, where the host waits.

Nothing is computed, so this needs no GPU. What only the device knows (how many boxes survive) is
answered with a number and counted.
"""

from __future__ import annotations

import itertools
import traceback

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from panoptic_ros.model_zoo import load_config
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import FrameSize, PredictionOptions

from ..shared_data import REPOSITORY

GPU = torch.device("cuda:0")
SOME = 3  # boxes, masks, ...

# Where the host waits in ``predict``: at most two times per batch, the download included, but
# for dense detection, which suppresses twice.
WAITS = {
    "fpsnet_small": ["suppress"],
    "dense_detection_small": ["suppress", "suppress"],
    "panonet_small": [],
    "epsnet_small": [],
    "panoptic_fcn_small": ["predict"],
}


class HostWaits(TorchDispatchMode):
    """Answers what the host asks the device, and notes which function asked."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: list[tuple[str, int, str]] = []

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        name = function.name()
        if name not in ("aten::_local_scalar_dense", "aten::nonzero", "torchvision::nms"):
            return function(*arguments, **(settings or {}))
        rooms = [f"panoptic_ros/{room}/" for room in ("networks", "ops")]
        frame = [f for f in traceback.extract_stack() if any(r in f.filename for r in rooms)][-1]
        self._asked.append((name, frame.lineno, frame.name))
        if name == "aten::_local_scalar_dense":
            return SOME
        shape = (SOME, arguments[0].dim()) if name == "aten::nonzero" else (SOME,)
        return torch.empty(shape, dtype=torch.int64, device=arguments[0].device)

    @property
    def functions(self) -> list[str]:
        """One for each time the host waits; the numbers of one ``tolist`` come together."""
        calls = []
        for (name, _, function), group in itertools.groupby(self._asked):
            one = name == "aten::_local_scalar_dense"
            calls += [function] * (1 if one else len(list(group)))
        return calls


@pytest.mark.parametrize("name", WAITS)
def test_host_waits_and_devices(name):
    config = load_config(REPOSITORY / f"config/networks/{name}.yaml")
    waits = HostWaits()
    with FakeTensorMode(), torch.no_grad(), waits:
        with GPU:
            network = config.build().eval()
            batch = torch.empty(2, 3, 288, 512)
        raw = network(batch)
        sizes = [FrameSize((288, 512), (300, 540)), FrameSize((280, 500), (280, 500))]
        found = network.predict(raw, sizes, PredictionOptions(score_threshold=0.2))
        encoded = [encode_segments(segments, network.thing_ids, 10) for segments in found]
    assert waits.functions == WAITS[name]
    for item, size in zip(encoded, sizes, strict=True):
        assert item.labels.device == item.table.device == GPU
        assert item.labels.shape == size.output
