"""Modulated deformable 3x3 convolution (Zhu et al., Deformable ConvNets v2, CVPR 2019, Eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

_HALF = (torch.bfloat16, torch.float16)


def deformable_convolution(
    x: Tensor, offsets_and_mask: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Convolve where the offsets point to, with stride 1 and padding 1.

    Args:
        x: (B, C, H, W), float32, bfloat16 or float16.
        offsets_and_mask: (B, 27, H, W): vertical and horizontal offset of each of the nine taps
            in turn, then the logit of each tap's modulation.
        weight: (O, C, 3, 3).
        bias: (O,), or none.

    Returns:
        (B, O, H, W) in the type of ``x``, summed in float32.
    """
    if x.device.type == "cuda" and x.dtype in _HALF and not torch.is_grad_enabled():
        from panoptic_ros.ops.deformable_triton import convolve_half

        return convolve_half(x, offsets_and_mask, weight, bias)
    offset, mask = offsets_and_mask.split((18, 9), dim=1)
    if x.dtype != torch.bfloat16:
        return deform_conv2d(x, offset, weight, bias, padding=1, mask=mask.sigmoid())
    # torchvision has no bfloat16 kernel
    wide = [None if item is None else item.float() for item in (x, offset, weight, bias)]
    return deform_conv2d(*wide, padding=1, mask=mask.float().sigmoid()).to(x.dtype)
