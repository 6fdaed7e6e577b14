"""What a segmentation is: categories, segments, the label image and its encoding.

The label image holds ``class_id * LABEL_DIVISOR + instance`` per pixel. ``class_id`` is 1..255,
``instance`` is 1..255 for things and 0 for stuff; the value 0 is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LABEL_DIVISOR = 256
VOID = 0
MAX_CLASS_ID = 255
MAX_INSTANCES = LABEL_DIVISOR - 1


@dataclass(frozen=True)
class Category:
    """One class of a model: ``id`` 1..255, display ``color`` as (red, green, blue) 0..255."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]


def check_categories(categories: Sequence[Category]) -> tuple[Category, ...]:
    """Return the categories as a tuple.

    Raises:
        ValueError: No category at all, an id out of 1..255, or an id given twice.
    """
    if not categories:
        raise ValueError("a model needs at least one category, got none")
    seen: set[int] = set()
    for category in categories:
        if not 1 <= category.id <= MAX_CLASS_ID:
            raise ValueError(
                f"category {category.name!r} has id {category.id}; ids are 1..{MAX_CLASS_ID}, "
                "0 is void"
            )
        if category.id in seen:
            raise ValueError(f"category id {category.id} ({category.name!r}) is given twice")
        seen.add(category.id)
    return tuple(categories)


def category_fields(categories: Iterable[Category]) -> list[dict[str, Any]]:
    """Return a class table as COCO's panoptic JSON and model.yaml write it."""
    return [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
        for c in categories
    ]


def find_categories(categories: Sequence[Category], wanted: Iterable[str]) -> tuple[int, ...]:
    """Return the ids of the categories that are meant by their name, or by their id as text.

    Raises:
        ValueError: There is no such category.
    """
    by_name = {str(c.id): c.id for c in categories} | {c.name: c.id for c in categories}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        known = ", ".join(f"{c.name} ({c.id})" for c in categories)
        raise ValueError(f"no class {', '.join(map(repr, unknown))}; there are: {known}")
    return tuple(by_name[name] for name in wanted)


@dataclass(frozen=True)
class Segment:
    """One segment of a label image.

    Attributes:
        id: Its value in the label image, so that its mask is ``labels == id``.
        class_id: Category id, 1..255.
        class_name: Category name.
        is_thing: Whether it is an instance of a thing, or all pixels of a stuff class.
        score: Confidence 0..1; 1.0 for stuff of networks that give stuff no score.
        area: Number of pixels.
        bbox: Tight box of those pixels, (x, y, width, height).
        center: Centre of mass of those pixels (x, y); (0, 0) is the centre of the first pixel.
    """

    id: int
    class_id: int
    class_name: str
    is_thing: bool
    score: float
    area: int
    bbox: tuple[int, int, int, int]
    center: tuple[float, float]


@dataclass(frozen=True)
class Box:
    """What is visible of an instance, in space: a box along the axes of the camera's frame.

    Attributes:
        center: (x, y, z) in metres: to the right, down, forward.
        size: Its extents along them, in metres.
    """

    center: tuple[float, float, float]
    size: tuple[float, float, float]


@dataclass(frozen=True)
class Track:
    """What is known of an instance from the images before.

    Attributes:
        number: 1 and above; the same thing has the same one in other images of its camera.
        age: Images in which it was seen, this one included.
        first_seen: Stamp of the first of them, in nanoseconds.
    """

    number: int
    age: int
    first_seen: int


@dataclass(frozen=True)
class PanopticPrediction:
    """The panoptic segmentation of one image.

    Attributes:
        labels: uint16, (H, W), the size of the image; encoding in this module's docstring.
        segments: Things first, by score, best first; then stuff by class id. Each has an area
            above 0, and each value in ``labels`` but void is one segment's id.
        categories: The model's class table.
        overflow: Instances beyond ``MAX_INSTANCES`` of one class. Their pixels carry instance 0
            of their class; together they make one segment, which is not a stuff segment.
        timings: Seconds per stage of the call that made this prediction (of its whole batch).
        confidence: uint8, (H, W), of every pixel, 0..255 for 0..1; None where nobody asked for
            it. A thing has the score of its segment. Stuff has the probability of its class at
            the pixel in networks that predict one (all but Panoptic FCN, where it has the score
            of its segment). Void has 0.
        tracks: By id of the instance; empty unless a ``tracking.Tracker`` follows them.
    """

    labels: np.ndarray
    segments: tuple[Segment, ...]
    categories: tuple[Category, ...]
    overflow: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    confidence: np.ndarray | None = None
    tracks: Mapping[int, Track] = field(default_factory=dict)

    @property
    def instances(self) -> tuple[Segment, ...]:
        """The thing segments that have an instance number of their own, best first."""
        return tuple(s for s in self.segments if s.is_thing and s.id % LABEL_DIVISOR)

    def semantic(self) -> np.ndarray:
        """Return the class id of every pixel: uint8, (H, W), 0 is void."""
        return (self.labels // LABEL_DIVISOR).astype(np.uint8)

    def mask(self, class_ids: Iterable[int]) -> np.ndarray:
        """Return where the pixels are of some classes: uint8, (H, W), 255 there, else 0."""
        shown = np.zeros(MAX_CLASS_ID + 1, np.uint8)
        shown[list(class_ids)] = 255
        return shown[self.labels // LABEL_DIVISOR]

    def confidence_or_scores(self) -> np.ndarray:
        """Return ``confidence``; where nobody asked for it, the score of each pixel's segment."""
        if self.confidence is not None:
            return self.confidence
        score = np.zeros(LABEL_DIVISOR * (MAX_CLASS_ID + 1), np.uint8)
        for segment in self.segments:
            score[segment.id] = round(segment.score * 255)
        return score[self.labels]
