"""EfficientNet-Lite trunks that give the maps C2..C5 (strides 4, 8, 16, 32).

EfficientNet (Tan, Le, ICML 2019) as its authors changed it for phones and accelerators: ReLU6 for
swish, no squeeze-and-excite, stem and head not scaled. All of it quantises well.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NORM_EPS = 1e-3
_STEM = 32  # channels, in every variant


class _Stage(NamedTuple):
    """Inverted residual blocks of a kind; the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),  # C2
    _Stage(2, 5, 2, 6, 40),  # C3
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),  # C4
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),  # C5
)
_OUTPUTS = (1, 2, 4, 6)  # stages after which the stride changes, or that are the last

# name: factors on the channels and on the repeats
EFFICIENTNETS: dict[str, tuple[float, float]] = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without its classifier.

    Its published weights expect RGB images as (x - 127) / 128.

    Args:
        name: A key of ``EFFICIENTNETS``.

    Attributes:
        channels: Channels of C2, C3, C4, C5.
    """

    def __init__(self, name: str = "efficientnet_lite0") -> None:
        super().__init__()
        width, depth = EFFICIENTNETS[name]
        self.stem = _conv(3, _STEM, 3, stride=2)
        stages, inputs = [], _STEM
        for number, stage in enumerate(_STAGES):
            is_scaled = 0 < number < len(_STAGES) - 1
            repeats = math.ceil(stage.repeats * depth) if is_scaled else stage.repeats
            channels = _scaled(stage.channels, width)
            blocks = []
            for block in range(repeats):
                stride = stage.stride if block == 0 else 1
                blocks.append(
                    InvertedResidual(inputs, channels, stage.kernel, stride, stage.expansion)
                )
                inputs = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.channels = [_scaled(_STAGES[i].channels, width) for i in _OUTPUTS]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return C2, C3, C4, C5 of images (B, 3, H, W)."""
        x = self.stem(images)
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _OUTPUTS:
                maps.append(x)
        return maps


class InvertedResidual(nn.Module):
    """Expand (1x1), filter each channel (k x k), project (1x1, linear); MobileNetV2's block."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = _conv(inputs, middle, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _conv(middle, middle, kernel, stride, groups=middle)
        self.project = _conv(middle, outputs, 1, relu=False)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's "same": the odd pixel goes right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, ceil(H / stride), ceil(W / stride))."""
        if self.training and self.groups > 1 and x.device.type == "cpu":
            # The gradient of a depthwise convolution's weight takes a CPU three times longer in
            # bf16 than in fp32.
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.to(self.weight.dtype))
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1):  # symmetric
            padding = (self.kernel_size[0] // 2, self.kernel_size[1] // 2)
            return F.conv2d(x, self.weight, self.bias, 1, padding, 1, self.groups)
        top, bottom = _padding(x.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = _padding(x.shape[-1], self.kernel_size[1], self.stride[1])
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many zeros go before and behind a line of ``size`` pixels."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    norm = nn.BatchNorm2d(outputs, eps=_NORM_EPS)
    return nn.Sequential(conv, norm, nn.ReLU6(inplace=True)) if relu else nn.Sequential(conv, norm)


def _scaled(channels: int, factor: float) -> int:
    """Scale and round to a multiple of 8, but not down by more than a tenth."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded
