"""The convolutional parts of Panoptic FCN (Li et al., CVPR 2021, sections 3.1 and 3.3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

from panoptic_ros.networks.layers.coordinates import append_coordinates
from panoptic_ros.ops.deformable import deformable_convolution

_GROUPS = 32  # of every group norm, as in the official code
_POSITION_BIAS = -2.19  # sigmoid gives 0.1, as in CenterNet


class ModulatedDeformConv(nn.Module):
    """3x3 deformable convolution that predicts its own offsets and modulation (DCNv2, CVPR 2019).

    Args:
        inputs: Channels in.
        outputs: Channels out.
        bias: Whether the deformable convolution has a bias.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.offset_mask = nn.Conv2d(inputs, 27, 3, padding=1)
        self.conv = DeformConv2d(inputs, outputs, 3, padding=1, bias=bias)
        nn.init.kaiming_uniform_(self.conv.weight, nonlinearity="relu")
        if bias:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, inputs, H, W) to (B, outputs, H, W)."""
        return deformable_convolution(x, self.offset_mask(x), self.conv.weight, self.conv.bias)


def conv_tower(
    inputs: int, width: int, depth: int, norm: bool = True, deformable: bool = False
) -> nn.Sequential:
    """Stack 3x3 convolutions, each with ReLU.

    Args:
        inputs: Channels in.
        width: Channels of every convolution.
        depth: Number of convolutions.
        norm: Group norm instead of a bias.
        deformable: Modulated deformable convolutions.
    """
    layers: list[nn.Module] = []
    for channels in (inputs, *[width] * (depth - 1)):
        if deformable:
            layers.append(ModulatedDeformConv(channels, width, bias=not norm))
        else:
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not norm))
        if norm:
            layers.append(nn.GroupNorm(_GROUPS, width))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class PositionHead(nn.Module):
    """Locates and classifies object centers and stuff regions (section 3.1).

    Args:
        channels: Of the pyramid and of the head.
        things: N_th, number of center maps.
        stuff: N_st, number of region maps.
        depth: Convolutions before the last ones.
        deformable: Whether those are deformable.
    """

    def __init__(
        self, channels: int, things: int, stuff: int, depth: int, deformable: bool
    ) -> None:
        super().__init__()
        self.tower = conv_tower(channels, channels, depth, deformable=deformable)
        self.centers = nn.Conv2d(channels, things, 3, padding=1)
        self.regions = nn.Conv2d(channels, stuff, 3, padding=1)
        for layer in (self.centers, self.regions):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, _POSITION_BIAS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of L_th (B, N_th, H, W) and of L_st (B, N_st, H, W)."""
        x = self.tower(x)
        return self.centers(x), self.regions(x)


class KernelHead(nn.Module):
    """Generates the kernel weight map G (section 3.1), with coordinates appended to its input.

    Args:
        channels: Of the pyramid, of the head and of its output.
        depth: Convolutions before the last one.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.tower = conv_tower(channels + 2, channels, depth)
        self.kernels = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.kernels.weight, std=0.01)
        nn.init.zeros_(self.kernels.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return kernel weights before their embedding: (B, channels, H, W)."""
        return self.kernels(self.tower(append_coordinates(x)))


class KernelEmbedding(nn.Linear):
    """Turns kernel weights into kernels as long as the encoded feature has channels.

    It computes in float32, whatever the network is cast to.

    Args:
        channels: Of the kernel head.
        encoder_channels: C_e.
    """

    def __init__(self, channels: int, encoder_channels: int) -> None:
        super().__init__(channels, encoder_channels)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def forward(self, weights: Tensor) -> Tensor:
        """Return kernels (..., C_e), float32, of weights (..., channels)."""
        return F.linear(weights.float(), self.weight.float(), self.bias.float())


class SemanticFPN(nn.Module):
    """Sums P2..P5 at stride 4 into F_h (Kirillov et al., Panoptic FPN, CVPR 2019).

    Args:
        channels: Of the pyramid and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p2 = conv_tower(channels, channels, 1)
        self.p3 = _upsampling_tower(channels, 1)
        self.p4 = _upsampling_tower(channels, 2)
        self.p5 = _upsampling_tower(channels, 3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, p2: Tensor, p3: Tensor, p4: Tensor, p5: Tensor) -> Tensor:
        """Return F_h: (B, channels, H/4, W/4)."""
        return self.p2(p2) + self.p3(p3) + self.p4(p4) + self.p5(p5)


def _upsampling_tower(channels: int, depth: int) -> nn.Sequential:
    steps: list[nn.Module] = []
    for _ in range(depth):
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        steps += [*conv_tower(channels, channels, 1), upsample]
    return nn.Sequential(*steps)


class FeatureEncoder(nn.Module):
    """Encodes F_h with coordinates into F_e (section 3.3): convolutions without norm.

    Args:
        inputs: Channels of F_h.
        outputs: C_e.
        depth: Number of convolutions.
        deformable: Deformable convolutions, as in the enhanced version (``*``).
    """

    def __init__(self, inputs: int, outputs: int, depth: int, deformable: bool) -> None:
        super().__init__()
        self.tower = conv_tower(inputs + 2, outputs, depth, norm=False, deformable=deformable)

    def forward(self, x: Tensor) -> Tensor:
        """Return F_e: (B, C_e, H/4, W/4), 0 or more."""
        return self.tower(append_coordinates(x))
