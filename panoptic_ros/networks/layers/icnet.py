"""ICNet: image cascade network (Zhao et al., ECCV 2018), the branch that PanoNet is made of.

The pruned network of the authors' release, not the full-width ResNet-50 of other ones. Resizing
has half-pixel centres (``align_corners=False``), which suits inputs of even sizes; the original,
on Caffe, aligns corners and wants 1025x2049. ``TrunkCascade`` is its cascade on the maps of any
trunk.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (4, 8, 16)  # of the three outputs


class ICNet(nn.Module):
    """One branch.

    Args:
        in_channels: Channels of the input: 3, or 5 with two coordinate maps.
        out_channels: Channels of every output.
        width: Factor on all widths; 1.0 is the published network.

    Attributes:
        fuse4, fuse2: The cascade feature fusion units CFF1 and CFF2.
        classifier: The 1x1 convolution of the output at 1/4.
        guides: Those at 1/8 and 1/16, used in training only (cascade label guidance).
    """

    def __init__(self, in_channels: int, out_channels: int, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128, c256, c512, c1024 = (_scaled(32 * 2**i, width) for i in range(6))
        self.stem = nn.Sequential(
            _conv(in_channels, c32, 3, stride=2),
            _conv(c32, c32, 3),
            _conv(c32, c64, 3),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2 = _stage(c64, c32, c128, depth=3)
        self.conv3_1 = _Bottleneck(c128, c64, c256, stride=2)
        self.conv3 = nn.Sequential(*(_Bottleneck(c256, c64, c256) for _ in range(3)))
        self.conv4 = _stage(c256, c128, c512, depth=6, dilation=2)
        self.conv5 = _stage(c512, c256, c1024, depth=3, dilation=4)
        self.conv5_4 = _conv(c1024, c256, 1)
        self.detail = nn.Sequential(
            _conv(in_channels, c32, 3, stride=2),
            _conv(c32, c32, 3, stride=2),
            _conv(c32, c64, 3, stride=2),
        )
        self.fuse4 = _CascadeFeatureFusion(c256, c256, c128)
        self.fuse2 = _CascadeFeatureFusion(c128, c64, c128)
        self.classifier = nn.Conv2d(c128, out_channels, 1)
        self.guides = nn.ModuleList(
            [nn.Conv2d(c128, out_channels, 1), nn.Conv2d(c256, out_channels, 1)]
        )
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the output at 1/4: (B, out_channels, H / 4, W / 4) for images (B, C, H, W)."""
        fused2, _, _ = self._features(images)
        return self._output(fused2, images)

    def cascade(self, images: Tensor) -> list[Tensor]:
        """Return the outputs at 1/4, 1/8 and 1/16, which training guides."""
        fused2, fused4, low = self._features(images)
        guide2, guide4 = self.guides
        return [
            self._output(fused2, images),
            guide2(_resize(fused4, fused2.shape)),
            guide4(_resize(low, fused4.shape)),
        ]

    def _output(self, fused2: Tensor, images: Tensor) -> Tensor:
        # Resizing and a 1x1 convolution commute; this order is four times cheaper.
        return _resize(self.classifier(fused2), _shrunk(images, 4))

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return CFF2's output at 1/8, CFF1's at 1/16, and conv5_4's at 1/32."""
        half = _resize(images, _shrunk(images, 2))
        tapped = self.conv3_1(self.conv2(self.stem(half)))
        low = _resize(tapped, _shrunk(tapped, 2))
        low = _pool_pyramid(self.conv5(self.conv4(self.conv3(low))))
        low = self.conv5_4(low)
        fused4 = self.fuse4(low, tapped)
        return self.fuse2(fused4, self.detail(images)), fused4, low


