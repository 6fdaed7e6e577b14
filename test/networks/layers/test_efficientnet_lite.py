"""The EfficientNet-Lite trunks against timm's, with its weights, and folded against unfolded."""

from __future__ import annotations

import copy

import pytest
import torch

from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.networks.layers.efficientnet_lite import (
    EFFICIENTNETS,
    EfficientNetLite,
    SameConv2d,
)
from panoptic_ros.networks.layers.folding import fold_batch_norm

timm = pytest.importorskip("timm")


def randomised(network):
    """Give batch norms statistics that matter."""
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("size", [(64, 96), (75, 53)])  # "same" padding differs on odd sides
@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_maps_are_those_of_timm(name, size):
    torch.manual_seed(0)
    theirs = randomised(timm.create_model(f"tf_{name}", features_only=True))
    ours = EfficientNetLite(name).eval()
    # Both list the layers from the input on.
    weights = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(weights))
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = theirs(images)[1:]
        maps = ours(images)
    assert [m.shape[1] for m in maps] == ours.channels
    for map_, reference in zip(maps, expected, strict=True):
        torch.testing.assert_close(map_, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolutions_learn_in_float32_on_cpus(stride):
    torch.manual_seed(0)
    layer = SameConv2d(8, 8, 5, stride, groups=8, bias=False)
    images = torch.randn(2, 8, 13, 10)
    (expected,) = torch.autograd.grad(layer(images).square().sum(), layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        maps = layer(images)
        assert layer.eval()(images).dtype == torch.bfloat16
    assert maps.dtype == torch.float32
    (gradient,) = torch.autograd.grad(maps.square().sum(), layer.weight)
    assert torch.equal(gradient, expected)


def test_folding_changes_nothing():
    torch.manual_seed(0)
    network = randomised(EfficientNetLite())
    folded = fold_batch_norm(copy.deepcopy(network))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        for map_, reference in zip(folded(images), network(images), strict=True):
            torch.testing.assert_close(map_, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"norm": "frozen"}, {"stride_in_1x1": True}])
def test_what_an_efficientnet_has_not_is_refused(settings):
    with pytest.raises(ValueError, match="norm: batch and stride_in_1x1: false"):
        build_backbone("efficientnet_lite0", **settings)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ValueError, match=r"resnet50.*efficientnet_lite2"):
        build_backbone("efficientnet_lite9")
