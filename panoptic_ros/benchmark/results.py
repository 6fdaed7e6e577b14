"""What was measured, as plain data: into a JSON file and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from panoptic_ros.benchmark.quantiles import Quantiles, median_ratio
from panoptic_ros.system import write_file

# The way of a frame: messages to images, the segmenter's five, predictions to messages.
STAGES = ("convert", "upload", "preprocess", "forward", "predict", "download", "publish")
# Wall clock around several of them: from uint8 images to predictions, both in host memory; the
# same with both ends of messages; and the bare forward, which runs on a batch of its own.
PIPELINE, TOTAL, BARE = "pipeline", "total", "bare_forward"
PANOPTIC_HEAD = "bare_panoptic_head"  # FPSNet's convolutions that run inside predict


@dataclass(frozen=True)
class Variant:
    """One way to run one model.

    Attributes:
        model: Name of a model or of a configuration, or a folder.
        resolution: (height, width) that the network sees; None for the model's own.
        batch: Images per call: as many cameras.
        engine: ``auto``, ``eager``, ...
        precision: ``auto``, ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        instances: None for what the network sees in the picture. A number replaces the outputs
            of ``forward`` by those of a scene with as many instances: what comes behind is
            measured, forward and what comes before it are not.
    """

    model: str
    resolution: tuple[int, int] | None = None
    batch: int = 1
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    instances: int | None = None

    def __str__(self) -> str:
        """Return what tells it apart, in one line."""
        size = format_size(self.resolution) if self.resolution else "own size"
        scene = "" if self.instances is None else f", {self.instances} instances"
        return f"{self.model} {size} batch {self.batch} {self.engine} {self.precision}{scene}"


@dataclass(frozen=True)
class Measurement:
    """What a variant took.

    Attributes:
        variant: As it was asked for, with the resolution that it had.
        seconds: Of every repetition, by stage (``STAGES``) and span (``PIPELINE``, ``TOTAL``,
            ``BARE``, ``PANOPTIC_HEAD``). Those of a batch are of the whole batch.
        precision: That it ran in.
        engine: That it ran on.
        random_weights: Whether the network was fresh: as fast, but what it sees means nothing.
        found: Instances in the first label image.
        slots: Instances that ``predict`` proposed for it, seen or not; -1 if not known.
        frame: (height, width) of the images.
        held_bytes: Memory that the loaded and warm model holds; None where it cannot be told.
        peak_bytes: Most that one call takes beyond that.
        run: Tells measurements of one process from those of another: ratios are within one.
    """

    variant: Variant
    seconds: Mapping[str, list[float]]
    precision: str = ""
    engine: str = ""
    random_weights: bool = False
    found: int = 0
    slots: int = -1
    frame: tuple[int, int] = (0, 0)
    held_bytes: int | None = None
    peak_bytes: int | None = None
    run: str = ""

    def quantiles(self, stage: str) -> Quantiles | None:
        """Summarise one stage; None if it was not measured."""
        samples = self.seconds.get(stage)
        return Quantiles.of(samples) if samples else None

    def median(self, stage: str) -> float:
        """Return the median seconds of a stage, 0.0 if it was not measured."""
        quantiles = self.quantiles(stage)
        return quantiles.median if quantiles else 0.0

    def overhead(self, with_head: bool = False) -> float | None:
        """Return whole pipeline / bare forward, the median over rounds; None without a forward.

        Args:
            with_head: Count FPSNet's panoptic head as part of the bare forward, since it is
                convolutions that only run in ``predict`` because they need the boxes.
        """
        bare = self.seconds.get(BARE)
        if not bare:
            return None
        if with_head and (head := self.seconds.get(PANOPTIC_HEAD)):
            bare = [sum(pair) for pair in zip(bare, head, strict=True)]
        return median_ratio(self.seconds[PIPELINE], bare)

    @property
    def size(self) -> str:
        """What the network sees, for example 512x1024."""
        return format_size(self.variant.resolution)

    @property
    def images(self) -> str:
        """What one call takes, for example 4 x 512x1024."""
        batch = self.variant.batch
        return f"{batch} x {self.size}" if batch > 1 else self.size

    @property
    def runtime(self) -> str:
        """What computed the network, for example openvino bf16."""
        return f"{self.engine} {self.precision}"

    @property
    def memory_bytes(self) -> int | None:
        """What the loaded model and a call take together; None if not known."""
        if self.held_bytes is None or self.peak_bytes is None:
            return None
        return self.held_bytes + self.peak_bytes

    @property
    def frames_per_second(self) -> float:
        """Images per second of whole calls, messages included where they were measured."""
        return self.variant.batch / self.median(TOTAL)


@dataclass(frozen=True)
class Peer:
    """What a network of another library took, used as its users use it.

    Attributes:
        name: For example ``torchvision maskrcnn_resnet50_fpn``.
        resolution: (height, width) of the image, and of what its network sees.
        seconds: Of every repetition: ``preprocess``, ``forward``, ``postprocess`` and ``total``.
        detections: Instances (segments) that it returned.
        note: How it was set up.
        run: As of a Measurement.
    """

    name: str
    resolution: tuple[int, int]
    seconds: Mapping[str, list[float]]
    detections: int
    note: str = ""
    run: str = ""


@dataclass
class Report:
    """A run of the benchmark.

    Attributes:
        machine: What it ran on, see ``machine.describe_machine``.
        measurements: In the order in which they were asked for.
        peers: Networks of other libraries, measured in the same rounds.
        skipped: What could not be measured, and why.
        complete: Whether all rounds were run; a run that was ended by force leaves False.
    """

    machine: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False

    def add(self, other: Report, run: str) -> None:
        """Take over what another run on the same machine measured, under a name for it."""
        self.measurements += [replace(m, run=run) for m in other.measurements]
        self.peers += [replace(p, run=run) for p in other.peers]
        self.skipped += [(f"{run}: {name}", reason) for name, reason in other.skipped]


def format_size(size: tuple[int, int]) -> str:
    """Return (height, width) as HEIGHTxWIDTH."""
    return "{}x{}".format(*size)


def write_json(report: Report, path: Path) -> None:
    """Write a report; the file is replaced whole or not at all."""
    fields = asdict(report)
    for entry, measurement in zip(fields["measurements"], report.measurements, strict=True):
        entry["summary"] = _summary(measurement)
    write_text(path, json.dumps(fields, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a text file; it is replaced whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())


def _summary(measurement: Measurement) -> dict[str, Any]:
    """Return what readers of the file want without computing it; not read back."""
    spans = {name: asdict(measurement.quantiles(name)) for name in measurement.seconds}
    return {
        "seconds": spans,
        "overhead": measurement.overhead(),
        "frames_per_second": measurement.frames_per_second,
    }


def read_json(path: Path) -> Report:
    """Read what ``write_json`` wrote.

    Raises:
        ValueError: It is not such a file.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Report(
            machine=fields["machine"],
            measurements=[_measurement(entry) for entry in fields["measurements"]],
            peers=[Peer(**{**p, "resolution": tuple(p["resolution"])}) for p in fields["peers"]],
            skipped=[tuple(entry) for entry in fields["skipped"]],
            complete=fields["complete"],
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a report of panoptic benchmark: {error!r}") from error


def _measurement(entry: dict[str, Any]) -> Measurement:
    entry = {name: value for name, value in entry.items() if name != "summary"}
    variant = dict(entry.pop("variant"))
    resolution = variant.pop("resolution")
    variant["resolution"] = tuple(resolution) if resolution else None
    entry["frame"] = tuple(entry["frame"])
    return Measurement(variant=Variant(**variant), **entry)
