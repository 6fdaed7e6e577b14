"""Augmentation of a whole batch at once, on the device that the images are kept on.

One image at a time costs tens of milliseconds of a processor, which a GPU, or four networks that
train beside each other, would wait for. Here images stay decoded on the device, and a batch is a
fixed number of operations, whatever its size, and one wait: for the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from panoptic_ros.data.copy_paste import CONTEXT, EDGE
from panoptic_ros.data.views import GRAY, View
from panoptic_ros.truth import PanopticTarget


@dataclass(frozen=True)
class SegmentTable:
    """The segments of one image, on the host.

    Attributes:
        class_ids: int64, (S,).
        is_thing: bool, (S,).
        is_crowd: bool, (S,).
        boxes: float32, (S, 4), x1 y1 x2 y2.
    """

    class_ids: np.ndarray
    is_thing: np.ndarray
    is_crowd: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of(cls, target: PanopticTarget) -> SegmentTable:
        """Take it from a target."""
        return cls(*(getattr(target, name).cpu().numpy() for name in cls.__dataclass_fields__))

    @property
    def instances(self) -> np.ndarray:
        """Indices (N,) of the segments that are single things."""
        return np.flatnonzero(self.is_thing & ~self.is_crowd)

    def __add__(self, other: SegmentTable) -> SegmentTable:
        """Append the segments of another image."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return SegmentTable(*map(np.concatenate, pairs))


def see(
    images: Tensor, slots: Tensor, views: Sequence[View], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return what the views show.

    Args:
        images: uint8, (B, 3, H, W), RGB; black beyond an image that is smaller.
        slots: int16, (B, H, W); 0 beyond it.
        views: One for each.
        size: (height, width) of the result.

    Returns:
        float32 images (B, 3, *size), 0..255, and int64 slots (B, *size).
    """
    device = images.device
    matrices = np.stack([view.matrix(images.shape[-2:]) for view in views])
    grid = F.affine_grid(_send(matrices, device), [len(views), 1, *size], align_corners=False)
    seen = F.grid_sample(images.float(), grid, "bilinear", align_corners=False)
    numbers = F.grid_sample(slots[:, None].float(), grid, "nearest", align_corners=False)
    return _relit(seen, views), numbers[:, 0].long()


def _relit(images: Tensor, views: Sequence[View]) -> Tensor:
    """Apply colours, contrast, gamma and cast: float32, (B, 3, H, W), 0..255."""
    numbers = [[*v.colors.flatten(), v.contrast, v.gamma, *v.cast] for v in views]
    table = _send(np.array(numbers), images.device)
    colors, (contrast, gamma, cast) = table[:, :9].view(-1, 3, 3), table[:, 9:].split([1, 1, 3], 1)
    pixels = torch.bmm(colors, images.flatten(2))  # (B, 3, H * W)
    gray = pixels.mean(2, keepdim=True).mul(_send(GRAY[:, None], images.device)).sum(1, True)
    pixels = torch.lerp(gray.expand_as(pixels), pixels, contrast[..., None]).clamp(0, 255)
    levels = (pixels / 255) ** gamma[..., None] * cast[..., None] * 255
    return levels.clamp(0, 255).view_as(images)


def paste(
    images: Tensor,
    slots: Tensor,
    others: Tensor,
    other_slots: Tensor,
    chosen: Sequence[np.ndarray],
    segments: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Paste things of other images; ``copy_paste.paste_things`` for a batch.

    Args:
        images: float32, (B, 3, H, W).
        slots: int64, (B, H, W).
        others: float32, (B, 3, H, W).
        other_slots: int64, (B, H, W).
        chosen: Indices of the segments of each other image to paste.
        segments: Number of segments of each image, which those of the other one are added to.

    Returns:
        Images and slots.
    """
    number = int(max(map(np.max, filter(len, chosen)), default=0)) + 2
    table = np.zeros((len(chosen), number), bool)
    for row, indices in zip(table, chosen, strict=True):
        row[indices + 1] = True
    table = torch.from_numpy(table).to(images.device)
    known = other_slots.clamp(max=number - 1)
    inside = table.gather(1, known.flatten(1)).view_as(slots) & (known == other_slots)
    inside &= inside.float().mean((1, 2), keepdim=True) <= CONTEXT
    weight = gaussian_blur(inside[:, None].float(), [EDGE, EDGE])
    offset = torch.tensor(segments, device=slots.device)[:, None, None]
    return torch.lerp(images, others, weight), torch.where(inside, other_slots + offset, slots)


def make_targets(slots: Tensor, tables: Sequence[SegmentTable]) -> list[PanopticTarget]:
    """Return the truth of a batch: ``targets.compact_target`` for all of it, with one wait.

    Args:
        slots: int64, (B, H, W): 0 is void, k belongs to entry k - 1 of that image's table.
        tables: One for each image; their boxes are measured anew.
    """
    most = max(len(table.class_ids) for table in tables)
    extents = _extents(slots, most).cpu().numpy()  # (B, most, 4)
    present = extents[..., 2] > extents[..., 0]
    numbers = np.where(present, present.cumsum(1), 0)
    renumber = torch.from_numpy(np.pad(numbers, ((0, 0), (1, 0)))).to(slots.device)
    slots = renumber.gather(1, slots.flatten(1)).view_as(slots)
    rows = []
    for table, boxes, kept in zip(tables, extents, present, strict=True):
        columns = [table.class_ids, table.is_thing, table.is_crowd]
        count = len(table.class_ids)
        rows.append(np.column_stack((*columns, boxes[:count]))[kept[:count]])
    sent = _send(np.concatenate(rows), slots.device).split([len(row) for row in rows])
    return [
        PanopticTarget(
            slots=image,
            class_ids=row[:, 0].long(),
            is_thing=row[:, 1] > 0,
            is_crowd=row[:, 2] > 0,
            boxes=row[:, 3:],
        )
        for image, row in zip(slots, sent, strict=True)
    ]


def _extents(slots: Tensor, most: int) -> Tensor:
    """Return tight boxes, int64, (B, most, 4), x1 y1 x2 y2; without a pixel x2 is x1."""
    height, width = slots.shape[1:]
    rows = torch.arange(height, device=slots.device)[:, None]
    columns = torch.arange(width, device=slots.device)
    y1, y2 = _extent(slots * height + rows, most, height)
    x1, x2 = _extent(slots * width + columns, most, width)
    return torch.stack((x1, y1, x2, y2), dim=2)


def _extent(index: Tensor, most: int, lines: int) -> tuple[Tensor, Tensor]:
    """Return the first line of each slot but void, and the one after the last: (B, most)."""
    occupied = index.new_zeros((len(index), (most + 1) * lines), dtype=torch.uint8)
    occupied.scatter_(1, index.flatten(1), 1)
    occupied = occupied.view(len(index), most + 1, lines)[:, 1:]
    first = occupied.argmax(2)
    last = lines - occupied.flip(2).argmax(2)
    return first, torch.where(occupied.amax(2) > 0, last, first)


def _send(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)
