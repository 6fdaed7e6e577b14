"""Bags to spans: which bags there are, what they are called, what of them is to be done."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from panoptic_ros.files.bag import BagError
from panoptic_ros.files.bag_spans import BagSummary, data_files, summarize_bag
from panoptic_ros.files.sources import BAG_SUFFIXES, is_bag
from panoptic_ros.fleet.places import (
    PLAN_FILE,
    REPORT_FILE,
    Span,
    bag_folder,
    missing_parts,
    work_folder,
)
from panoptic_ros.system import write_file

_LEAST_BYTES = 4096  # of a bag for each span: a bag may declare any number of messages


@dataclass(frozen=True)
class BagPlan:
    """What is to be done with one bag.

    Attributes:
        path: Of the bag.
        name: In the output folder; empty for a bag that is refused.
        refused: Why nothing can be done with it.
        cameras: Number of messages that it declares for each camera topic.
        others: Of its other image topics, why they are left out.
        spans: All of them.
        identity: Of the bag's files and of all settings that change labels.
    """

    path: str
    name: str = ""
    refused: str = ""
    cameras: Mapping[str, int] | None = None
    others: Mapping[str, str] | None = None
    spans: tuple[Span, ...] = ()
    identity: Mapping[str, Any] | None = None

    @property
    def frames(self) -> int:
        """How many frames the bag declares."""
        return sum((self.cameras or {}).values())


def find_bags(given: Sequence[Path], output: Path) -> list[Path]:
    """Return the bags that are given or lie below the folders that are given, each once.

    Raises:
        ValueError: A path does not exist, there is no bag at all, or the output folder is inside
            of what is given.
    """
    bags: dict[tuple[Path, ...], Path] = {}
    for path in given:
        if not path.exists():
            raise ValueError(f"there is no bag or folder {path}")
        path = path.resolve()
        if path.is_dir() and output.resolve().is_relative_to(path):
            raise ValueError(
                f"the output {output} is inside of the input {path}, where its bags would be "
                "taken for camera bags next time; give a folder elsewhere"
            )
        for bag in [path] if is_bag(path) or not path.is_dir() else _bags_below(path):
            files = tuple(file.resolve() for file in data_files(bag))
            bags.setdefault(files or (bag,), bag)
    if not bags:
        raise ValueError(f"found no bag in {', '.join(map(str, given))}")
    return list(bags.values())


def _bags_below(folder: Path) -> list[Path]:
    folders = {file.parent for file in folder.rglob("metadata.yaml")}
    files = {file for s in BAG_SUFFIXES for file in folder.rglob(f"*{s}") if file.is_file()}
    return sorted(folders | {file for file in files if file.parent not in folders})


def plan_bags(
    bags: Iterable[Path],
    output: Path,
    settings: Mapping[str, Any],
    topics: Sequence[str],
    frames_per_span: int,
) -> list[BagPlan]:
    """Plan all bags; those that are not whole yet get a folder for their parts.

    Args:
        bags: Of ``find_bags``.
        output: The output folder.
        settings: Those that change labels or files: a bag begun with others is refused.
        topics: Camera topics to take; empty for all.
        frames_per_span: About how many frames a span is to have.

    Raises:
        OSError: The output folder cannot be written.
    """
    taken: set[str] = {REPORT_FILE}
    plans = []
    for path in bags:
        name = _free_name(path, output, taken)
        plan = _plan(path, name, output, dict(settings), topics, frames_per_span)
        if plan.name:
            taken.add(name)
        plans.append(plan)
    return plans


def _plan(
    path: Path,
    name: str,
    output: Path,
    identity: dict[str, Any],
    topics: Sequence[str],
    frames_per_span: int,
) -> BagPlan:
    try:
        files = [(file.name, file.stat()) for file in data_files(path)]
        identity["files"] = [[file, stat.st_size, stat.st_mtime_ns] for file, stat in files]
        identity["topics"] = sorted(topics)
        old = _recorded(output, name)
        if old and old["identity"] != identity:
            return BagPlan(str(path), refused=_what_differs(old["identity"], identity, name))
        if old:
            return _read_plan(old)
        summary = summarize_bag(path)
        cameras = _choose(path, summary, topics)
    except BagError as error:
        return BagPlan(str(path), refused=str(error))
    except OSError as error:
        return BagPlan(str(path), refused=f"cannot read bag {path}: {error.strerror}")
    size = sum(stat.st_size for _, stat in files)
    count = -(-sum(cameras.values()) // frames_per_span)
    count = max(1, min(count, size // _LEAST_BYTES, summary.end - summary.start))
    spans = _spans(name, str(path), tuple(cameras), summary, count)
    plan = BagPlan(str(path), name, "", cameras, summary.others, spans, identity)
    work_folder(output, name).mkdir(parents=True, exist_ok=True)
    write_file(work_folder(output, name) / PLAN_FILE, json.dumps(asdict(plan)).encode())
    return plan


def _choose(path: Path, summary: BagSummary, topics: Sequence[str]) -> dict[str, int]:
    wanted = {topic.strip("/") for topic in topics}
    cameras = {
        name: count
        for name, count in summary.cameras.items()
        if not wanted or name.strip("/") in wanted
    }
    if not cameras:
        there = ", ".join(summary.topics) or "none"
        others = "".join(f"; {name}: {reason}" for name, reason in summary.others.items())
        asked = f" among {', '.join(topics)}" if topics else ""
        raise BagError(
            f"bag {path} has no images on a camera topic{asked}; its topics: {there}{others}"
        )
    return cameras


def _spans(
    name: str, path: str, topics: tuple[str, ...], summary: BagSummary, count: int
) -> tuple[Span, ...]:
    """Divide a bag into spans of equal time; the first and the last are open at the ends."""
    length = summary.end - summary.start
    bounds = [None, *(summary.start + length * i // count for i in range(1, count)), None]
    return tuple(Span(name, path, i, count, topics, *bounds[i : i + 2]) for i in range(count))


def _free_name(path: Path, output: Path, taken: set[str]) -> str:
    """Return the bag's own name, or the first numbered one that no other bag has."""
    own = path.name if path.is_dir() else path.stem
    own = re.sub(r"[^\w.+=@ -]", "_", own).lstrip(".") or "bag"
    number, name = 1, own
    while name in taken or not _is_free(output, name, path):
        number += 1
        name = f"{own}_{number}"
    return name


