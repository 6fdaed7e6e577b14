"""What is where below the output folder, and what a worker is told.

report.json           of the last run
NAME/                 a labelled bag, renamed here when it is whole
.work/lock            held by the run that is going on
.work/NAME/plan.json  of a bag that is not whole yet, with the spans it is divided into
.work/NAME/000007/    a labelled span of it, renamed here when it is whole: a part
.work/NAME/.*         what a worker writes at the moment
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PLAN_FILE, REPORT_FILE, LOCK_FILE = "plan.json", "report.json", "lock"


@dataclass(frozen=True)
class Span:
    """A span of time of a bag: what a worker labels at once.

    Attributes:
        bag: Name of the bag, unique in the output folder.
        path: Of the bag.
        number: Of the span in the bag, from 0.
        count: Of all spans of the bag.
        topics: Camera topics.
        start: In nanoseconds; None for the beginning of the bag.
        stop: Likewise; None for its end.
    """

    bag: str
    path: str
    number: int
    count: int
    topics: tuple[str, ...]
    start: int | None
    stop: int | None


@dataclass(frozen=True)
class Settings:
    """What is the same for all spans of a run.

    Attributes:
        output: The output folder.
        model: Folder of the model.
        device: As in ``Segmenter.load``; the next three likewise.
        precision: See there.
        resolution: See there.
        engine: See there.
        formats: Of ``FORMATS``, beside the bag.
        images: Whether to write the camera images, too.
        max_pixels: An image that declares more is refused.
        threads: Of a worker that computes on the CPU.
    """

    output: str
    model: str
    device: str = "auto"
    precision: str = "auto"
    resolution: str | None = None
    engine: str = "auto"
    formats: tuple[str, ...] = ()
    images: bool = False
    max_pixels: int = 64_000_000
    threads: int = 1


FORMATS = ("coco", "cityscapes")


def bag_folder(output: str | Path, bag: str) -> Path:
    """Return where the whole labelled bag is."""
    return Path(output) / bag


def work_folder(output: str | Path, bag: str = "") -> Path:
    """Return where the parts of a bag are, or with no bag, those of all."""
    return Path(output) / ".work" / bag


def part_folder(output: str | Path, bag: str, number: int) -> Path:
    """Return where a labelled span is."""
    return work_folder(output, bag) / f"{number:06}"


def missing_parts(output: str | Path, bag: str, count: int) -> list[int]:
    """Return the numbers of the spans of a bag that have no part yet."""
    there = {entry.name for entry in work_folder(output, bag).iterdir()}
    return [number for number in range(count) if f"{number:06}" not in there]
