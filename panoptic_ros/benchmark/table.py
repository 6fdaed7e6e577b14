"""A report as text: a table that reads well in a terminal and is Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from panoptic_ros.benchmark.machine import machine_line
from panoptic_ros.benchmark.results import STAGES, TOTAL, Measurement, Report


def format_report(report: Report) -> str:
    """Return machine, stages, and what was left out."""
    parts = [machine_line(report.machine)]
    if report.measurements:
        header = ("model", "size", "batch", "engine", *STAGES, TOTAL, "frames/s", "instances")
        rows = [_row(measurement) for measurement in report.measurements]
        parts.append(f"Median milliseconds of a call:\n\n{format_table(header, rows, left=4)}")
    if any(m.has_random_weights for m in report.measurements):
        parts.append("*: random weights; what they see means nothing, nor what it costs to merge.")
    if report.skipped:
        parts.append("Skipped:\n" + "\n".join(f"- {name}: {why}" for name, why in report.skipped))
    return "\n\n".join(parts)


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Return a Markdown table with aligned columns.

    Args:
        header: Of each column.
        rows: As many cells each.
        left: That many columns are text, aligned to the left; the others to the right.
    """
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


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds with three digits."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def _row(measurement: Measurement) -> list[object]:
    variant = measurement.variant
    return [
        variant.model + "*" * measurement.has_random_weights,
        "{}x{}".format(*variant.resolution),
        variant.batch,
        f"{variant.engine} {variant.precision}",
        *(milliseconds(measurement.median(stage)) for stage in (*STAGES, TOTAL)),
        f"{measurement.frames_per_second:.1f}",
        measurement.instances,
    ]