def _is_free(output: Path, name: str, path: Path) -> bool:
    if old := _recorded(output, name):
        return old["path"] == str(path)
    return not bag_folder(output, name).exists()


def _recorded(output: Path, name: str) -> dict[str, Any] | None:
    """Return the plan of a bag that was begun or is whole."""
    for file in (bag_folder(output, name) / PLAN_FILE, work_folder(output, name) / PLAN_FILE):
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or of somebody else
            continue
        if isinstance(fields, dict) and {"identity", "path", "spans"} <= fields.keys():
            return fields
    return None


def _read_plan(fields: dict[str, Any]) -> BagPlan:
    spans = [Span(**{**span, "topics": tuple(span["topics"])}) for span in fields["spans"]]
    return BagPlan(**{**fields, "spans": tuple(spans)})


def _what_differs(old: dict[str, Any], new: dict[str, Any], name: str) -> str:
    keys = [key for key in new if old.get(key) != new[key]]
    what = ", ".join(f"{key} was {old.get(key)}, is {new[key]}" for key in keys)
    return (
        f"{name} was begun or labelled otherwise: {what}. Remove {name} and .work/{name} from the "
        "output folder to label it anew, or give another output folder"
    )


def spans_to_do(plan: BagPlan, output: Path) -> list[Span]:
    """Return the spans of a bag that are not labelled yet.

    Of a bag whose parts are all there, but not joined, that is its last one.
    """
    if not plan.name or bag_folder(output, plan.name).exists():
        return []
    missing = missing_parts(output, plan.name, len(plan.spans))
    return [plan.spans[number] for number in missing or [len(plan.spans) - 1]]


def sweep(plan: BagPlan, output: Path) -> None:
    """Remove what workers that died have left of a bag; only while no other run goes on."""
    work = work_folder(output, plan.name)
    if not plan.name or not work.is_dir():
        return
    if bag_folder(output, plan.name).exists():
        shutil.rmtree(work)
        return
    for entry in work.iterdir():
        if entry.name.startswith("."):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.suffix == ".attempts":
            entry.unlink()
