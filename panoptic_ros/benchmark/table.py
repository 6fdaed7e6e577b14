"""A report as text: tables that read well in a terminal and are Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from panoptic_ros.benchmark.comparisons import (
    instance_costs,
    peer_ratios,
    relative_costs,
    resolution_slopes,
)
from panoptic_ros.benchmark.machine import machine_line
from panoptic_ros.benchmark.results import (
    BARE,
    PANOPTIC_HEAD,
    STAGES,
    TOTAL,
    Measurement,
    Report,
)

MEGABYTE = 2**20


def format_report(report: Report) -> str:
    """Return the whole report: machine, stages, comparisons, and what was left out."""
    parts = [machine_line(report.machine)]
    measured = [m for m in report.measurements if m.variant.instances is None]
    if measured:
        parts.append(_titled("Stages: median ms per call", stage_table(measured)))
        parts.append(_titled("Whole calls", call_table(measured)))
        parts.append(_notes(measured))
    parts += [
        _titled(title, table)
        for title, table in (
            ("Cost over pixels: exponent (1: as the pixels)", slope_table(report)),
            ("Cost over instances, behind the bare forward", instance_table(report)),
            ("Cost over batch and cameras", batch_table(report)),
            ("Peers: how many times as long", peer_table(report)),
        )
        if table
    ]
    if report.skipped:
        parts.append("Skipped:\n" + "\n".join(f"- {name}: {why}" for name, why in report.skipped))
    return "\n\n".join(parts)


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Return a Markdown table with aligned columns; "" without rows.

    Args:
        header: Of each column.
        rows: As many cells each.
        left: That many columns are text, aligned to the left; the others to the right.
    """
    if not rows:
        return ""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if index < left else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def stage_table(measurements: Sequence[Measurement]) -> str:
    """Return the medians of every stage in milliseconds."""
    rows = [
        [*_identity(m), *(milliseconds(m.median(s)) if s in m.seconds else "-" for s in STAGES)]
        for m in measurements
    ]
    return format_table((*_IDENTITY, *STAGES), rows, left=len(_IDENTITY))


def call_table(measurements: Sequence[Measurement]) -> str:
    """Return total, rate, ratio to the bare forward, and memory."""
    header = (
        *_IDENTITY,
        "total p50 (ms)",
        "p95",
        "frames/s",
        "bare forward",
        "pipeline / bare",
        "with head",
        "holds (MB)",
        "call (MB)",
        "instances",
    )
    rows = []
    for m in measurements:
        total = m.quantiles(TOTAL)
        rows.append(
            [
                *_identity(m),
                milliseconds(total.median),
                milliseconds(total.p95),
                f"{m.frames_per_second:.1f}",
                milliseconds(m.median(BARE)),
                ratio(m.overhead()),
                ratio(m.overhead(with_head=True)) if PANOPTIC_HEAD in m.seconds else "",
                megabytes(m.held_bytes),
                megabytes(m.peak_bytes),
                m.found,
            ]
        )
    return format_table(header, rows, left=len(_IDENTITY))


def slope_table(report: Report) -> str:
    """Return the exponent of the cost over the pixels of every model with several sizes."""
    rows = [
        [s.model, s.engine, s.batch, f"{s.slope:.2f}", " ".join(f"{p:.2g}" for p in s.megapixels)]
        for s in resolution_slopes(report.measurements)
    ]
    return format_table(("model", "engine", "batch", "exponent", "at megapixels"), rows, left=2)


def instance_table(report: Report) -> str:
    """Return the cost behind the forward over the instances of the scene, and the whole ratio."""
    rows = [
        [
            c.model,
            c.size,
            c.engine,
            c.instances,
            c.slots,
            c.visible,
            milliseconds(c.behind),
            "-" if c.per_instance is None else f"{1e6 * c.per_instance:.0f}",
            ratio(c.whole),
        ]
        for c in instance_costs(report.measurements)
    ]
    header = ("model", "size", "engine", "in the scene", "kept", "seen", "behind (ms)")
    return format_table((*header, "each (us)", "whole frame"), rows, left=3)


def batch_table(report: Report) -> str:
    """Return time and memory of several cameras in one call, as multiples of one."""
    rows = [
        [
            c.model,
            c.size,
            c.engine,
            c.batch,
            milliseconds(c.seconds),
            ratio(c.time),
            ratio(c.memory),
        ]
        for c in relative_costs(report.measurements)
    ]
    header = ("model", "size", "engine", "cameras", "total (ms)", "time", "memory")
    return format_table(header, rows, left=3)


def peer_table(report: Report) -> str:
    """Return the peers, and how many times as long as ours each takes."""
    rows = [
        [
            r.peer,
            r.size,
            r.detections,
            milliseconds(r.peer_seconds),
            f"{r.model} {r.engine}",
            milliseconds(r.our_seconds),
            f"{r.ratio:.1f}",
        ]
        for r in peer_ratios(report)
    ]
    header = ("peer", "size", "found", "ms", "ours", "ms", "times as long")
    return format_table(header, rows, left=2)


def milliseconds(seconds: float) -> str:
    """Return seconds in milliseconds with three digits or the whole number."""
    value = 1e3 * seconds
    return (
        f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
    )


def ratio(value: float | None) -> str:
    """Return a ratio with two decimals, "-" for none."""
    return "-" if value is None else f"{value:.2f}"


def megabytes(number: int | None) -> str:
    """Return bytes in MB, "-" for none."""
    return "-" if number is None else f"{number / MEGABYTE:.0f}"


_IDENTITY = ("model", "size", "engine")


def _identity(measurement: Measurement) -> tuple[str, str, str]:
    name = measurement.variant.model + ("*" if measurement.random_weights else "")
    return name, measurement.images, measurement.runtime


def _titled(title: str, table: str) -> str:
    return f"**{title}**\n\n{table}"


def _notes(measurements: Sequence[Measurement]) -> str:
    """Explain what the tables show."""
    lines = [
        "Total: from camera messages to messages of labels and instances; pipeline: from images "
        "to labels, both in host memory; without ROS both are the same.",
        "Holds: memory of the loaded model; call: what one call takes beyond that.",
    ]
    if any(m.random_weights for m in measurements):
        lines.append(
            "*: random weights. The convolutions cost what they cost; what they see means "
            "nothing, and post-processing may find none or as many instances as there are slots."
        )
    if any(PANOPTIC_HEAD in m.seconds for m in measurements):
        lines.append(
            "With head: FPSNet's panoptic head counts as forward; it runs in predict, as it needs "
            "the boxes."
        )
    return "\n".join(lines)
