"""The panoptic merge of Kirillov et al. (Panoptic Segmentation, CVPR 2019, section 4.3).

Instances are walked by score; one that is mostly covered by better ones is dropped, the others
paint the pixels still free; stuff gets the rest. The walk depends on its own past: it is a loop of
a few operations per instance, or on CUDA the search for the accepted masks that agree with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from panoptic_ros.ops.constants import scalar
from panoptic_ros.ops.masks import EnlargedMasks, Mask
from panoptic_ros.ops.upsampling import ratios_of


def merge_panoptic(
    masks: Iterable[Mask | Tensor],
    stuff: Tensor,
    overlap_threshold: float | Tensor,
    used: Tensor | None = None,
    union: Tensor | None = None,
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
        union: bool, (H, W); becomes true where any mask is that takes part.

    Returns:
        int32, (H, W): 0 for void, i + 1 for mask i, N + k for stuff k.
    """
    if stuff.device.type != "cpu" and isinstance(masks, EnlargedMasks):
        return _merge_on_cuda(masks, stuff, overlap_threshold, used, union)
    return _merge_one_by_one(masks, stuff, overlap_threshold, used, union)


def _merge_one_by_one(
    masks: Iterable[Mask | Tensor],
    stuff: Tensor,
    overlap_threshold: float | Tensor,
    used: Tensor | None = None,
    union: Tensor | None = None,
) -> Tensor:
    """Walk the masks, the plain form."""
    owner = torch.zeros_like(stuff, dtype=torch.int16)
    number = 0
    for mask in masks:
        number += 1
        inside, rows, columns = mask if isinstance(mask, Mask) else Mask.whole(mask)
        painted = owner[rows, columns]
        if used is not None:
            inside = inside & used[number - 1]
        if union is not None:
            union[rows, columns] |= inside
        own = inside & (painted == 0)
        area = torch.count_nonzero(inside)
        covered = area - torch.count_nonzero(own)
        own &= (area > 0) & (covered <= overlap_threshold * area)
        painted.masked_fill_(own, number)
    stuff = stuff.to(torch.int16)
    return torch.where(owner > 0, owner, torch.where(stuff > 0, stuff + number, 0)).int()


def _merge_on_cuda(
    masks: EnlargedMasks,
    stuff: Tensor,
    overlap_threshold: float | Tensor,
    used: Tensor | None = None,
    union: Tensor | None = None,
) -> Tensor:
    """Do the same for all masks at once; what is up-sampled is never stored but as bits."""
    from panoptic_ros.ops.merging_triton import merge_soft_masks

    chunks = list(masks.soft)
    soft = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
    if used is None:
        used = torch.ones(len(soft), dtype=torch.bool, device=soft.device)
    limit = scalar(overlap_threshold, stuff.device)
    ratios = ratios_of(masks.steps, soft.shape[1:])
    between = list(masks.steps[0].size)
    merged, joined = merge_soft_masks(soft, used, stuff, limit, masks.threshold, ratios, between)
    if union is not None:
        union |= joined
    return merged
