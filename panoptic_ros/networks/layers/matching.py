"""Which true box is the best of every anchor, in all images of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def image_numbers(of_image: Sequence[Tensor]) -> Tensor:
    """Return the image of each row of the images' joined tensors: int64, (G,)."""
    numbers = [image for image, rows in enumerate(of_image) for _ in range(len(rows))]
    return torch.tensor(numbers, dtype=torch.int64, device=of_image[0].device)


def best_of_image(iou: Tensor, images: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the best overlap of each anchor with a box of each image, and that box.

    Args:
        iou: (G, A), of the boxes of all images with the anchors, which all images share.
        images: int64, (G,), the image of each box.
        number: Of images, B.

    Returns:
        The overlap (B, A), -1 in images without boxes, and the first box that has it, int64,
        (B, A), 0..G - 1; G where there is none.
    """
    index = images[:, None].expand_as(iou)
    overlap = iou.new_full((number, iou.shape[1]), -1)
    overlap = overlap.scatter_reduce(0, index, iou, "amax")
    boxes = torch.arange(len(iou), device=iou.device)[:, None]
    boxes = boxes.where(iou == overlap[images], len(iou))
    best = torch.full_like(overlap, len(iou), dtype=torch.int64)
    return overlap, best.scatter_reduce(0, index, boxes, "amin")
