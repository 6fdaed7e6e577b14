"""The convolutional parts of EPSNet (Chang et al., ACCV 2020, section 3.1), in its order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from panoptic_ros.ops.suppression import per_anchor


class Pyramid(nn.Module):
    """FPN that gives F3..F7: bilinear top-down path, ReLU after the 3x3 convolutions of F3..F5."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        self.down = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return F3..F7 (B, channels, h, w), at strides 8 to 128, of C3, C4, C5."""
        outputs: list[Tensor] = []
        x = None
        for feature, lateral, output in zip(
            reversed(maps), reversed(self.lateral), reversed(self.output), strict=True
        ):
            side = lateral(feature)
            if x is not None:
                side = side + F.interpolate(x, size=side.shape[-2:], mode="bilinear")
            x = side
            outputs.insert(0, F.relu(output(x)))
        for down in self.down:
            outputs.append(down(outputs[-1]))
        return outputs


def protohead(channels: int, prototypes: int) -> nn.Sequential:
    """Return the head that makes the k prototypes at 1/4 from Z at 1/8; not negative."""
    blocks = [_block(channels) for _ in range(4)]
    return nn.Sequential(
        *blocks[0],
        *blocks[1],
        *blocks[2],
        nn.Upsample(scale_factor=2, mode="bilinear"),
        *blocks[3],
        nn.Conv2d(channels, prototypes, 1),
        nn.GroupNorm(prototypes, prototypes),
        nn.ReLU(inplace=True),
    )


class InstanceHead(nn.Module):
    """Class, box and mask coefficients of the anchors of each cell, shared by F3..F7."""

    def __init__(self, channels: int, classes: int, prototypes: int, anchors: int) -> None:
        super().__init__()
        self.anchors = anchors
        self.block = nn.Sequential(*_block(channels))
        self.classes = nn.Conv2d(channels, anchors * classes, 3, padding=1)
        self.boxes = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        self.masks = nn.Conv2d(channels, anchors * prototypes, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what F3..F7 say about all A anchors.

        Returns:
            Class logits (B, A, classes), box deltas (B, A, 4) and mask coefficients (B, A, k),
            -1..1.
        """
        blocks = [self.block(f) for f in features]
        logits, deltas, coefficients = (
            torch.cat(
                [per_anchor(branch(b), branch.out_channels // self.anchors) for b in blocks], dim=1
            )
            for branch in (self.classes, self.boxes, self.masks)
        )
        return logits, deltas, coefficients.tanh()


class SemanticHead(nn.Module):
    """Mask coefficients of the semantic classes from F7, averaged over its positions."""

    def __init__(self, channels: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.prototypes = prototypes
        convolution, norm, relu = _block(channels)
        convolution.padding = (0, 0)
        self.layers = nn.Sequential(
            convolution, norm, relu, nn.Conv2d(channels, prototypes * classes, 1)
        )

    def forward(self, f7: Tensor) -> Tensor:
        """Return Y (B, k, N_stuff + 2), -1..1."""
        if min(f7.shape[-2:]) < 3:
            raise ValueError(
                f"the semantic head needs 3 x 3 cells at 1/128, got {tuple(f7.shape[-2:])}; "
                "use a resolution of more than 256 pixels a side"
            )
        return self.layers(f7).tanh().mean((2, 3)).unflatten(1, (self.prototypes, -1))


class CrossLayerAttention(nn.Module):
    """Z = F3 + A(F3, F3) + A(F3, F4) + A(F3, F5), one block for all (equations 2 to 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.query = nn.Conv2d(channels, half, 1)  # theta
        self.key = nn.Conv2d(channels, half, 1)  # phi
        self.value = nn.Conv2d(channels, half, 1)  # h
        self.out = nn.Conv2d(half, channels, 1)  # v

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return Z (B, channels, H / 8, W / 8) of F3, F4, F5, ..."""
        target = features[0]
        query = _positions(self.query(target))
        z = target
        for source in features[:3]:
            # Scores are not scaled by 1 / sqrt(d). Never materialised: they are quadratic.
            attended = F.scaled_dot_product_attention(
                query, _positions(self.key(source)), _positions(self.value(source)), scale=1.0
            )
            attended = attended[:, 0].transpose(1, 2).unflatten(2, target.shape[-2:])
            z = z + self.out(attended)
        return z


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 1, H * W, C): a sequence with one head."""
    return x.flatten(2).transpose(1, 2)[:, None].contiguous()


def _block(channels: int) -> tuple[nn.Conv2d, nn.GroupNorm, nn.ReLU]:
    return (
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(min(32, channels // 4), channels),
        nn.ReLU(inplace=True),
    )
