"""What ``panoptic benchmark`` does: read its lists, measure, print, write, draw."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from panoptic_ros.benchmark.loading import load_description
from panoptic_ros.benchmark.measure import measure
from panoptic_ros.benchmark.peers import PEERS
from panoptic_ros.benchmark.results import Report, Variant, write_json
from panoptic_ros.benchmark.table import format_report
from panoptic_ros.input_format import parse_resolution
from panoptic_ros.model_zoo import ModelError
from panoptic_ros.system import keep_freed_memory

KEPT, NOT_KEPT = "keeps freed memory, for all alike", "as the environment says"


def run_benchmark(
    *,
    model: str,
    resolution: str = "",
    batch: str = "1",
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    instances: str = "",
    cameras: str = "",
    frame: str = "",
    repeat: int = 10,
    json_file: Path | None = None,
    plot: Path | None = None,
    peers: bool = False,
) -> Report:
    """Measure, print the tables, and return the report; arguments are those of the command.

    Raises:
        ValueError: A list cannot be read, or nothing could be measured.
        ModelError: None of the models is there.
        ImportError: A picture is wanted and matplotlib is not installed.
    """
    if plot:
        _check_plot(plot)
    variants = [
        variant
        for each in split(precision) or ["auto"]
        for variant in make_variants(
            models=split(model),
            resolutions=[parse_resolution(text) for text in split(resolution)] or [None],
            batches=sorted({*numbers("batch", batch, 1), *numbers("cameras", cameras, 1)}),
            engines=split(engine) or ["auto"],
            precision=each,
            device=device,
            instances=numbers("instances", instances, 0),
        )
    ]
    report = measure(
        variants,
        peer_list(variants) if peers else (),
        repeat,
        parse_resolution(frame),
        keep_memory(),
        say,
    )
    if not report.measurements and not report.peers:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in report.skipped))
    print(format_report(report))
    if json_file:
        write_json(report, json_file)
    if plot:
        from panoptic_ros.benchmark.plot import plot_report

        plot_report(report, plot)
    return report


def make_variants(
    models: Sequence[str],
    resolutions: Sequence[tuple[int, int] | None] = (None,),
    batches: Sequence[int] = (1,),
    engines: Sequence[str] = ("auto",),
    precision: str = "auto",
    device: str = "auto",
    instances: Sequence[int] = (),
) -> list[Variant]:
    """Combine everything with everything; scenes with given instances are single images.

    Raises:
        ValueError: No model is given.
    """
    if not models:
        raise ValueError("no model is given; for example --model fpsnet_small")
    variants = [
        Variant(model, size, number, engine, precision, device)
        for model, size, engine, number in itertools.product(models, resolutions, engines, batches)
    ]
    variants += [
        Variant(model, size, 1, engine, precision, device, count)
        for model, size, engine, count in itertools.product(
            models, resolutions, engines, instances
        )
    ]
    return variants


def peer_list(variants: Sequence[Variant]) -> list[tuple[str, tuple[int, int]]]:
    """Return every peer at every size of the variants."""
    sizes = []
    for variant in variants:
        try:
            size = variant.resolution or load_description(variant.model).input.resolution
        except ModelError:
            continue  # measure says why the variant is skipped
        sizes.append(size)
    return list(itertools.product(PEERS, dict.fromkeys(sizes)))


def keep_memory() -> str:
    """Make malloc keep freed memory, as in the node, and return what the report says of it."""
    return KEPT if keep_freed_memory() else NOT_KEPT


def split(text: str) -> list[str]:
    """Return the parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(name: str, text: str, least: int) -> list[int]:
    """Read a list of whole numbers with commas.

    Raises:
        ValueError: A part is none, or below ``least``.
    """
    parts = split(text)
    if not all(part.isdigit() and int(part) >= least for part in parts):
        raise ValueError(
            f"{name} is {text!r}; expected whole numbers from {least} on, for example 1,4"
        )
    return [int(part) for part in parts]


def say(line: str) -> None:
    """Tell people what happens, beside what the command prints."""
    print(line, file=sys.stderr, flush=True)


def _check_plot(path: Path) -> None:
    """Refuse before measuring what could not be drawn after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--plot needs matplotlib ({error}); python -m pip install matplotlib"
        ) from error
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--plot is {path}; expected a file that ends in .png, .pdf or .svg")
