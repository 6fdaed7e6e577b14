"""What is read out of measurements: how cost grows, and ratios to others of the same rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from panoptic_ros.benchmark.quantiles import (
    Quantiles,
    linear_slope,
    log_log_slope,
    median_ratio,
)
from panoptic_ros.benchmark.results import (
    BARE,
    PIPELINE,
    TOTAL,
    Measurement,
    Peer,
    Report,
    format_size,
)


class Series(NamedTuple):
    """What a curve has in common."""

    model: str
    engine: str
    batch: int
    instances: int | None
    resolution: tuple[int, int] | None
    run: str


@dataclass(frozen=True)
class Slope:
    """How the cost of a model grows with the pixels of its input.

    Attributes:
        megapixels: Of each resolution, ascending.
        seconds: Median of the pipeline at each.
        slope: Exponent of the power law; 1 is as the pixels.
    """

    model: str
    engine: str
    batch: int
    megapixels: tuple[float, ...]
    seconds: tuple[float, ...]
    slope: float


@dataclass(frozen=True)
class InstanceCost:
    """A scene with a number of instances.

    Attributes:
        instances: In the scene.
        slots: Of them, those that the network has room for.
        visible: Those that own a pixel of the label image.
        behind: Median seconds of everything behind the forward.
        whole: That and the bare forward, over the same of the emptiest scene; None where the
            forward was not measured.
        per_instance: Seconds that one more instance costs, of the line through all scenes of
            this model; None for a single scene.
    """

    model: str
    size: str
    engine: str
    instances: int
    slots: int
    visible: int
    behind: float
    whole: float | None
    per_instance: float | None


@dataclass(frozen=True)
class BatchCost:
    """Several cameras in one call, over one.

    Attributes:
        seconds: Median of the whole call, messages included.
        time: Times as long as one camera.
        memory: Times as much as one camera, model included; None if not known.
    """

    model: str
    size: str
    engine: str
    batch: int
    seconds: float
    time: float
    memory: float | None


@dataclass(frozen=True)
class PeerRatio:
    """A peer against one of ours; ``ratio`` is how many times as long the peer takes."""

    peer: str
    size: str
    detections: int
    peer_seconds: float
    model: str
    our_size: str
    engine: str
    our_seconds: float
    ratio: float


def resolution_slopes(measurements: Iterable[Measurement]) -> list[Slope]:
    """Fit a power law to the pipeline of every model that was measured at several sizes."""
    slopes = []
    for series, group in _grouped(measurements, resolution=False).items():
        group.sort(key=_megapixels)
        sizes = tuple(_megapixels(m) for m in group)
        if series.instances is None and len(set(sizes)) > 1:
            seconds = tuple(m.median(PIPELINE) for m in group)
            slope = log_log_slope(sizes, seconds)
            slopes.append(Slope(series.model, series.engine, series.batch, sizes, seconds, slope))
    return slopes


def instance_costs(measurements: Sequence[Measurement]) -> list[InstanceCost]:
    """Compare scenes with different numbers of instances, the emptiest first."""
    costs = []
    for series, group in _grouped(measurements, instances=False).items():
        forwards = [m for m in group if m.variant.instances is None]
        forward = forwards[0].median(BARE) if forwards else None
        scenes = [m for m in group if m.variant.instances is not None]
        scenes.sort(key=lambda m: m.variant.instances)
        counts = [m.variant.instances for m in scenes]
        per_instance = None
        if len(set(counts)) > 1:
            per_instance = linear_slope(counts, [_behind(m) for m in scenes])
        for m in scenes:
            whole = None
            if forward:
                whole = (forward + _behind(m)) / (forward + _behind(scenes[0]))
            costs.append(
                InstanceCost(
                    series.model,
                    m.size,
                    series.engine,
                    m.variant.instances,
                    m.slots,
                    m.found,
                    _behind(m),
                    whole,
                    per_instance,
                )
            )
    return costs


def relative_costs(measurements: Iterable[Measurement]) -> list[BatchCost]:
    """Compare calls with several cameras to those with one, where both were measured."""
    costs = []
    for series, group in _grouped(measurements, batch=False).items():
        group.sort(key=lambda m: m.variant.batch)
        one = group[0]
        if series.instances is not None or one.variant.batch != 1 or len(group) < 2:
            continue
        for m in group:
            memory = None
            if m.memory_bytes is not None and one.memory_bytes:
                memory = m.memory_bytes / one.memory_bytes
            costs.append(
                BatchCost(
                    series.model,
                    m.size,
                    series.engine,
                    m.variant.batch,
                    m.median(TOTAL),
                    median_ratio(m.seconds[TOTAL], one.seconds[TOTAL]),
                    memory,
                )
            )
    return costs


def peer_ratios(report: Report) -> list[PeerRatio]:
    """Compare every peer with all of ours that took one image of the same size in the same run."""
    return [
        peer_ratio(peer, m)
        for peer in report.peers
        for m in report.measurements
        if m.run == peer.run
        and m.variant.batch == 1
        and m.variant.instances is None
        and m.variant.resolution == peer.resolution
    ]


def peer_ratio(peer: Peer, measurement: Measurement) -> PeerRatio:
    """Compare a peer with one of ours: from images to results, both in host memory.

    Raises:
        ValueError: They were not measured in the same rounds.
    """
    return PeerRatio(
        peer.name,
        format_size(peer.resolution),
        peer.detections,
        Quantiles.of(peer.seconds["total"]).median,
        measurement.variant.model,
        measurement.size,
        measurement.runtime,
        measurement.median(PIPELINE),
        median_ratio(peer.seconds["total"], measurement.seconds[PIPELINE]),
    )


def _grouped(
    measurements: Iterable[Measurement],
    resolution: bool = True,
    batch: bool = True,
    instances: bool = True,
) -> dict[Series, list[Measurement]]:
    """Group measurements by what they have in common; an argument False leaves it out."""
    groups: dict[Series, list[Measurement]] = {}
    for m in measurements:
        series = Series(
            m.variant.model,
            m.runtime,
            m.variant.batch if batch else 0,
            m.variant.instances if instances else None,
            m.variant.resolution if resolution else None,
            m.run,
        )
        groups.setdefault(series, []).append(m)
    return groups


def _behind(measurement: Measurement) -> float:
    """Median seconds of a planted scene without what comes before the forward."""
    return sum(measurement.median(stage) for stage in ("predict", "download", "publish"))


def _megapixels(measurement: Measurement) -> float:
    height, width = measurement.variant.resolution
    return height * width / 1e6
