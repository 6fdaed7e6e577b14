"""From the kernels of Panoptic FCN to masks (Li et al., CVPR 2021, section 3.3, Eq. 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from panoptic_ros.ops.upsampling import Step, upsampled_argmax
from panoptic_ros.truth import FrameSize

STRIDE = 4  # of the encoded feature
_MASKS_AT_ONCE = 32  # at stride 4


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


def steps_to(size: FrameSize) -> list[Step]:
    """Return how masks at stride 4 are up-sampled.

    Bilinearly to the network input, whose padding is cut off, and from there to the output: the
    order matters to the last pixel.
    """
    steps = [Step((STRIDE, STRIDE), size.valid)]
    if size.output != size.valid:
        steps.append(Step.to(size.output, size.valid))
    return steps


def best_mask(masks: Tensor, values: Tensor, size: FrameSize) -> Tensor:
    """Return the value of the strongest mask of each pixel: int16, ``size.output``.

    Args:
        masks: Soft masks at stride 4, (N, h, w); without any, all pixels are 0.
        values: int, (N,).
        size: Of the image.
    """
    nothing = masks.new_zeros(1, *masks.shape[1:])
    index = upsampled_argmax(torch.cat((nothing, masks)), *steps_to(size))
    values = torch.cat((values.new_zeros(1), values)).to(index.dtype)
    return values.index_select(0, index.flatten().int()).view(size.output)
