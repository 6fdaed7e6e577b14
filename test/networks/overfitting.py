"""What tests need that let a network learn a few pictures by heart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.evaluation.panoptic_quality import PanopticQuality, SegmentTable
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.prediction import Category
from panoptic_ros.truth import PanopticTarget, SegmentMap


def learn(
    network: PanopticNetwork,
    images: Tensor,
    targets: Sequence[PanopticTarget],
    steps: int,
    rate: float,
) -> None:
    """Train on all images (B, 3, H, W) in every step, the learning rate up and down again."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        sum(network.loss(images, targets).values()).backward()
        optimiser.step()
        schedule.step()


def panoptic_quality(
    categories: Sequence[Category],
    found: Sequence[SegmentMap],
    targets: Sequence[PanopticTarget],
) -> float:
    """Return the PQ, 0..1, of predictions of the targets' size."""
    quality = PanopticQuality(categories)
    for segments, target in zip(found, targets, strict=True):
        shown = segments.slots.unique()
        shown = shown[shown > 0]
        truth, prediction = (
            SegmentTable(ids.numpy(), classes.numpy(), np.zeros(len(ids), bool))
            for ids, classes in (
                (torch.arange(1, 1 + len(target.class_ids)), target.class_ids),
                (shown, segments.class_ids[shown - 1]),
            )
        )
        quality.add(target.slots.numpy(), truth, segments.slots.numpy(), prediction)
    return quality.result()["All"]["pq"]
