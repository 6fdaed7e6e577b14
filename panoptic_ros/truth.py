"""What a segmentation is before it is a label image: on the device, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


class FrameSize(NamedTuple):
    """Sizes of one image on its way: (rows, columns) each.

    Attributes:
        valid: The part of the network input that holds the image; the rest is padding.
        output: The label image to produce, which is the size of the camera image.
    """

    valid: tuple[int, int]
    output: tuple[int, int]


@dataclass(frozen=True)
class PredictionOptions:
    """Thresholds of ``predict`` that a user may turn at run time.

    Attributes:
        score_threshold: Instances below this score are dropped, 0..1.
        overlap_threshold: An instance is dropped when more than this part of it is already
            covered by better ones, 0..1. Networks whose masks cannot overlap ignore it.
        stuff_area_limit: Stuff classes with fewer pixels in the label image become void.
    """

    score_threshold: float = 0.5
    overlap_threshold: float = 0.5
    stuff_area_limit: int = 0

    def __post_init__(self) -> None:
        """Check the ranges; raises ValueError naming the option."""
        for name in ("score_threshold", "overlap_threshold"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}; expected 0..1")
        if self.stuff_area_limit < 0:
            raise ValueError(f"stuff_area_limit is {self.stuff_area_limit}; expected 0 or more")


class ClassLogits(NamedTuple):
    """What a network says of each class at each place, where its classes exclude each other.

    Attributes:
        logits: (C, h, w), any float type; their softmax over C is the probability.
        class_ids: int64, (C,): category id of each channel, 0 for what is no stuff class of its
            own. Things may share one or have several.
        covered: Rows and columns of the grid that lie under the image, perhaps broken ones; what
            is behind them is padding.
    """

    logits: Tensor
    class_ids: Tensor
    covered: tuple[float, float]


class SegmentMap(NamedTuple):
    """The segments of one image, in S fixed slots, on the device that made them.

    Attributes:
        slots: int32, (H, W): 0 is void, k belongs to slot k - 1.
        class_ids: int64, (S,): category id of each slot, 0 for an empty slot. A stuff class
            has at most one slot.
        scores: float32, (S,): confidence 0..1; 1 for stuff without a score of its own.
        logits: From which the stuff was chosen, in networks that have them.
    """

    slots: Tensor
    class_ids: Tensor
    scores: Tensor
    logits: ClassLogits | None = None


@dataclass
class PanopticTarget:
    """The truth of one training image, at the size of the network input (padding is void).

    Attributes:
        slots: int64, (H, W): 0 is void, k belongs to segment k - 1.
        class_ids: int64, (S,): category id of each segment.
        is_thing: bool, (S,).
        is_crowd: bool, (S,): groups of things that are not told apart.
        boxes: float32, (S, 4): tight (x1, y1, x2, y2) in pixels; x2 and y2 are exclusive.
    """

    slots: Tensor
    class_ids: Tensor
    is_thing: Tensor
    is_crowd: Tensor
    boxes: Tensor

    @property
    def instances(self) -> Tensor:
        """Indices (N,) of the segments that are single things (no stuff, no crowds)."""
        return torch.nonzero(self.is_thing & ~self.is_crowd).flatten()

    def masks(self, indices: Tensor) -> Tensor:
        """Return the masks of some segments: bool, (len(indices), H, W)."""
        return self.slots == (indices + 1)[:, None, None]

    def semantic(self) -> Tensor:
        """Return the category id of every pixel, crowds included: int64, (H, W), 0 is void."""
        return torch.cat((self.class_ids.new_zeros(1), self.class_ids))[self.slots]

    def to(self, device: torch.device | str) -> PanopticTarget:
        """Return the same truth on another device."""
        return PanopticTarget(**{k: v.to(device) for k, v in vars(self).items()})


class TargetBatch(NamedTuple):
    """The truth of B images of one size, with their S segments numbered through.

    What is looked up by segment is looked up in all images at once.

    Attributes:
        slots: int64, (B, H, W): 0 is void, k belongs to segment k - 1 of the batch.
        images: int64, (S,): the image of each segment; ascending.
        class_ids, is_thing, is_crowd, boxes: As in ``PanopticTarget``, (S, ...).
    """

    slots: Tensor
    images: Tensor
    class_ids: Tensor
    is_thing: Tensor
    is_crowd: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, targets: Sequence[PanopticTarget]) -> TargetBatch:
        """Join the truth of some images."""
        slots = torch.stack([target.slots for target in targets])
        number = [len(target.class_ids) for target in targets]
        first = torch.tensor([0, *accumulate(number)][:-1], device=slots.device)
        images = [image for image, count in enumerate(number) for _ in range(count)]
        return cls(
            torch.where(slots > 0, slots + first[:, None, None], 0),
            torch.tensor(images, dtype=torch.int64, device=slots.device),
            torch.cat([target.class_ids for target in targets]),
            torch.cat([target.is_thing for target in targets]),
            torch.cat([target.is_crowd for target in targets]),
            torch.cat([target.boxes for target in targets]),
        )

    @property
    def is_single(self) -> Tensor:
        """Which segments are single things (no stuff, no crowds): bool, (S,)."""
        return self.is_thing & ~self.is_crowd
