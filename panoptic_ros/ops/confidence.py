"""How sure a network is of every pixel, on the device: fixed shapes, and nothing waits."""

from __future__ import annotations

import torch
from torch import Tensor

from panoptic_ros.truth import ClassLogits, SegmentMap


def pixel_confidence(segments: SegmentMap, is_stuff: Tensor, present: Tensor) -> Tensor:
    """Return the confidence of every pixel: int16, (H, W), 0..255 for 0..1.

    Things, and stuff of networks without ``segments.logits``, have the score of their segment;
    other stuff has the probability of its class at that pixel; void has 0.

    Args:
        segments: Of an image.
        is_stuff: bool, (S,).
        present: bool, (S,), the slots that are in the label image.
    """
    slots, class_ids, scores, logits = segments
    flat = slots.flatten()
    scores = torch.cat((scores.new_zeros(1), scores * present))
    confidence = scores.index_select(0, flat)
    if logits is not None:
        channels = _channels(class_ids, logits.class_ids, is_stuff & present)
        channel = torch.cat((channels.new_full((1,), -1), channels)).index_select(0, flat)
        probability = _probability(logits, channel.clamp(min=0).view(slots.shape)).flatten()
        confidence = torch.where(channel >= 0, probability, confidence)
    return (confidence * 255).round().to(torch.int16).view(slots.shape)


def _channels(class_ids: Tensor, of: Tensor, wanted: Tensor) -> Tensor:
    """Return the channel of the class of each wanted slot: int64, (S,), -1 for the others."""
    equal = class_ids[:, None] == of
    return torch.where(wanted & equal.any(1), equal.to(torch.uint8).argmax(1), -1)


def _probability(logits: ClassLogits, channel: Tensor) -> Tensor:
    """Interpolate, between half-pixel centres, the probability of one class at every pixel.

    Args:
        logits: (C, h, w).
        channel: int64, (H, W), the class of each pixel.
    """
    maps = logits.logits.float().softmax(0)
    grid = maps.shape[1:]
    axes = [
        _neighbours(old, covered / new, new, channel.device)
        for old, covered, new in zip(grid, logits.covered, channel.shape, strict=True)
    ]
    (top, bottom, down), (left, right, across) = axes
    start = channel * (grid[0] * grid[1])
    flat = maps.flatten()

    def row(y: Tensor) -> Tensor:
        line = start + (y * grid[1])[:, None]
        return torch.lerp(flat[line + left], flat[line + right], across)

    return torch.lerp(row(top), row(bottom), down[:, None])


def _neighbours(
    old: int, step: float, new: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells before and behind every pixel of an axis, and the weight of the latter."""
    position = (torch.arange(new, device=device) + 0.5) * step - 0.5
    position = position.clamp(min=0, max=old - 1)
    first = position.long()
    return first, (first + 1).clamp(max=old - 1), position - first
