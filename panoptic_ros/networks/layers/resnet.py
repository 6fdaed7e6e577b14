"""ResNet trunks that give the maps C2..C5 (strides 4, 8, 16, 32).

The published networks use three kinds of ResNet-50 that are not interchangeable: they differ in
where a bottleneck has its stride and in how batch norm is kept. Parameter names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import FrozenBatchNorm2d

# name: block, blocks per stage, channels of the stem
RESNETS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...], int]] = {
    "resnet18_half": (BasicBlock, (2, 2, 2, 2), 32),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 64),
}


class ResNet(nn.Module):
    """ResNet without its classifier (He et al., CVPR 2016).

    Args:
        name: ``resnet18_half`` (half the channels of ResNet-18, for CPUs), ``resnet18``,
            ``resnet50`` or ``resnet101``.
        norm: ``batch`` for BatchNorm2d, ``frozen`` for FrozenBatchNorm2d (statistics and affine
            are buffers).
        norm_eps: Epsilon of either.
        stride_in_1x1: Stride of a bottleneck in its first 1x1 convolution (MSRA, Caffe) instead
            of its 3x3 one (torchvision, "v1.5").

    Attributes:
        channels: Channels of C2, C3, C4, C5.

    Raises:
        ValueError: Unknown ``name`` or ``norm``.
    """

    def __init__(
        self,
        name: str = "resnet50",
        norm: str = "batch",
        norm_eps: float = 1e-5,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        if name not in RESNETS:
            raise ValueError(f"unknown backbone {name!r}; there are {', '.join(RESNETS)}")
        block, depths, width = RESNETS[name]
        norm_layer = _norm_layer(norm, norm_eps)
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = [width * 2**i * block.expansion for i in range(4)]
        inputs = [width, *self.channels[:3]]
        for i in range(4):
            stage = _stage(
                block, inputs[i], width * 2**i, depths[i], 1 if i == 0 else 2, norm_layer
            )
            self.add_module(f"layer{i + 1}", stage)
        if stride_in_1x1:
            _move_strides(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return C2, C3, C4, C5 of images (B, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


def _norm_layer(norm: str, eps: float) -> Callable[[int], nn.Module]:
    kinds = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d}
    if norm not in kinds:
        raise ValueError(f"unknown norm {norm!r}; there are {', '.join(kinds)}")
    return partial(kinds[norm], eps=eps)


def _stage(
    block: type[BasicBlock | Bottleneck],
    inputs: int,
    planes: int,
    depth: int,
    stride: int,
    norm_layer: Callable[[int], nn.Module],
) -> nn.Sequential:
    outputs = planes * block.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), norm_layer(outputs)
        )
    first = block(inputs, planes, stride, shortcut, norm_layer=norm_layer)
    rest = [block(outputs, planes, norm_layer=norm_layer) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _move_strides(trunk: nn.Module) -> None:
    for module in trunk.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
