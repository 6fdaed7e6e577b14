"""The forms for GPUs give the shipped models' results, computed on the CPU.

Their plain parts run as they are, their kernels in Triton's interpreter: ``OnCuda`` has tensors of
the CPU say that they are on a GPU.
"""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from panoptic_ros.benchmark.pictures import street_images
from panoptic_ros.model_zoo import load_model
from panoptic_ros.networks import NETWORKS
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import FrameSize

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter is off")

# Small, since the interpreter is slow; EPSNet cannot be smaller, but what it is shown as can.
SIZES = dict.fromkeys(NETWORKS, (128, 192)) | {"epsnet": (264, 288)}
OUTPUTS = SIZES | {"epsnet": (66, 72)}
KERNELS = {
    "fpsnet": {"greedy_keep"},
    "dense_detection": {"greedy_keep", "dense_soft_masks", "merge_soft_masks"},
    "panonet": {"mean_shift_climb", "nearest_of_class", "paint_clusters"},
    "epsnet": {"merge_soft_masks"},
    "panoptic_fcn": {"merge_soft_masks"},
}


class OnCuda(TorchFunctionMode):
    """Makes code believe that its tensors are on a GPU; they stay where they are."""

    def __torch_function__(self, function, types, arguments=(), settings=None):
        if function == torch.Tensor.device.__get__:
            return torch.device("cuda:0")
        if function == torch.Tensor.is_cuda.__get__:
            return True
        stay = [torch.device("cpu") if isinstance(a, torch.device) else a for a in arguments]
        settings = settings or {}
        if settings.get("device") is not None:
            settings = {**settings, "device": torch.device("cpu")}
        return function(*stay, **settings)


class Kernels(TorchDispatchMode):
    """Notes this package's operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        if function.namespace == "panoptic_ros":
            self.names.add(function.overloadpacket.__name__)
        return function(*arguments, **(settings or {}))


@pytest.mark.timeout(900)  # seconds, for a busy machine
@pytest.mark.parametrize("name", NETWORKS)
def test_labels_are_those_of_the_cpu(name):
    config, network = load_model(f"{name}_small")
    size = SIZES[name]
    (image,) = street_images(1, size)
    batch, sizes = config.input.prepare([torch.from_numpy(image)], size, network.padded_size(size))
    sizes = [FrameSize(sizes[0].valid, OUTPUTS[name])]
    with torch.inference_mode():
        raw = network.eval()(batch)

        def segments():
            (found,) = network.predict(raw, sizes, config.options)
            return encode_segments(found, network.thing_ids, config.options.stuff_area_limit)

        expected = segments()
        with OnCuda(), Kernels() as kernels:
            found = segments()
    assert kernels.names > KERNELS[name]
    assert (found.labels == expected.labels).float().mean() >= 0.999
    present, wanted = (sorted(t[t[:, 1] > 0, 0].tolist()) for t in (found.table, expected.table))
    assert present == wanted and len(wanted) > 4
