"""What a network wants its input to look like, and how camera images get there on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from panoptic_ros.truth import FrameSize

CHANNEL_ORDERS = ("rgb", "bgr")
RESIZE_MODES = ("letterbox", "stretch")


@dataclass(frozen=True)
class InputFormat:
    """The input of a trained network.

    Attributes:
        resolution: (height, width) that the network sees by default.
        channel_order: ``rgb`` or ``bgr``.
        scale: Factor on the 0..255 values before ``mean`` and ``std``; not 0.
        mean: Subtracted per channel, in ``channel_order``.
        std: Divisor per channel, in ``channel_order``.
        resize: ``letterbox`` keeps the aspect ratio and pads on the right and at the bottom with
            the mean colour; ``stretch`` fills the resolution.
    """

    resolution: tuple[int, int]
    channel_order: str = "rgb"
    scale: float = 1.0
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    resize: str = "letterbox"

    def __post_init__(self) -> None:
        """Check the fields; raises ValueError naming the one that does not fit."""
        if len(self.resolution) != 2 or min(self.resolution) < 1:
            raise ValueError(f"resolution is {self.resolution}; expected [height, width]")
        if self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order is {self.channel_order!r}; expected rgb or bgr")
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize is {self.resize!r}; expected letterbox or stretch")
        if len(self.mean) != 3 or len(self.std) != 3 or 0 in self.std:
            raise ValueError(f"mean {self.mean} and std {self.std} need 3 values, std not 0")
        if self.scale == 0:
            raise ValueError("scale is 0; expected a factor such as 1 or 1/255")

    def normalise(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Turn RGB images 0..255, (..., 3, H, W), into the network's colours.

        One channel after the other, without tensors in between: several times as fast.

        Args:
            images: uint8 or float.
            out: Where to write, of the same shape; float32 of its own if None.
        """
        if out is None:
            out = torch.empty(images.shape, dtype=torch.float32, device=images.device)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            source = 2 - channel if self.channel_order == "bgr" else channel
            target = out.select(-3, channel)
            torch.sub(images.select(-3, source), mean / self.scale, out=target)
            target.mul_(self.scale / std)
        return out

    def _normalised(self, images: Tensor) -> Tensor:
        """Do what ``normalise`` does, for compilers, which make one kernel of it."""
        planes = images.float().unbind(-3)
        planes = planes[::-1] if self.channel_order == "bgr" else planes
        return torch.stack(
            [
                (plane - mean / self.scale) * (self.scale / std)
                for plane, mean, std in zip(planes, self.mean, self.std, strict=True)
            ],
            dim=-3,
        )

    def fit(self, image_size: tuple[int, int], resolution: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that an image takes within ``resolution``."""
        if self.resize == "stretch":
            return resolution
        factor = min(resolution[0] / image_size[0], resolution[1] / image_size[1])
        return (
            min(resolution[0], max(1, round(image_size[0] * factor))),
            min(resolution[1], max(1, round(image_size[1] * factor))),
        )

    def prepare(
        self,
        images: Sequence[Tensor],
        resolution: tuple[int, int],
        padded: tuple[int, int],
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> tuple[Tensor, list[FrameSize]]:
        """Resize, normalise and pad images into one batch, on the device they are on.

        Args:
            images: uint8, (H, W, 3) each, RGB; sizes may differ.
            resolution: (height, width) that the images are fitted into.
            padded: (height, width) of the batch, at least ``resolution``.
            dtype: Of the batch.
            memory_format: Of the batch.

        Returns:
            The batch (B, 3, *padded) and the sizes of each image on its way.
        """
        shape, device = (len(images), 3, *padded), images[0].device
        batch = torch.empty(shape, dtype=dtype, device=device, memory_format=memory_format).zero_()
        sizes = []
        for index, image in enumerate(images):
            height, width = image.shape[:2]
            valid = self.fit((height, width), resolution)
            resized = resize_image(image.permute(2, 0, 1)[None], valid)[0]
            place = batch[index, :, : valid[0], : valid[1]]
            if device.type == "cpu":
                self.normalise(resized, out=place)
            else:  # compilers know no such "out"
                place.copy_(self._normalised(resized))
            sizes.append(FrameSize(valid, (height, width)))
        return batch, sizes


def resize_image(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 images (B, 3, H, W) bilinearly, without aliasing when they shrink."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if images.is_cuda:  # torch resizes uint8 on the CPU only, where it is several times faster
        images = images.float()
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def parse_resolution(text: str) -> tuple[int, int] | None:
    """Read ``HEIGHTxWIDTH``; the empty string is None.

    Raises:
        ValueError: Something else.
    """
    if not text:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.strip().isdigit() and width.strip().isdigit()):
        raise ValueError(f"resolution is {text!r}; expected HEIGHTxWIDTH, for example 512x1024")
    return check_resolution((int(height), int(width)))


def check_resolution(resolution: tuple[int, int]) -> tuple[int, int]:
    """Return the resolution; raises ValueError outside 32..8192 pixels a side."""
    if not all(32 <= side <= 8192 for side in resolution):
        height, width = resolution
        raise ValueError(f"resolution is {height}x{width}; expected 32..8192 pixels a side")
    return tuple(resolution)
