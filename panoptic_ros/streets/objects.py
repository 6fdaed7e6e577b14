"""The objects of a street, which know where they are in it and how to paint themselves.

Street frame: x to the right of the centre line, s along the street, in metres.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from panoptic_ros.streets import facades, people, surroundings, vehicles
from panoptic_ros.streets.canvas import Canvas

CAR, PERSON, BICYCLIST = 9, 10, 11


class View(Protocol):
    """What an object needs to know to draw itself in a frame."""

    def ground(self, x: float, s: float) -> tuple[float, float]:
        """Return (x, z) of the ground frame."""

    def slope(self, s: float) -> float:
        """Return the direction of the street there, in radians to the right."""


@dataclass(frozen=True)
class Lot:
    """A stretch of one side of the street: building, garden and border towards the sidewalk.

    ``side`` is -1 or 1; ``line`` and ``setback`` are distances from the centre line, of the
    border and of the building's front.
    """

    side: int
    s1: float
    s2: float
    line: float
    setback: float
    depth: float
    facade: int | None
    tint: tuple[float, float, float]
    gabled: bool
    border: str | None
    border_variant: int
    border_height: float
    trees: tuple[tuple[float, float, float, str, int], ...]

    @property
    def far(self) -> float:
        """Where along the street it is painted: before all that stands in front of it."""
        return self.s2

    @property
    def height(self) -> float:
        """Of the building, 0 where there is none."""
        return 0.0 if self.facade is None else facades.facade(self.facade).height

    def draw(self, canvas: Canvas, view: View) -> None:
        """Paint it from the back to the front."""
        middle = view.ground(self.side * max(self.line, self.setback), (self.s1 + self.s2) / 2)
        if not canvas.in_view(*middle, self.s2 - self.s1 + self.depth):
            return
        if self.facade is not None:
            near = view.ground(self.side * self.setback, self.s1)
            far = view.ground(self.side * self.setback, self.s2)
            back = view.ground(self.side * (self.setback + self.depth), self.s1)
            outward = (back[0] - near[0], back[1] - near[1])
            surroundings.draw_building(
                canvas, near, far, outward, self.facade, self.tint, self.gabled
            )
        for x, s, height, kind, variant in self.trees:
            surroundings.draw_tree(canvas, view.ground(x, s), height, kind, variant)
        if self.border:
            near, far = (view.ground(self.side * self.line, s) for s in (self.s1, self.s2))
            surroundings.draw_border(
                canvas,
                near,
                far,
                self.side < 0,
                self.border,
                self.border_variant,
                self.border_height,
            )


@dataclass(frozen=True)
class Fixture:
    """Street furniture or a street tree: ``paint`` is called with the canvas and (x, z)."""

    x: float
    far: float
    paint: partial
    radius: float = 2.5
    tree_height: float = 0.0

    def draw(self, canvas: Canvas, view: View) -> None:
        """Paint it."""
        place = view.ground(self.x, self.far)
        if canvas.in_view(*place, self.radius):
            self.paint(canvas, place)


@dataclass(frozen=True)
class Vehicle:
    """A vehicle at (x, far); ``heading`` is relative to the street."""

    number: int
    x: float
    far: float
    heading: float
    kind: int
    paint: tuple[int, int, int]
    lamps: float

    def draw(self, canvas: Canvas, view: View) -> None:
        """Paint it as an instance, unless it is too small to be told."""
        place = view.ground(self.x, self.far)
        shape = vehicles.SHAPES[self.kind]
        if not visible(canvas, place, shape.height, shape.length / 2):
            return
        slot = canvas.thing(CAR << 16 | self.number, CAR)
        if slot:
            heading = self.heading + view.slope(self.far)
            vehicles.draw_vehicle(canvas, slot, self.kind, self.paint, place, heading, self.lamps)


@dataclass(frozen=True)
class Human:
    """Someone at (x, far), on foot or on a bicycle; ``phase`` of the legs in radians."""

    number: int
    x: float
    far: float
    heading: float
    look: people.Look
    phase: float
    cycling: bool = False

    def draw(self, canvas: Canvas, view: View) -> None:
        """Paint them as an instance, unless they are too small to be told."""
        place = view.ground(self.x, self.far)
        if not visible(canvas, place, 1.7, 1.0):
            return
        category = BICYCLIST if self.cycling else PERSON
        slot = canvas.thing(category << 16 | self.number, category)
        if slot:
            heading = self.heading + view.slope(self.far)
            draw = people.draw_cyclist if self.cycling else people.draw_person
            draw(canvas, slot, self.look, place, heading, self.phase)


def visible(canvas: Canvas, place: tuple[float, float], height: float, radius: float) -> bool:
    """Whether an object at (x, z) may be in the image, and tall enough in it to matter."""
    camera = canvas.camera
    tall = camera.focal * height > max(5.0, 0.03 * camera.size[0]) * place[1]
    return tall and canvas.in_view(*place, radius)


def random_vehicle(
    rng: random.Random, number: int, x: float, s: float, heading: float, lamps: float
) -> Vehicle:
    """Return a vehicle of random kind and colour."""
    kind = rng.choices(range(len(vehicles.SHAPES)), (24, 14, 18, 12, 12, 12, 4))[0]
    paint = rng.choice(vehicles.PAINTS)
    if kind == vehicles.BUS:
        paint = rng.choice(((170, 24, 26), (30, 60, 120), (220, 220, 214), (40, 110, 70)))
    elif kind == vehicles.VAN and rng.random() < 0.6:
        paint = (228, 228, 226)
    return Vehicle(number, x, s, heading, kind, paint, lamps)


def random_look(rng: random.Random) -> people.Look:
    """Return a random body and clothes; every tenth is a child."""
    height = rng.uniform(1.0, 1.35) if rng.random() < 0.1 else rng.uniform(1.55, 1.92)
    return people.Look(
        height,
        rng.uniform(0.9, 1.25),
        rng.choice(people.CLOTHES),
        rng.choice(people.TROUSERS),
        rng.choice(people.SKINS),
        rng.choice(people.HAIRS),
        rng.random() < 0.25,
        rng.random() < 0.12,
    )
