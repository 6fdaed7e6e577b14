"""Where things are along a street without end: lots, trees, street furniture, parked cars.

Street frame: x to the right of the centre line, s along the street, in metres. A street consists
of blocks of ``BLOCK`` metres; each is made from the street's seed and its own number alone, so
that any stretch can be visited without those before it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import partial

from panoptic_ros.streets import facades, surroundings, textures, vehicles
from panoptic_ros.streets.objects import Fixture, Lot, Vehicle, random_vehicle

BLOCK = 48.0
BORDERS = ("fence", "fence", "hedge", "wall", None)


@dataclass(frozen=True)
class Plan:
    """The cross-section and the character of a street.

    Attributes:
        seed: Of everything along it.
        drive_left: Whether traffic keeps to the left.
        lanes: Number of lanes each way.
        lane_width: In metres.
        parking: Width of the parking strip on the left and on the right, 0 for none.
        sidewalk: Width on the left and on the right.
        zones: Weights of the kinds of blocks: shops, houses, offices, park.
        trees: Kind of the street trees and of most others: leafy or bare.
        tree_density: Chance of a street tree every 8 metres.
        parked: Chance of a parked car in every place.
        furniture: Density of signs, bollards and railings, about 1.
        dusk: How dark it is, 0..1; switches lamps on.
    """

    seed: int
    drive_left: bool
    lanes: int
    lane_width: float
    parking: tuple[float, float]
    sidewalk: tuple[float, float]
    zones: tuple[float, float, float, float]
    trees: str
    tree_density: float
    parked: float
    furniture: float
    dusk: float

    def edge(self, side: int) -> float:
        """Return the distance of the kerb from the centre line; side is -1 or 1."""
        return self.lanes * self.lane_width + self.parking[side > 0]

    def border(self, side: int) -> float:
        """Return the distance of the sidewalk's far edge from the centre line."""
        return self.edge(side) + self.sidewalk[side > 0]


@dataclass(frozen=True)
class Block:
    """The fixed objects of one block, and the side street at its far end.

    Attributes:
        start: Where it begins, s.
        items: What stands there.
        gap: (s1, s2) of a side street across it, None without one.
        zebra: s of a crossing for pedestrians, None without one.
    """

    start: float
    items: tuple[Lot | Fixture | Vehicle, ...]
    gap: tuple[float, float] | None
    zebra: float | None


def build_block(plan: Plan, index: int) -> Block:
    """Make block ``index`` of a street; the same arguments give the same block."""
    rng = random.Random(plan.seed * 1_000_003 + index)
    start, end = index * BLOCK, (index + 1) * BLOCK
    gap = None
    if rng.random() < 0.4:
        end -= rng.uniform(9, 14)
        gap = (end, (index + 1) * BLOCK)
    items: list = []
    for side in (-1, 1):
        zone = rng.choices(("shops", "houses", "offices", "park"), plan.zones)[0]
        items += _lots(plan, rng, side, zone, start, end)
        items += _kerbside(plan, rng, side, start, end)
        items += _parked(plan, rng, side, start + 5, end - 6, index)
    if gap and rng.random() < 0.5:
        lit = rng.randrange(3)
        for side in (-1, 1):
            paint = partial(surroundings.draw_traffic_light, bottom=rng.uniform(2.0, 2.6), lit=lit)
            items.append(Fixture(side * (plan.edge(side) + 0.6), end - 1, paint))
    zebra = end - 4.5 if rng.random() < 0.25 else None
    return Block(start, tuple(items), gap, zebra)


