"""The panoptic merge of Kirillov et al. (Panoptic Segmentation, CVPR 2019, section 4.3).

Instances are walked by score; one that is mostly covered by better ones is dropped, the others
paint the pixels still free; stuff gets the rest. The walk depends on its own past and stays a
loop, but of a few device operations per instance and without a host synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from panoptic_ros.ops.masks import Mask


def merge_panoptic(
    masks: Iterable[Mask | Tensor],
    stuff: Tensor,
    overlap_threshold: float,
    used: Tensor | None = None,
) -> Tensor:
    """Merge overlapping instance masks and a stuff map into one map of slots.

    An instance is skipped when its area is 0 or when strictly more than ``overlap_threshold`` of
    it is already painted, as in panopticapi. The area limit of stuff is applied where the label
    image is encoded, since what stuff gets here is final.

    Args:
        masks: N masks, best score first, bool (H, W) or a part of it: a tensor (N, H, W), or
            whatever makes them one by one, so that they need not exist at once.
        stuff: Any integer, (H, W): 0 for no stuff, k for stuff slot k - 1.
        overlap_threshold: 0..1.
        used: bool, (N,), which masks take part, if not all.

    Returns:
        int32, (H, W): 0 for void, i + 1 for mask i, N + k for stuff k.
    """
    owner = torch.zeros_like(stuff, dtype=torch.int16)
    number = 0
    for mask in masks:
        number += 1
        inside, rows, columns = mask if isinstance(mask, Mask) else Mask.whole(mask)
        painted = owner[rows, columns]
        if used is not None:
            inside = inside & used[number - 1]
        own = inside & (painted == 0)
        area = torch.count_nonzero(inside)
        covered = area - torch.count_nonzero(own)
        own &= (area > 0) & (covered <= overlap_threshold * area)
        painted.masked_fill_(own, number)
    stuff = stuff.to(torch.int16)
    return torch.where(owner > 0, owner, torch.where(stuff > 0, stuff + number, 0)).int()
