"""What a frame consists of on a device, and the ways to compute it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from panoptic_ros.engines.base import Engine, Forward
from panoptic_ros.ops.segments import EncodedSegments
from panoptic_ros.truth import FrameSize, PredictionOptions


@dataclass(frozen=True)
class Thresholds:
    """PredictionOptions as scalars on the device: 0-dimensional tensors."""

    score_threshold: Tensor
    overlap_threshold: Tensor
    stuff_area_limit: Tensor

    @classmethod
    def on(cls, device: torch.device) -> Thresholds:
        """Make them, of no value yet."""
        score, overlap = torch.zeros(2, device=device).unbind()
        return cls(score, overlap, torch.zeros((), dtype=torch.int64, device=device))

    def set(self, options: PredictionOptions) -> None:
        """Take the values of options over, in the order of the stream."""
        for field in fields(self):
            getattr(self, field.name).fill_(getattr(options, field.name))


class ImageKind(NamedTuple):
    """All of an image that a graph depends on.

    Attributes:
        size: (height, width).
        is_bgr: Order of its channels in memory.
        output: (height, width) of its label image.
    """

    size: tuple[int, int]
    is_bgr: bool
    output: tuple[int, int]


Prepare = Callable[[Sequence[Tensor]], tuple[Tensor, list[FrameSize]]]
Encode = Callable[[Mapping[str, Tensor], Sequence[FrameSize], Thresholds], list[EncodedSegments]]


@dataclass(frozen=True)
class FrameSteps:
    """What a frame consists of, for one image.

    Attributes:
        prepare: From uint8 images (H, W, 3), RGB, to the network's input and their sizes.
        encode: From what ``forward`` returned to label images and tables.
    """

    prepare: Prepare
    encode: Encode

    def prepared(self, pixels: Tensor, kind: ImageKind) -> tuple[Tensor, list[FrameSize]]:
        """Make the network's input of an image, uint8 (H, W, 3), as it lies in memory."""
        batch, (size,) = self.prepare([pixels.flip(-1) if kind.is_bgr else pixels])
        return batch, [FrameSize(size.valid, kind.output)]


class Way(NamedTuple):
    """How the steps of a frame are computed."""

    name: str
    prepared: Callable[[Tensor, ImageKind], tuple[Tensor, list[FrameSize]]]
    forward: Forward
    encode: Encode

    @classmethod
    def all_of(cls, engine: Engine, steps: FrameSteps) -> list[Way]:
        """Return those that an engine knows, the fastest first."""
        ways = [
            cls(name, steps.prepared, forward, steps.encode)
            for name, forward in engine.capturable()
        ]
        if ways and (compiled := engine.compiler()):
            name, _, forward, _ = ways[0]
            whole = (compiled(steps.prepared), forward, compiled(steps.encode))
            ways = [cls(name, *whole), ways[0]._replace(name=f"{name}, forward only"), *ways[1:]]
        return ways