def _lots(
    plan: Plan, rng: random.Random, side: int, zone: str, start: float, end: float
) -> list[Lot]:
    lots = []
    line = plan.border(side)
    s = start
    border = rng.choice(BORDERS)
    while s < end - 5:
        width = min(rng.uniform(7, 20), end - s)
        if end - s - width < 5:
            width = end - s
        setback, facade = line, None
        if zone == "shops":
            facade = 3 * rng.randrange(facades.FACADES // 3) + 1
        elif zone == "offices":
            facade = 3 * rng.randrange(facades.FACADES // 3) + 2
            setback += rng.choice((0, 0, 3))
        elif zone == "houses":
            facade = 3 * rng.randrange(facades.FACADES // 3)
            setback += rng.choice((1.5, 3, 6))
        elif rng.random() < 0.25:
            facade = rng.randrange(facades.FACADES)
            setback += rng.uniform(15, 30)
        edged = zone in ("houses", "park") or setback > line + 1
        house_gap = 2.0 if zone == "houses" and rng.random() < 0.5 else 0.0
        trees = tuple(
            (
                side
                * (
                    line + rng.uniform(1, max(1.5, setback - line + (14 if zone == "park" else 0)))
                ),
                s + rng.uniform(1, width - 1),
                rng.uniform(1.5, 9),
                rng.choice((plan.trees, plan.trees, "conifer", "bush")),
                rng.randrange(textures.TREES_OF_A_KIND),
            )
            for _ in range(rng.randrange(5) if zone == "park" else rng.randrange(2) * edged)
        )
        shade = rng.uniform(0.85, 1.1)
        lots.append(
            Lot(
                side,
                s,
                s + width - house_gap,
                line,
                setback,
                rng.uniform(7, 12),
                facade,
                (shade, shade * rng.uniform(0.96, 1.02), shade * rng.uniform(0.92, 1.03)),
                zone == "houses" or rng.random() < 0.3,
                border if edged else None,
                rng.randrange(textures.FENCES),
                rng.uniform(0.8, 1.9) if border != "wall" else rng.uniform(0.5, 1.2),
                tuple(sorted(trees, key=lambda tree: -tree[1])),
            )
        )
        s += width
    return lots


def _kerbside(
    plan: Plan, rng: random.Random, side: int, start: float, end: float
) -> list[Fixture | Lot]:
    """Place trees, lamps, signs, bollards and railings on the sidewalk near the kerb."""
    items: list = []
    kerb = side * (plan.edge(side) + 0.55)
    for s in range(int(start) + 2, int(end) - 2, 8):
        if rng.random() < plan.tree_density:
            height = rng.uniform(4, 9)
            paint = partial(
                surroundings.draw_tree,
                height=height,
                kind=plan.trees,
                variant=rng.randrange(textures.TREES_OF_A_KIND),
                tint=(rng.uniform(0.8, 1.1),) * 3,
            )
            items.append(Fixture(kerb + side * 0.4, s + rng.uniform(0, 3), paint, height, height))
    post = rng.choice(((60, 62, 64), (150, 152, 154), (40, 56, 48), (190, 192, 190)))
    for s in (start + rng.uniform(2, 10), start + rng.uniform(26, 34)):
        reach = -side * rng.choice((0, 1.2, 1.8))
        paint = partial(
            surroundings.draw_lamp, height=rng.uniform(5.5, 9.0), reach=reach, color=post
        )
        items.append(Fixture(kerb, s, paint))
    for _ in range(round(plan.furniture * rng.uniform(0, 3))):
        kind = rng.choice(tuple(surroundings.SIGN_COLORS))
        paint = partial(
            surroundings.draw_sign,
            kind=kind,
            size=rng.uniform(0.5, 0.9),
            bottom=rng.uniform(1.9, 2.6),
            seed=rng.randrange(1000),
        )
        items.append(Fixture(kerb + side * rng.uniform(-0.2, 0.8), rng.uniform(start, end), paint))
    if rng.random() < 0.3 * plan.furniture:
        first, color = rng.uniform(start, end - 12), rng.choice(((40, 42, 44), (200, 198, 190)))
        for i in range(rng.randrange(3, 8)):
            paint = partial(surroundings.draw_bollard, color=color)
            items.append(Fixture(kerb, first + 1.8 * i, paint))
    if rng.random() < 0.2 * plan.furniture:
        s = rng.uniform(start, end - 10)
        items.append(
            Lot(
                side,
                s,
                s + rng.uniform(5, 12),
                abs(kerb) - 0.2,
                0,
                0,
                None,
                (1, 1, 1),
                False,
                "fence",
                3 * rng.randrange(textures.FENCES // 3) + 1,
                1.05,
                (),
            )
        )
    return items


def _parked(
    plan: Plan, rng: random.Random, side: int, start: float, end: float, index: int
) -> list[Vehicle]:
    cars = []
    if not plan.parking[side > 0]:
        return cars
    x = side * (plan.edge(side) - 1.0)
    forward = (side < 0) == plan.drive_left
    s = start
    while s < end:
        if rng.random() < plan.parked:
            number = (index % 256) * 32 + len(cars) + 16 * (side > 0)
            heading = (0.0 if forward else math.pi) + rng.gauss(0, 0.02)
            car = random_vehicle(rng, number, x + rng.gauss(0, 0.06), s, heading, 0.0)
            if car.kind != vehicles.BUS:
                cars.append(car)
        s += rng.uniform(5.6, 6.6)
    return cars
