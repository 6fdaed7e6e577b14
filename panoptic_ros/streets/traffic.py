"""What moves along a street: cars in their lanes, cyclists, people on the sidewalks.

All positions are functions of time alone. What falls behind the window around the camera comes
back at its other end as somebody new.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from panoptic_ros.streets.layout import Plan
from panoptic_ros.streets.objects import Human, Vehicle, random_look, random_vehicle

BEHIND = 15.0
CLEARANCE = 7.0  # metres before the camera where nobody is in its lane
MOVING = 1 << 15  # numbers from here on are movers', those below belong to parked cars


@dataclass(frozen=True)
class _Mover:
    index: int
    kind: str
    x: float
    start: float
    speed: float
    window: float
    phase: float


class Traffic:
    """The movers of one street.

    Args:
        plan: The street.
        ego_lane: x of the camera's lane.
        ego_speed: Of the camera, m/s.
        density: (cars, cyclists, people), about 0..1 each.
    """

    def __init__(
        self, plan: Plan, ego_lane: float, ego_speed: float, density: tuple[float, float, float]
    ) -> None:
        self.plan = plan
        self.ego_lane = ego_lane
        self.ego_speed = ego_speed
        self._movers: list[_Mover] = []
        rng = random.Random(plan.seed * 7 + 1)
        forward = -1 if plan.drive_left else 1
        for lane in range(plan.lanes):
            for side in (forward, -forward):
                x = side * plan.lane_width * (lane + 0.5)
                own = abs(x - ego_lane) < 0.5
                speed = ego_speed * rng.uniform(0.9, 1.4) + rng.uniform(0, 3)
                speed = ego_speed if own else speed if side == forward else -speed
                self._fill_lane(rng, x, speed, density[0], 10.0 if own else None)
        for _ in range(round(8 * density[1] * rng.random())):
            side = rng.choice((-1, 1))
            x = side * (plan.lanes * plan.lane_width - rng.uniform(0.5, 0.9))
            speed = rng.uniform(3.5, 6.5) * (1 if side == forward else -1)
            self._add(rng, "cyclist", x, rng.uniform(0, 130), speed, 130)
        for _ in range(round(34 * density[2] * rng.random())):
            side = rng.choice((-1, 1))
            x = side * rng.uniform(plan.edge(side) + 0.5, plan.border(side) - 0.3)
            speed = 0.0 if rng.random() < 0.25 else rng.choice((-1, 1)) * rng.uniform(0.9, 1.6)
            kind = "crossing" if rng.random() < 0.1 else "walker"
            self._add(rng, kind, x, rng.uniform(0, 90), speed, 90)

    def _add(
        self, rng: random.Random, kind: str, x: float, start: float, speed: float, window: float
    ) -> None:
        index = len(self._movers)
        self._movers.append(_Mover(index, kind, x, start, speed, window, rng.uniform(0, 6.28)))

    def _fill_lane(
        self, rng: random.Random, x: float, speed: float, density: float, clear: float | None
    ) -> None:
        """Put cars into a lane, none closer than ``clear`` metres to the camera."""
        window = 170.0
        s = (BEHIND + clear if clear else 0.0) + rng.expovariate(density / 12 + 1e-6)
        while s < window - 12:
            self._add(rng, "car", x, s - BEHIND, speed, window)
            s += 12.5 + rng.expovariate(density / 14 + 1e-6)

    def at(self, seconds: float, camera_s: float) -> list[Vehicle | Human]:
        """Return all movers at a time, with the camera at ``camera_s``."""
        placed = [self._place(mover, seconds, camera_s) for mover in self._movers]
        return [mover for mover in placed if not self._would_be_hit(mover, camera_s)]

    def _would_be_hit(self, mover: Vehicle | Human, camera_s: float) -> bool:
        close = -1 < mover.far - camera_s < CLEARANCE
        return isinstance(mover, Human) and close and abs(mover.x - self.ego_lane) < 1.3

    def _place(self, mover: _Mover, seconds: float, camera_s: float) -> Vehicle | Human:
        ahead = mover.start + (mover.speed - self.ego_speed) * seconds
        lap = math.floor((ahead + BEHIND) / mover.window)
        s = camera_s + ahead - lap * mover.window
        number = MOVING | (mover.index % 512) << 6 | lap % 64
        rng = random.Random(self.plan.seed * 1009 + mover.index * 521 + lap)
        backward = math.pi if mover.speed < 0 else 0.0
        if mover.kind == "car":
            sway = 0.12 * math.sin(0.4 * seconds + mover.phase)
            lamps = max(self.plan.dusk, float(rng.random() < 0.15))
            return random_vehicle(rng, number, mover.x + sway, s, backward, lamps)
        look = random_look(rng)
        phase = mover.phase + abs(mover.speed) * seconds * 4.2
        if mover.kind == "cyclist":
            return Human(number, mover.x, s, backward, look, phase, cycling=True)
        if mover.kind == "crossing":
            half = abs(mover.x)
            travelled = (1.3 * seconds + half * mover.phase) % (4 * half)
            x, heading = travelled - half, math.pi / 2
            if travelled > 2 * half:
                x, heading = 3 * half - travelled, -math.pi / 2
            return Human(number, x, s, heading, look, 5.4 * seconds)
        heading = backward if mover.speed else rng.uniform(0, 6.28)
        return Human(number, mover.x, s, heading, look, phase if mover.speed else math.nan)
