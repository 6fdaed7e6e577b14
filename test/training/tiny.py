"""The smallest network that keeps the contract, for tests of the optimisation itself."""

import torch
from torch import nn

from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.training.distributed import Processes

CPU = Processes(0, 1, torch.device("cpu"))
CATEGORIES = [
    {"id": 1, "name": "ground", "isthing": 0, "color": [128, 64, 128]},
    {"id": 2, "name": "car", "isthing": 1, "color": [0, 0, 142]},
]


class ClassMap(PanopticNetwork):
    """Two convolutions that tell the class of each pixel; its loss is a mean over images."""

    size_divisor = 8

    def __init__(self, norm: bool = False) -> None:
        super().__init__([2], [1])
        self.trunk = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, images):
        return {"logits": self.head(self.norm(self.trunk(images)).relu())}

    def predict(self, raw, sizes, options):
        raise NotImplementedError

    def loss(self, images, targets):
        truth = torch.stack([target.semantic() for target in targets])
        logits = self(images)["logits"].float()
        return {
            "classes": nn.functional.cross_entropy(logits, truth),
            "size": 0.01 * logits.square().mean(),
        }
