"""The fusion of the kernels of Panoptic FCN (Li et al., CVPR 2021, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from panoptic_ros.networks.panoptic_fcn.kernels import Kernels


def fuse_things(things: Kernels, threshold: float) -> Kernels:
    """Merge the kernels of one object (section 3.2, Eq. 4).

    Two kernels of one class are the same object from a cosine similarity of ``threshold``. Each
    goes to the first, that is best, kernel it equals; who is that to itself stays, as the mean of
    those that went to it. The others become empty.

    Args:
        things: Best first.
        threshold: -1..1.
    """
    number = things.scores.shape[1]
    slots = torch.arange(number, device=things.scores.device)
    directions = F.normalize(things.weights, dim=2, eps=1e-8)
    same = directions @ directions.transpose(1, 2) >= threshold
    same &= things.classes[:, :, None] == things.classes[:, None, :]
    same = same.triu() | torch.eye(number, dtype=torch.bool, device=same.device)
    first = same.to(torch.uint8).argmax(dim=1)
    groups = (first[:, None, :] == slots[:, None]) & (things.scores > 0)[:, None, :]
    groups = groups.float()
    weights = groups @ things.weights / groups.sum(2, keepdim=True).clamp(min=1)
    return things._replace(weights=weights, scores=torch.where(first == slots, things.scores, 0))


def fuse_stuff(levels: Sequence[Kernels]) -> Kernels:
    """Average the kernels and scores of each stuff channel over the levels that found it."""
    weights = torch.stack([level.weights for level in levels])
    scores = torch.stack([level.scores for level in levels])
    found = (scores > 0)[..., None]
    count = found.sum(0).clamp(min=1)
    return Kernels(
        (weights * found).sum(0) / count, levels[0].classes, scores.sum(0) / count[..., 0]
    )
