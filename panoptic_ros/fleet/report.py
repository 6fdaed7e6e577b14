"""What became of every frame of every bag."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panoptic_ros.fleet.join import bag_report
from panoptic_ros.fleet.places import REPORT_FILE, bag_folder, missing_parts, part_folder
from panoptic_ros.fleet.plan import BagPlan
from panoptic_ros.system import write_file

STATES = ("whole", "damaged", "unfinished", "refused")


def report_bag(plan: BagPlan, output: Path, failures: Sequence[str] = ()) -> dict[str, Any]:
    """Return what became of a bag: one of ``STATES``, why, and the numbers of its frames.

    Args:
        plan: Of the bag.
        output: The output folder.
        failures: Of its spans in this run.
    """
    if not plan.name:
        return {"path": plan.path, "state": "refused", "reason": plan.refused, "topics": {}}
    file = bag_folder(output, plan.name) / REPORT_FILE
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    try:
        return _report_parts(plan, output, failures)
    except FileNotFoundError:  # another process has joined them meanwhile
        return json.loads(file.read_text(encoding="utf-8"))


def _report_parts(plan: BagPlan, output: Path, failures: Sequence[str]) -> dict[str, Any]:
    missing = set(missing_parts(output, plan.name, len(plan.spans)))
    there = [number for number in range(len(plan.spans)) if number not in missing]
    fields = {"name": plan.name, "path": plan.path, "cameras": plan.cameras, "others": plan.others}
    report = bag_report(fields, [part_folder(output, plan.name, n) for n in there])
    for row in report["topics"].values():
        row["waiting"] = row.pop("missing")
    reasons = list(dict.fromkeys([*failures, *filter(None, [report["reason"]])]))
    return {**report, "state": "unfinished", "reason": "; ".join(reasons[:5])}


def total(bags: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Add up the frames of all bags and topics by what became of them."""
    ends = ("declared", "labelled", "refused", "missing", "waiting")
    rows = [row for bag in bags for row in bag["topics"].values()]
    return {end: sum(row.get(end, 0) for row in rows) for end in ends}


def write_report(
    output: Path, bags: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write report.json: the facts of the run, all frames, all bags.

    Raises:
        OSError: It cannot be written.
    """
    states = {state: sum(bag["state"] == state for bag in bags) for state in STATES}
    report = {**facts, "frames": total(bags), "states": states, "bags": list(bags)}
    write_file(output / REPORT_FILE, json.dumps(report, indent=1).encode())
    return report


def describe(bag: Mapping[str, Any]) -> str:
    """Return the line of a bag for people."""
    frames = total([bag])
    words = [f"{frames[end]} {end}" for end in ("refused", "missing", "waiting") if frames[end]]
    reason = f" ({bag['reason']})" if bag["reason"] else ""
    where = f" in {bag['name']}" if "name" in bag else ""
    counts = ", ".join([f"{frames['labelled']} of {frames['declared']} frames labelled", *words])
    if bag["state"] == "refused":
        return f"{bag['path']}: refused: {bag['reason']}"
    return f"{bag['path']}: {bag['state']}{where}: {counts}{reason}"
