"""Images to the device, label images and tables from it: all that crosses the bus."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.ops.segments import EncodedSegments


def as_stored(image: np.ndarray) -> tuple[np.ndarray, bool]:
    """Check an image, uint8 (H, W, 3); return it as it lies in memory and whether that is BGR."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"image is {image.dtype} with shape {image.shape}; expected uint8 (height, width, 3)"
        )
    is_bgr = image.strides[2] < 0  # an RGB view of BGR memory: turned on the device
    if is_bgr:
        image = image[..., ::-1]
    return (image.copy() if min(image.strides) < 0 else image), is_bgr


def upload(image: np.ndarray, device: torch.device) -> Tensor:
    """Bring a uint8 (H, W, 3) image to the device; returns it in RGB."""
    image, is_bgr = as_stored(image)
    if not image.flags.writeable:  # torch cannot wrap it
        image = image.copy()
    uploaded = torch.from_numpy(image).to(device)
    return uploaded.flip(-1) if is_bgr else uploaded


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
        torch.cuda.current_stream(encoded[0].labels.device).synchronize()
    return [(labels.numpy().view(np.uint16), table.numpy()) for labels, table in host]
