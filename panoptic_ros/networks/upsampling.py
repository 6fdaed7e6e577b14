"""From coarse logits to a full-size map of indices, without the full-size logits in between."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Floats of one tile: 64 MiB in float32.
_TILE_ELEMENTS = 2**24


def upsampled_argmax(logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Argmax over the channels of bilinearly up-sampled logits, in tiles of rows.

    The same as ``interpolate(logits, scale_factor=stride, mode="bilinear")`` (half-pixel
    centres), cropped to ``size``, then ``argmax``; in float32 whatever the dtype of the logits.

    Args:
        logits: (C, h, w), finite.
        stride: Up-sampling factor.
        size: Rows and columns to return, at most (h, w) * stride.

    Returns:
        int64, ``size``.
    """
    height, width = size
    logits = logits[:, :, : -(-width // stride) + 1]  # one column more: the last ones blend it in
    rows = max(1, _TILE_ELEMENTS // (logits.shape[0] * logits.shape[2] * stride * stride))
    tiles = []
    for top in range(0, -(-height // stride), rows):
        above = min(top, 1)
        tile = logits[None, :, top - above : top + rows + 1].float()
        tile = F.interpolate(tile, scale_factor=stride, mode="bilinear")[0]
        tile = tile[:, above * stride : (above + rows) * stride, :width]
        tiles.append(tile.max(dim=0).indices)  # on CPUs twice as fast as argmax
    return torch.cat(tiles)[:height]


def resize_nearest(indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map of indices (H, W) to ``size``, each pixel from the one nearest its centre."""
    if indices.shape == size:
        return indices
    lines = [
        ((torch.arange(new, device=indices.device) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for old, new in zip(indices.shape, size, strict=True)
    ]
    return indices[lines[0][:, None], lines[1]]
