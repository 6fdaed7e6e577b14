"""Folded networks compute what they computed before."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from panoptic_ros.networks.layers.folding import fold_batch_norm
from panoptic_ros.networks.layers.resnet import ResNet


def randomise(network):
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(module, name).data.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("name", ["resnet18_half", "resnet50"])
def test_resnet_is_equal_and_has_no_norm_left(name, norm):
    trunk = randomise(ResNet(name, norm))
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = trunk(image)
        after = fold_batch_norm(trunk)(image)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * a.abs().max().item())
    assert not any(isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d)) for m in trunk.modules())


def test_a_norm_that_does_not_follow_a_convolution_stays():
    network = randomise(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    )
    image = torch.rand(1, 3, 5, 5)
    before = network(image)
    torch.testing.assert_close(fold_batch_norm(network)(image), before)
    assert isinstance(network[2], nn.BatchNorm2d)
