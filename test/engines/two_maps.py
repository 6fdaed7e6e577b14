"""A network with all that an engine must carry over, and little to compute."""

from __future__ import annotations

import torch
from torch import nn

from panoptic_ros.networks.base import PanopticNetwork


class TwoMaps(PanopticNetwork):
    """Features of its own type and scores in single precision; an image stays alone."""

    size_divisor = 8

    def __init__(self, width: int = 8) -> None:
        super().__init__([2], [1])
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, images):
        features = self.conv(images).relu()
        return {"features": features, "scores": self.head(features).float().softmax(1)}

    def predict(self, raw, sizes, options):
        raise NotImplementedError

    def loss(self, images, targets):
        raise NotImplementedError


def make_network(seed: int = 0) -> TwoMaps:
    torch.manual_seed(seed)
    return TwoMaps().eval().requires_grad_(False)
