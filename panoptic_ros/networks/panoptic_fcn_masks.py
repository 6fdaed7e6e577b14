"""From the kernels of Panoptic FCN to masks (Li et al., CVPR 2021, section 3.3, Eq. 5)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.base import FrameSize

STRIDE = 4  # of the encoded feature
_MASKS_AT_ONCE = 32  # at stride 4
_PIXELS_AT_ONCE = 2**24  # of up-sampled masks: 64 MiB in float32


def soft_masks(kernels: Tensor, encoding: Tensor) -> Tensor:
    """Convolve the encoded feature with kernels (Eq. 5).

    Args:
        kernels: float32, (..., C_e).
        encoding: (C_e, h, w), of any precision.

    Returns:
        Probabilities, float32, (..., h, w).
    """
    logits = kernels @ encoding.flatten(1).float()
    return logits.sigmoid().unflatten(-1, encoding.shape[1:])


def mask_scores(kernels: Tensor, encoding: Tensor, threshold: float) -> Tensor:
    """Average the soft mask of each kernel where it is above ``threshold``.

    Args:
        kernels: float32, (B, N, C_e).
        encoding: (B, C_e, h, w).
        threshold: 0..1.

    Returns:
        (B, N), 0 where no pixel is above.
    """
    images = []
    for weights, features in zip(kernels, encoding, strict=True):
        features = features.float()  # once, not for every chunk
        scores = []
        for chunk in weights.split(_MASKS_AT_ONCE):
            masks = soft_masks(chunk, features)
            inside = masks > threshold
            scores.append((masks * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6))
        images.append(torch.cat(scores))
    return torch.stack(images)


def enlarge(masks: Tensor, size: FrameSize) -> Iterator[Tensor]:
    """Up-sample soft masks (N, h, w) at stride 4 to ``size.output``, a few at a time.

    Bilinearly to the network input, whose padding is cut off, and from there to the output: the
    order matters to the last pixel.
    """
    (rows, columns), output = size
    if len(masks) == 0:
        return
    pixels = max(masks[0].numel() * STRIDE**2, output[0] * output[1])
    for chunk in masks.split(max(1, _PIXELS_AT_ONCE // pixels)):
        large = F.interpolate(chunk[None], scale_factor=STRIDE, mode="bilinear")
        large = large[..., :rows, :columns]
        if size.output != size.valid:
            large = F.interpolate(large, size=output, mode="bilinear")
        yield large[0]


def best_mask(masks: Tensor, values: Tensor, size: FrameSize) -> Tensor:
    """Return the value of the strongest mask of each pixel: int64, ``size.output``.

    Args:
        masks: Soft masks at stride 4, (N, h, w); without any, all pixels are 0.
        values: int64, (N,).
        size: Of the image.
    """
    strongest = masks.new_zeros(size.output)
    winner = torch.zeros(size.output, dtype=torch.int64, device=masks.device)
    start = 0
    for chunk in enlarge(masks, size):
        best, index = chunk.max(0)
        winner = torch.where(best > strongest, values[start : start + len(chunk)][index], winner)
        strongest = torch.maximum(strongest, best)
        start += len(chunk)
    return winner
