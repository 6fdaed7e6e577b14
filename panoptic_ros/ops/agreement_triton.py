"""The soft masks of dense detection on CUDA, without the agreement of every box and level."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_CELLS = 1024


@triton.jit
def _soft_masks(
    boxes, labels, dense, probability, soft, number, levels, cells_at_once: tl.constexpr
):
    """Multiply agreement and probability of one box in some cells."""
    box = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * cells_at_once + tl.arange(0, cells_at_once)
    there = cell < number
    x1 = tl.load(boxes + 4 * box)
    y1 = tl.load(boxes + 4 * box + 1)
    x2 = tl.load(boxes + 4 * box + 2)
    y2 = tl.load(boxes + 4 * box + 3)
    area = (x2 - x1) * (y2 - y1)
    best = tl.full([cells_at_once], float("-inf"), tl.float32)
    for level in range(0, levels):
        own = dense + (tl.cast(level, tl.int64) * number + cell) * 4
        u1 = tl.load(own, there, 0.0)
        v1 = tl.load(own + 1, there, 0.0)
        u2 = tl.load(own + 2, there, 0.0)
        v2 = tl.load(own + 3, there, 0.0)
        width = tl.maximum(tl.minimum(x2, u2) - tl.maximum(x1, u1), 0.0)
        height = tl.maximum(tl.minimum(y2, v2) - tl.maximum(y1, v1), 0.0)
        intersection = width * height
        union = area + (u2 - u1) * (v2 - v1) - intersection
        outer_width = tl.maximum(x2, u2) - tl.minimum(x1, u1)
        enclosing = outer_width * (tl.maximum(y2, v2) - tl.minimum(y1, v1)) + 1e-7
        overlap = (intersection + 1) / (union + 1)
        best = tl.maximum(best, overlap - (enclosing - union) / enclosing)
    of_class = probability + tl.load(labels + box) * number + cell
    value = best * tl.load(of_class, there, 0.0)
    tl.store(soft + box * number + cell, value, there)


@torch.library.custom_op("panoptic_ros::dense_soft_masks", mutates_args=())
def dense_soft_masks(boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor) -> Tensor:
    """Multiply agreement and class probability of all boxes (dense detection, eq. 7).

    Args:
        boxes: float32, (K, 4).
        labels: int64, (K,), thing class index.
        dense: float32, (D, h, w, 4).
        probability: float32, (N_things, h, w).

    Returns:
        float32, (K, h, w).
    """
    levels, *grid = dense.shape[:3]
    soft = torch.empty(len(boxes), *grid, dtype=torch.float32, device=boxes.device)
    number = soft[0].numel() if len(boxes) else 0
    if number:
        _soft_masks[(triton.cdiv(number, _CELLS), len(boxes))](
            boxes.contiguous(),
            labels.contiguous(),
            dense.contiguous(),
            probability.contiguous(),
            soft,
            number,
            levels,
            _CELLS,
        )
    return soft


@dense_soft_masks.register_fake
def _(boxes: Tensor, labels: Tensor, dense: Tensor, probability: Tensor) -> Tensor:
    return boxes.new_empty(len(boxes), *dense.shape[1:3])
