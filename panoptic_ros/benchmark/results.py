"""What ``panoptic benchmark`` measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from panoptic_ros.system import write_file

STAGES = ("upload", "preprocess", "forward", "predict", "download")  # of the segmenter, in order
TOTAL = "total"


@dataclass(frozen=True)
class Variant:
    """A model, and a way to run it.

    Attributes:
        model: Name or folder of a model, or name of a configuration: random weights.
        resolution: (height, width) that the network sees; None for the model's own.
        batch: Images per call.
        engine: As in ``Segmenter``; precision and device likewise.
    """

    model: str
    resolution: tuple[int, int] | None = None
    batch: int = 1
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"

    def __str__(self) -> str:
        size = "{}x{}".format(*self.resolution) if self.resolution else "own size"
        return f"{self.model} {size} batch {self.batch} {self.engine} {self.precision}"


@dataclass
class Measurement:
    """A variant, measured.

    Attributes:
        variant: With the resolution, engine, precision and device that were resolved.
        has_random_weights: Then the time is right, but what the network sees means nothing.
        seconds: Of every round, by stage, and ``total`` of the call.
        instances: Things found in the last round, all images together.
    """

    variant: Variant
    has_random_weights: bool
    seconds: dict[str, list[float]] = field(default_factory=dict)
    instances: int = 0

    def median(self, stage: str) -> float:
        """Return the median seconds of a stage."""
        return statistics.median(self.seconds[stage])

    @property
    def frames_per_second(self) -> float:
        """Images per second of calls one after the other."""
        return self.variant.batch / self.median(TOTAL)


@dataclass
class Report:
    """A run of the benchmark.

    Attributes:
        machine: What it ran on; see ``machine.describe_machine``.
        measurements: In the order asked for.
        skipped: What could not be measured, and why.
    """

    machine: Mapping[str, Any]
    measurements: Sequence[Measurement] = ()
    skipped: Sequence[tuple[str, str]] = ()

    def write(self, path: Path) -> None:
        """Write all numbers as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(asdict(self), indent=1).encode())
