"""Random changes of training images that keep id map, boxes and crowds in step.

Geometry acts on image and slot map alike, through torchvision.transforms.v2; boxes are measured
anew from the slot map, so that they are tight after any crop, and segments that left the image
are dropped. All chance comes from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import Image, Mask

from panoptic_ros.data.targets import compact_target
from panoptic_ros.truth import PanopticTarget

Sample = tuple[Tensor, PanopticTarget]  # uint8, (3, H, W), and its truth
CROP_ATTEMPTS = 50  # of crops that would keep nothing, as in SSD


def resize(image: Tensor, target: PanopticTarget, size: Sequence[int]) -> Sample:
    """Scale the image (bilinear, antialiased) and its truth (nearest) to (height, width)."""
    nearest = InterpolationMode.NEAREST_EXACT  # NEAREST, a Mask's only choice, shifts the truth
    slots = functional.resize(target.slots[None], list(size), interpolation=nearest)[0]
    return functional.resize(image, list(size), antialias=True), with_slots(target, slots)


def crop(
    image: Tensor, target: PanopticTarget, top: int, left: int, size: Sequence[int]
) -> Sample:
    """Cut out (height, width) from (top, left); beyond the image it is black and void."""
    window = (top, left, *size)
    slots = functional.crop(Mask(target.slots), *window)
    return functional.crop(image, *window), with_slots(target, slots)


def centered(target: PanopticTarget, top: int, left: int, size: Sequence[int]) -> Tensor:
    """Tell which segments have the centre of their box inside a crop, not on its edge: bool, (S,).

    Args:
        target: The truth before the crop.
        top: First row of the crop.
        left: First column of the crop.
        size: Its (height, width).
    """
    centers = (target.boxes[:, :2] + target.boxes[:, 2:]) / 2
    low = centers.new_tensor((left, top))
    high = centers.new_tensor((left + size[1], top + size[0]))
    return ((low < centers) & (centers < high)).all(1)


def flip(image: Tensor, target: PanopticTarget) -> Sample:
    """Mirror image and truth left to right."""
    slots = functional.horizontal_flip(Mask(target.slots))
    return functional.horizontal_flip(image), with_slots(target, slots)


def with_slots(target: PanopticTarget, slots: Tensor) -> PanopticTarget:
    """Return the truth for a changed slot map (H', W') of the same segments."""
    return compact_target(
        slots.as_subclass(Tensor), target.class_ids, target.is_thing, target.is_crowd
    )


@dataclass(frozen=True)
class Augmentation:
    """The random changes of a training recipe, in the order of the fields.

    Attributes:
        scale: Range of the factor by which image and truth are scaled (FPSNet 0.5..1.5, dense
            detection 0.7..1.3, Panoptic FCN 0.5..2 on Cityscapes).
        short_sides: Instead: lengths in pixels, of which one becomes the shorter side.
        long_side: Limit of the longer side with ``short_sides``.
        square: With ``short_sides``: both sides get that length (EPSNet, FPSNet on VOC).
        crop_size: (height, width) of the result; smaller images are padded on the right and at
            the bottom, black and void. None keeps the scaled size.
        crop_on_instance: The crop contains the middle of a random instance where there is one
            (Panoptic FCN, dense detection); else it is anywhere.
        crop_drops_off_center: What has the centre of its box outside of the crop becomes void, and
            the crop is chosen such that something other than a crowd is left (EPSNet).
        flip: Probability of mirroring left to right.
        photometric: Distort brightness, contrast, saturation and hue (the SSD recipe).
        light: Other times of the day: a gamma of exp(-light..light) and a cast of colour, each
            channel times exp(-light..light / 4). 0 for none.
        paste: At most so many things of another image are pasted in; needs ``crop_size``.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    short_sides: tuple[int, ...] = ()
    long_side: int | None = None
    square: bool = False
    crop_size: tuple[int, int] | None = None
    crop_on_instance: bool = False
    crop_drops_off_center: bool = False
    flip: float = 0.5
    photometric: bool = True
    light: float = 0.0
    paste: int = 0

    def __post_init__(self) -> None:
        """Check the values; raises ValueError naming the field."""
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {self.scale}; expected 0 < lowest <= highest")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}; expected a probability 0..1")
        if (self.square or self.long_side) and not self.short_sides:
            raise ValueError("square and long_side need short_sides")
        needing = (self.crop_on_instance, self.crop_drops_off_center, self.paste)
        if any(needing) and not self.crop_size:
            raise ValueError("crop_on_instance, crop_drops_off_center and paste need crop_size")
        if self.light < 0 or self.paste < 0:
            raise ValueError(f"light is {self.light}, paste {self.paste}; expected 0 or more")

    def __call__(self, image: Tensor, target: PanopticTarget) -> Sample:
        """Return a changed copy of an image, uint8 (3, H, W), and of its truth."""
        image = image.as_subclass(Image)
        size = self._scaled_size(image.shape[-2:])
        if size != tuple(image.shape[-2:]):
            image, target = resize(image, target, size)
        if self.crop_size:
            image, target = self._crop(image, target)
        if torch.rand(()) < self.flip:
            image, target = flip(image, target)
        if self.photometric:
            image = v2.RandomPhotometricDistort()(image)
        if self.light:
            image = relit(image, self.light)
        return image.as_subclass(Tensor), target

    def _scaled_size(self, size: Sequence[int]) -> tuple[int, int]:
        height, width = size
        if self.short_sides:
            side = self.short_sides[_random_below(len(self.short_sides))]
            if self.square:
                return side, side
            factor = side / min(height, width)
            if self.long_side:
                factor = min(factor, self.long_side / max(height, width))
        else:
            lowest, highest = self.scale
            factor = lowest + (highest - lowest) * torch.rand(()).item()
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _crop(self, image: Tensor, target: PanopticTarget) -> Sample:
        for _ in range(CROP_ATTEMPTS):
            top, left = self._crop_corner(image.shape[-2:], target)
            if not self.crop_drops_off_center:
                return crop(image, target, top, left, self.crop_size)
            kept = centered(target, top, left, self.crop_size)
            if (kept & ~target.is_crowd).any():
                break
        number = torch.where(kept, torch.arange(1, len(kept) + 1), 0)
        slots = torch.cat((number.new_zeros(1), number))[target.slots]
        return crop(image, replace(target, slots=slots), top, left, self.crop_size)

    def _crop_corner(self, size: Sequence[int], target: PanopticTarget) -> tuple[int, int]:
        """Choose where the crop begins: at 0 along a side that is not longer than the crop."""
        corner = [
            (0, max(0, side - wanted)) for side, wanted in zip(size, self.crop_size, strict=True)
        ]
        instances = target.instances
        if self.crop_on_instance and len(instances):
            x1, y1, x2, y2 = target.boxes[instances[_random_below(len(instances))]].tolist()
            middle = (int(y1 + y2) // 2, int(x1 + x2) // 2)
            corner = [
                (max(low, point - wanted + 1), min(high, point))
                for (low, high), point, wanted in zip(corner, middle, self.crop_size, strict=True)
            ]
        top, left = (low + _random_below(high - low + 1) for low, high in corner)
        return top, left


def relit(image: Tensor, strength: float) -> Tensor:
    """Return an image, uint8 (3, H, W), as at another time of the day; see ``Augmentation``."""
    gamma = torch.empty(()).uniform_(-strength, strength).exp()
    cast = torch.empty(3, 1).uniform_(-strength / 4, strength / 4).exp()
    levels = torch.linspace(0, 1, 256) ** gamma * cast * 255
    table = levels.round().clamp(max=255).to(torch.uint8)
    return torch.stack([row[channel.long()] for row, channel in zip(table, image, strict=True)])


def _random_below(number: int) -> int:
    return int(torch.randint(number, ()))
