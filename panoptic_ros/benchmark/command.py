"""What ``panoptic benchmark`` does: read its lists, measure, print, write, draw."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from panoptic_ros.benchmark.measure import measure
from panoptic_ros.benchmark.plot import check_plot, plot_report
from panoptic_ros.benchmark.results import Report, Variant
from panoptic_ros.benchmark.table import format_report
from panoptic_ros.input_format import parse_resolution
from panoptic_ros.system import keep_freed_memory


def run_benchmark(
    *,
    model: str,
    resolution: str = "",
    batch: str = "1",
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    frame: str = "",
    repeat: int = 10,
    json_file: Path | None = None,
    plot: Path | None = None,
) -> Report:
    """Measure everything with everything, print the table, and return the report.

    Args:
        model: Names of models or configurations, with commas.
        resolution: HEIGHTxWIDTH, several with commas; the model's own if empty.
        batch: Images per call, several with commas.
        engine: Names of engines, with commas.
        precision: Several with commas.
        device: One for all.
        frame: HEIGHTxWIDTH of the images; the resolution if empty.
        repeat: Rounds.
        json_file: Where to write the numbers, if anywhere.
        plot: Where to draw them, if anywhere.

    Raises:
        ValueError: A list cannot be read, or nothing could be measured.
    """
    if plot:
        check_plot(plot)
    if not _split(model):
        raise ValueError("no model is given; for example --model fpsnet_small")
    keep_freed_memory()  # as the node does
    variants = [
        Variant(name, size, number, engine_name, precision_name, device)
        for name, size, engine_name, precision_name, number in itertools.product(
            _split(model),
            [parse_resolution(text) for text in _split(resolution)] or [None],
            _split(engine) or ["auto"],
            _split(precision) or ["auto"],
            _batches(batch),
        )
    ]
    report = measure(variants, repeat, parse_resolution(frame), _say)
    if not report.measurements:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in report.skipped))
    print(format_report(report))
    if json_file:
        report.write(json_file)
    if plot:
        plot_report(report, plot)
    return report


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _batches(text: str) -> list[int]:
    parts = _split(text)
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"batch is {text!r}; expected whole numbers from 1 on, for example 1,4")
    return [int(part) for part in parts]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
