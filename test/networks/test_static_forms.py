"""The forms for GPUs give the shipped models' results; see benchmarks/static_forms.py."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.static_forms import both_forms, listed, scene_size
from panoptic_ros.benchmark.pictures import street_images
from panoptic_ros.model_zoo import load_model
from panoptic_ros.networks import NETWORKS

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter is off")

# Small, since the interpreter is slow; EPSNet cannot be smaller, but what it is shown as can.
SIZES = {name: scene_size(name) for name in NETWORKS}
OUTPUTS = SIZES | {"epsnet": (66, 72)}
KERNELS = {
    "fpsnet": {"greedy_keep"},
    "dense_detection": {"greedy_keep", "dense_soft_masks", "merge_soft_masks"},
    "panonet": {"mean_shift_climb", "nearest_of_class", "paint_clusters"},
    "epsnet": {"merge_soft_masks"},
    "panoptic_fcn": {"merge_soft_masks"},
}


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
    (image,) = street_images(1, SIZES[name])
    with Kernels() as kernels:
        expected, found = both_forms(config, network, image, SIZES[name], OUTPUTS[name])
    assert kernels.names > KERNELS[name]
    assert (found.labels == expected.labels).float().mean() >= 0.999
    assert listed(found) == listed(expected) and len(listed(expected)) > 4


@pytest.mark.timeout(900)
def test_labels_of_a_crowd_with_equal_scores_are_those_of_the_cpu():
    config, network = load_model("epsnet_small")
    (image,) = street_images(1, OUTPUTS["epsnet"])
    expected, found = both_forms(
        config, network, image, SIZES["epsnet"], OUTPUTS["epsnet"], instances=50
    )
    assert torch.equal(found.labels, expected.labels)
    assert listed(found) == listed(expected) and len(listed(expected)) > 20
