"""Long benchmarks in parts: each in a process of its own, its numbers in a file of its own.

So a part that fails, hangs or is ended loses nothing of the others, and a run that was broken off
goes on where it was. Ratios are taken within a part only.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from panoptic_ros.benchmark.command import keep_memory, say
from panoptic_ros.benchmark.machine import describe_machine
from panoptic_ros.benchmark.measure import measure
from panoptic_ros.benchmark.plot import plot_report
from panoptic_ros.benchmark.results import Report, Variant, read_json, write_json, write_text
from panoptic_ros.benchmark.table import format_report, format_table
from panoptic_ros.benchmark.targets import Target

LEAST_SECONDS = 20.0  # a part with less time left is not started
TARGET_HEADER = ("to reach", "target", "measured", "reached")


@dataclass(frozen=True)
class Part:
    """Variants and peers that are measured in the same rounds.

    Attributes:
        name: Also of its file.
        variants: What is measured.
        peers: Name and image size of each network to compare with.
        repeat: Rounds.
        seconds: After that it is ended.
    """

    name: str
    variants: tuple[Variant, ...]
    peers: tuple[tuple[str, tuple[int, int]], ...] = ()
    repeat: int = 7
    seconds: float = 3600.0


def run_part(part: Part, folder: Path) -> None:
    """Measure a part in this process and write FOLDER/NAME.json after every round."""
    measure(
        part.variants,
        part.peers,
        part.repeat,
        malloc=keep_memory(),
        say=say,
        seconds=0.9 * part.seconds,
        checkpoint=partial(write_json, path=folder / f"{part.name}.json"),
    )


def run_parts(
    script: Path,
    arguments: Sequence[str],
    parts: Sequence[Part],
    folder: Path,
    budget: float,
    done: Callable[[Report], None],
    only: Collection[str] | None = None,
) -> Report:
    """Run ``SCRIPT ARGUMENTS --part NAME --parts FOLDER`` for every part not measured yet.

    Args:
        script: That calls ``run_part`` for those arguments.
        arguments: What else it needs.
        parts: In order of importance: ``budget`` may end before the last ones.
        folder: Of the files of the parts.
        budget: Seconds for all of them.
        done: Called after every part with what all have measured so far.
        only: Names of those to run now; what others measured before is joined all the same.

    Returns:
        What all have measured.
    """
    start = time.monotonic()
    failures: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if only is not None and part.name not in only:
            continue
        left = budget - (time.monotonic() - start)
        if _is_complete(folder, part):
            say(f"== {part.name}: measured before")
        elif left < LEAST_SECONDS:
            failures[part.name] = "no time left"
        else:
            say(f"== {part.name}")
            command = [sys.executable, str(script), *arguments]
            command += ["--part", part.name, "--parts", str(folder)]
            failures[part.name] = _run(command, min(left, part.seconds))
        done(merge(parts, folder, failures))
    return merge(parts, folder, failures)


def merge(parts: Sequence[Part], folder: Path, failures: dict[str, str]) -> Report:
    """Join the files of the parts, and say of each what went wrong."""
    merged: Report | None = None
    skipped = []
    for part in parts:
        path = folder / f"{part.name}.json"
        if path.is_file():
            report = read_json(path)
            merged = merged or Report(report.machine, complete=True)
            merged.add(report, part.name)
        if reason := failures.get(part.name):
            skipped.append((f"part {part.name}", reason))
    merged = merged or Report(describe_machine())
    merged.skipped += skipped
    return merged


def write_all(report: Report, targets: Sequence[Target], stem: Path, heading: str) -> str:
    """Write STEM.json, STEM.md and STEM.png; return the text of the Markdown."""
    text = f"# {heading}\n\n{format_targets(targets)}\n\n{format_report(report)}\n"
    write_json(report, stem.with_suffix(".json"))
    write_text(stem.with_suffix(".md"), text)
    try:
        plot_report(report, stem.with_suffix(".png"))
    except (ImportError, ValueError) as error:  # the numbers are what counts
        say(f"no picture: {error}")
    return text


def format_targets(targets: Sequence[Target]) -> str:
    """Return the table of what is to be reached and what was."""
    words = {True: "yes", False: "no", None: "-"}
    rows = [(t.what, t.limit, t.measured, words[t.reached]) for t in targets]
    return format_table(TARGET_HEADER, rows, left=len(TARGET_HEADER))


def _is_complete(folder: Path, part: Part) -> bool:
    path = folder / f"{part.name}.json"
    return path.is_file() and read_json(path).complete


def _run(command: list[str], seconds: float) -> str:
    """Run a command; return why it failed, "" if it did not."""
    try:
        code = subprocess.run(command, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} s"
    return f"exit status {code}; its output above has the reason" if code else ""
