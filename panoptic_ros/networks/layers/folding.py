"""Fold batch norm into the convolution before it, for inference."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops.misc import FrozenBatchNorm2d

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold every batch norm whose convolution is known, in place, and return the network.

    A norm belongs to the convolution before it in an ``nn.Sequential``, and ``bnX`` of a ResNet
    block to its ``convX``. The result is equal in eval mode up to rounding; others stay.
    """
    for module in network.modules():
        children = dict(module.named_children())
        if isinstance(module, nn.Sequential):
            names = list(children)
            pairs = list(pairwise(names))
        else:
            pairs = [(name.replace("bn", "conv"), name) for name in children if name[:2] == "bn"]
        for conv_name, norm_name in pairs:
            conv, norm = children.get(conv_name), children[norm_name]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _NORMS):
                _fold(conv, norm)
                setattr(module, norm_name, nn.Identity())
    return network


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> None:
    bias: Tensor | None = conv.bias
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
