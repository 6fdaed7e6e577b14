"""People who walk or stand, and cyclists: skeletons of round bars, in perspective.

Local frame: x to the right, y up, z the way they face, in metres; the origin is on the ground.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panoptic_ros.streets.canvas import Bar, Canvas

CLOTHES = (
    (28, 28, 32), (46, 48, 58), (34, 40, 66), (72, 62, 54), (96, 92, 88), (124, 30, 34),
    (196, 190, 180), (60, 84, 60), (150, 120, 84), (40, 70, 120), (206, 214, 40), (110, 60, 90),
)  # fmt: skip
TROUSERS = ((26, 28, 36), (38, 46, 72), (60, 56, 52), (112, 102, 84), (20, 20, 22))
SKINS = ((222, 180, 152), (200, 152, 120), (150, 104, 78), (96, 64, 48))
HAIRS = ((30, 24, 20), (70, 48, 30), (130, 104, 60), (150, 148, 144), (18, 18, 18))


@dataclass(frozen=True)
class Look:
    """Height in metres, build (1 is slim), colours (r, g, b), and what is carried along."""

    height: float
    build: float
    top: tuple[int, int, int]
    legs: tuple[int, int, int]
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    bag: bool
    skirt: bool


def draw_person(
    canvas: Canvas,
    slot: int,
    look: Look,
    place: tuple[float, float],
    heading: float,
    stride: float,
) -> None:
    """Draw someone on foot.

    Args:
        canvas: To draw on.
        slot: Of the segment.
        look: Body and clothes.
        place: (x, z) on the ground.
        heading: 0 walks away from us, positive to the right.
        stride: Phase of the walk in radians; not a number stands still.
    """
    figure = _Figure(canvas, slot, place, heading, look.height / 1.75)
    swing = 0.0 if math.isnan(stride) else math.sin(stride)
    b = look.build
    for side, reach in ((-0.09, swing), (0.09, -swing)):
        lift = 0.10 * max(0.0, -reach)
        knee = (side, 0.48 + lift / 2, 0.16 * reach + 0.05)
        foot = (side, 0.06 + lift, 0.34 * reach - 0.02)
        figure.bar([(side, 0.90, 0), knee, foot], 0.075 * b, look.legs)
        figure.bar([foot, (side, 0.05 + lift, foot[2] + 0.14)], 0.05, (24, 22, 22))
    if look.skirt:
        figure.bar([(0, 0.95, 0), (0, 0.62, 0)], 0.2 * b, look.legs)
    figure.bar([(0, 0.95, 0), (0, 1.36, 0)], 0.17 * b, look.top)
    figure.bar([(-0.14, 1.36, 0), (0.14, 1.36, 0)], 0.09 * b, look.top)
    dark = tuple(0.82 * c for c in look.top)
    for side, reach in ((-0.21 * b, -swing), (0.21 * b, swing)):
        hand = (side * 1.1, 0.86, 0.26 * reach + 0.06)
        figure.bar([(side, 1.38, 0), (side * 1.1, 1.10, 0.13 * reach), hand], 0.055 * b, dark)
        figure.bar([hand, (hand[0], 0.82, hand[2])], 0.05, look.skin)
    if look.bag:
        figure.bar([(0, 1.05, -0.18), (0, 1.32, -0.18)], 0.15, HAIRS[1])
    figure.head(1.62, look)
    figure.draw()


def draw_cyclist(
    canvas: Canvas, slot: int, look: Look, place: tuple[float, float], heading: float, pedal: float
) -> None:
    """Draw someone on a bicycle; ``pedal`` is the phase of the cranks in radians."""
    figure = _Figure(canvas, slot, place, heading, look.height / 1.75)
    frame = tuple(0.6 * c + 40 for c in look.legs)
    angle = np.linspace(0, 2 * np.pi, 15)
    for z in (-0.52, 0.52):
        ring = np.stack((0 * angle, 0.34 + 0.33 * np.sin(angle), z + 0.33 * np.cos(angle)), 1)
        figure.bar(ring, 0.025, (26, 26, 28))
    seat, crank, bars = (0, 0.92, -0.22), (0, 0.30, -0.05), (0, 1.02, 0.38)
    figure.bar([(0, 0.34, -0.52), seat, bars, crank, seat], 0.022, frame)
    figure.bar([(0, 0.34, -0.52), crank], 0.022, frame)
    figure.bar([(0, 0.34, 0.52), bars], 0.025, frame)
    figure.bar([(-0.26, 1.04, 0.36), (0.26, 1.04, 0.36)], 0.02, (30, 30, 30))
    for side, phase in ((-0.1, pedal), (0.1, pedal + math.pi)):
        foot = (side, 0.30 + 0.17 * math.sin(phase), -0.03 + 0.17 * math.cos(phase))
        knee = (side * 1.2, 0.72 + 0.13 * math.sin(phase), 0.16)
        figure.bar([(side, 0.96, -0.2), knee, foot], 0.07 * look.build, look.legs)
    figure.bar([(0, 0.98, -0.2), (0, 1.42, 0.06)], 0.17 * look.build, look.top)
    dark = tuple(0.85 * c for c in look.top)
    for side in (-0.2, 0.2):
        elbow = (side * 1.25, 1.18, 0.2)
        figure.bar([(side, 1.42, 0.06), elbow, (side * 1.15, 1.05, 0.36)], 0.05, dark)
    figure.head(1.64, look, forward=0.16, helmet=look.bag)
    figure.draw()


class _Figure:
    """Draws in the local frame of someone who stands at a place and faces a heading."""

    def __init__(
        self, canvas: Canvas, slot: int, place: tuple[float, float], heading: float, scale: float
    ) -> None:
        cos, sin = math.cos(heading), math.sin(heading)
        self.turn = scale * np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
        self.offset = np.array([place[0], 0, place[1]])
        self.scale = scale
        self.canvas = canvas
        self.slot = slot
        # The bars of a body are lit alike: telling their sides apart would double the calls.
        self.brightness = canvas.light.on((0, 0.3, -0.95))
        self.parts: list[Bar] = []

    def bar(self, points: list | np.ndarray, radius: float, color: Sequence[float]) -> None:
        """Add a limb along points (n, 3) of the local frame."""
        color = [c * self.brightness for c in color]
        self.parts.append(Bar(np.array(points, dtype=float), radius * self.scale, color))

    def head(self, y: float, look: Look, forward: float = 0.03, helmet: bool = False) -> None:
        """Add neck, face and hair or helmet, the face's middle at height ``y``."""
        self.bar([(0, y - 0.16, forward), (0, y, forward)], 0.06, look.skin)
        self.bar([(0, y - 0.03, forward), (0, y + 0.03, forward)], 0.105, look.skin)
        cap = (214, 214, 210) if helmet else look.hair
        self.bar([(0, y + 0.05, forward - 0.04), (0, y + 0.07, forward - 0.02)], 0.108, cap)

    def draw(self) -> None:
        """Paint all that was added, in order."""
        lengths = np.cumsum([len(part.points) for part in self.parts])[:-1]
        points = np.concatenate([part.points for part in self.parts]) @ self.turn + self.offset
        self.canvas.bars(
            [
                part._replace(points=p)
                for part, p in zip(self.parts, np.split(points, lengths), strict=True)
            ],
            self.slot,
        )
