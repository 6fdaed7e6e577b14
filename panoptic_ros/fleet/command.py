"""What ``panoptic label`` does: plan, run, report."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from panoptic_ros.data.categories import load_categories
from panoptic_ros.files.image_size import MAX_PIXELS
from panoptic_ros.files.label_messages import LabelMessages
from panoptic_ros.fleet.local import run_local
from panoptic_ros.fleet.places import FORMATS, LOCK_FILE, Settings, work_folder
from panoptic_ros.fleet.plan import find_bags, plan_bags, sweep
from panoptic_ros.fleet.report import write_report
from panoptic_ros.fleet.run import Run, Runner
from panoptic_ros.input_format import parse_resolution
from panoptic_ros.model_zoo import MODEL_FILE, ModelConfig, find_model, load_config
from panoptic_ros.prediction import category_fields
from panoptic_ros.system import file_sha256, usable_cores

FRAMES_PER_SPAN = 600


def label_bags(
    bags: Sequence[Path],
    output: Path,
    *,
    model: str,
    formats: Sequence[str] = (),
    images: bool = False,
    topics: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    resolution: str | None = None,
    engine: str = "auto",
    workers: int = 0,
    span: int = FRAMES_PER_SPAN,
    max_pixels: int = MAX_PIXELS,
    ray: str | None = None,
) -> dict[str, Any]:
    """Label every camera image of bags; goes on where an earlier run with the same output ended.

    Args:
        bags: Bags, and folders that hold some.
        output: Folder to write to; see ``fleet.join`` for what.
        model: Name of a model or path of its folder.
        formats: Of ``FORMATS``: what to write beside the bag.
        images: Whether to write the camera images beside these, too.
        topics: Camera topics; none for all.
        device: As in ``Segmenter.load``; the next three likewise.
        precision: See there.
        resolution: See there.
        engine: See there.
        workers: How many processes, or Ray actors; 0 for one on each GPU, or each core.
        span: About how many frames a worker labels at once; what is lost when it dies.
        max_pixels: An image that declares more is refused.
        ray: Address of a Ray cluster; None for processes here.

    Returns:
        What report.json holds.

    Raises:
        ValueError: An argument cannot be used, or another run writes to ``output``.
        OSError: The output cannot be written, as on a full disk; run it again with more space.
        RuntimeError: The model cannot be loaded by a worker, or workers die of it.
    """
    started = time.monotonic()
    paths = find_bags(bags, output)
    folder = find_model(model).resolve()
    config = load_config(folder / MODEL_FILE)
    _check(formats, images, span, max_pixels, workers, config)
    if resolution:
        parse_resolution(resolution)
    identity = {
        "model": config.name,
        "sha256": [file_sha256(folder / name) for name in (MODEL_FILE, config.weights)],
        "precision": precision,
        "resolution": resolution,
        "formats": list(formats),
        "images": images,
        "max_pixels": max_pixels,
        "span": span,
    }
    settings = Settings(
        str(output.resolve()),
        str(folder),
        device,
        precision,
        resolution,
        engine,
        tuple(formats),
        images,
        max_pixels,
    )
    with _only_run(output):
        plans = plan_bags(paths, output, identity, topics, span)
        for plan in plans:
            sweep(plan, output)
        run = Run(plans, output, LabelMessages(config.name, config.categories))
        try:
            run.run(_runner(settings, workers, ray))
        except BaseException:
            with suppress(OSError):  # the disk may be full
                _report(run, output, config, started)
            raise
        return _report(run, output, config, started)


def _report(run: Run, output: Path, config: ModelConfig, started: float) -> dict[str, Any]:
    seconds = round(time.monotonic() - started, 3)
    return write_report(output, run.reports(), {"model": config.name, "seconds": seconds})


def _check(
    formats: Sequence[str],
    images: bool,
    span: int,
    max_pixels: int,
    workers: int,
    config: ModelConfig,
) -> None:
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"format is {', '.join(sorted(unknown))}; expected {', '.join(FORMATS)}")
    if images and not formats:
        raise ValueError("--images goes with --format: they are written beside its files")
    for name, value in (("span", span), ("max_pixels", max_pixels), ("workers", workers + 1)):
        if value < 1:
            raise ValueError(f"{name} is too small; expected 1 or more")
    own = {(c["id"], c["isthing"]) for c in category_fields(config.categories)}
    theirs = {(c["id"], c["isthing"]) for c in category_fields(load_categories("cityscapes"))}
    if "cityscapes" in formats and not own <= theirs:
        raise ValueError(
            f"model {config.name} has not the classes of Cityscapes, which the format cityscapes "
            "needs; use the format coco"
        )


@contextmanager
def _only_run(output: Path) -> Iterator[None]:
    """Hold the lock of an output folder, which is made.

    Raises:
        ValueError: Another run holds it.
    """
    work_folder(output).mkdir(parents=True, exist_ok=True)
    with (work_folder(output) / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another run writes to {output}; wait for it, or end it") from error
        yield


def _runner(settings: Settings, workers: int, ray: str | None) -> Runner:
    if ray:
        from panoptic_ros.fleet.ray_data import run_ray

        return lambda spans: run_ray(spans, settings, workers, ray)
    gpus = torch.cuda.device_count() if settings.device in ("auto", "cuda") else 0
    on_cpu = settings.device == "cpu" or (settings.device == "auto" and not gpus)
    devices = [f"cuda:{n}" for n in range(gpus)] or ["cpu" if on_cpu else settings.device]
    workers = workers or (usable_cores() if on_cpu else len(devices))
    settings = replace(settings, threads=max(1, usable_cores() // workers))
    return lambda spans: run_local(spans, settings, workers, devices)