class TrunkCascade(nn.Module):
    """ICNet's cascade on the maps C2..C5 of a trunk that sees the whole image.

    ICNet spares its trunk the full resolution and gets details from three convolutions beside
    it. A trunk made for phones needs no sparing: its own maps are the fine inputs of the fusion
    units, of which there is one more, so that the output at 1/4 is computed there.

    Args:
        in_channels: Channels of C2, C3, C4, C5.
        out_channels: Channels of every output.
        width: Factor on ICNet's widths, 256 of the pooled map and 128 of the fused ones.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, width: float = 1.0) -> None:
        super().__init__()
        c2, c3, c4, c5 = in_channels
        pooled, fused = _scaled(256, width), _scaled(128, width)
        self.reduce = _conv(c5, pooled, 1)
        self.fuse16 = _CascadeFeatureFusion(pooled, c4, fused)
        self.fuse8 = _CascadeFeatureFusion(fused, c3, fused)
        self.fuse4 = _CascadeFeatureFusion(fused, c2, fused)
        self.classifier = nn.Conv2d(fused, out_channels, 1)
        self.guides = nn.ModuleList(nn.Conv2d(fused, out_channels, 1) for _ in range(2))
        _initialise(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the output at 1/4: (B, out_channels, H / 4, W / 4) for C2..C5."""
        return self.classifier(self._features(maps)[0])

    def cascade(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs at 1/4, 1/8 and 1/16, which training guides."""
        layers = (self.classifier, *self.guides)
        return [layer(x) for layer, x in zip(layers, self._features(maps), strict=True)]

    def _features(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the fused maps at 1/4, 1/8 and 1/16."""
        c2, c3, c4, c5 = maps
        at16 = self.fuse16(self.reduce(_pool_pyramid(c5)), c4)
        at8 = self.fuse8(at16, c3)
        return self.fuse4(at8, c2), at8, at16


class _CascadeFeatureFusion(nn.Module):
    """CFF (section 3.3): the coarse map is zoomed and convolved, the fine one projected; sum."""

    def __init__(self, coarse: int, fine: int, channels: int) -> None:
        super().__init__()
        self.coarse = _conv(coarse, channels, 3, dilation=2, relu=False)
        self.fine = _conv(fine, channels, 1, relu=False)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return F.relu(self.coarse(_resize(coarse, fine.shape)) + self.fine(fine))


class _Bottleneck(nn.Module):
    """Residual bottleneck; a stride is in its first 1x1 convolution."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, middle, 1, stride=stride),
            _conv(middle, middle, 3, dilation=dilation),
            _conv(middle, outputs, 1, relu=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = _conv(inputs, outputs, 1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _stage(inputs: int, middle: int, outputs: int, depth: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _Bottleneck(inputs, middle, outputs, dilation=dilation),
        *(_Bottleneck(outputs, middle, outputs, dilation=dilation) for _ in range(depth - 1)),
    )


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, relu: bool = True
) -> nn.Sequential:
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2 * dilation, dilation=dilation, bias=False
    )
    parts = [conv, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*parts, nn.ReLU(inplace=True)) if relu else nn.Sequential(*parts)


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _pool_pyramid(x: Tensor, bins: Sequence[int] = (1, 2, 3, 6)) -> Tensor:
    """Add the map's averages over 1, 4, 9 and 36 areas to it."""
    size = x.shape[-2:]
    total = x
    for number in bins:
        strides = [max(1, side // number) for side in size]
        counts = [min(number, side) for side in size]
        kernel = [s - (n - 1) * d for s, n, d in zip(size, counts, strides, strict=True)]
        pooled = F.avg_pool2d(x, kernel, strides)
        total = total + _resize(pooled, size)
    return total


def _shrunk(x: Tensor, factor: int) -> tuple[int, int]:
    """Return the height and width of a map at 1/factor, rounded up as strided convolutions do."""
    return -(-x.shape[-2] // factor), -(-x.shape[-1] // factor)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly to the last two of ``size``."""
    return F.interpolate(x, size=tuple(size[-2:]), mode="bilinear")
