"""Images to the device, label images and tables from it: all that crosses the bus."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.segments import EncodedSegments


def upload(image: np.ndarray, device: torch.device) -> Tensor:
    """Bring a uint8 (H, W, 3) image to the device; returns it in RGB."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"image is {image.dtype} with shape {image.shape}; expected uint8 (height, width, 3)"
        )
    if image.strides[2] < 0:  # an RGB view of BGR memory: turn the channels on the device
        return upload(image[..., ::-1], device).flip(-1)
    if min(image.strides) < 0 or not image.flags.writeable:  # what torch cannot wrap
        image = image.copy()
    return torch.from_numpy(image).to(device)


def download(encoded: list[EncodedSegments]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bring labels (as uint16) and tables to the host with one synchronisation."""
    host = []
    for tensors in encoded:
        pinned = tensors.labels.is_cuda
        copies = [torch.empty_like(t, device="cpu", pin_memory=pinned) for t in tensors]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=pinned)
        host.append(copies)
    if encoded[0].labels.is_cuda:
        torch.cuda.synchronize(encoded[0].labels.device)
    return [(labels.numpy().view(np.uint16), table.numpy()) for labels, table in host]
