"""FPSNet's single feature map (section III-B.2) and panoptic head (III-A.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Initial weights in the channel of a slot: of its own mask, 0 to C_att = 50, and a factor on the
# random ones of what else it sees.
_MASK_WEIGHT, _OTHERS = 0.2, 0.3


class SingleFeatureMap(nn.Module):
    """S = S3 + S4 + S5 at 1/8 of the input (section III-B.2).

    An up-sampling step is a 3x3 convolution with ReLU, then bilinear up-sampling by 2: two for
    P5, one for P4; P3 gets the convolution alone. At 1/4, which is not in the letter, S2 joins
    and each of the others has one step more.

    Args:
        in_channels: Of the pyramid.
        channels: F_dim.
        finest: First level of the pyramid that takes part, 3 or 2.
    """

    def __init__(self, in_channels: int, channels: int, finest: int = 3) -> None:
        super().__init__()
        self._levels = [f"p{level}" for level in range(finest, 6)]
        for steps, name in enumerate(self._levels):
            layers: list[nn.Module] = []
            for step in range(max(1, steps)):
                layers.append(_conv_relu(in_channels if step == 0 else channels, channels))
                layers += [_upsample()] if steps else []
            self.add_module(name, layers[0] if not steps else nn.Sequential(*layers))

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Return S (B, F_dim, h, w) at the size of the first of the maps, the finest level's."""
        total = self.get_submodule(self._levels[0])(pyramid[0])
        for name, features in zip(self._levels[1:], pyramid[1:], strict=False):
            total = total + self.get_submodule(name)(features)
        return total


class PanopticHead(nn.Module):
    """From features and attention masks to a logit per slot and pixel (section III-A.2).

    Args:
        in_channels: Slots and channels of the features.
        channels: Of the layers.
        depth: Layers.
        slots: N_att, of the masks and of the outputs, which have them first.
        outputs: N_att + N_stuff + 2.
        norm_order: See ``FPSNet``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        depth: int,
        slots: int,
        outputs: int,
        norm_order: str,
    ) -> None:
        super().__init__()
        layers = [
            _panoptic_layer(in_channels if i == 0 else channels, channels, norm_order)
            for i in range(depth)
        ]
        self.layers = nn.Sequential(*layers)
        self.predictor = nn.Conv2d(channels, outputs, 1)
        self._pass_masks(slots)

    @torch.no_grad()
    def _pass_masks(self, slots: int) -> None:
        """Let each mask reach the output of its slot from the first step on.

        From random weights the slots learn one by one that their output follows their mask,
        each only from the images that have a box in it. The letter gives no initial weights.
        """
        first, *others = [layer[0].weight for layer in self.layers]
        own = range(min(slots, len(first)))
        first[: len(own), :slots] = 0
        for weight in (first, *others, self.predictor.weight):
            weight[own] *= _OTHERS
        first[own, own, 1, 1] = _MASK_WEIGHT
        for weight in others:
            weight[own, own, 1, 1] += 1
        self.predictor.weight[own, own] += 1

    def forward(self, features: Tensor, attention: Tensor) -> Tensor:
        """Return logits (B, N_att + N_stuff + 2, h, w).

        Args:
            features: (B, F_dim, h, w), the single feature map.
            attention: (B, N_att, h, w), in the dtype of the features.
        """
        return self.predictor(self.layers(torch.cat((attention, features), dim=1)))


def _conv_relu(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _upsample() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear")


def _panoptic_layer(in_channels: int, channels: int, norm_order: str) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=norm_order == "conv-relu-bn")
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    norm, relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    return nn.Sequential(conv, *((norm, relu) if norm_order == "conv-bn-relu" else (relu, norm)))
