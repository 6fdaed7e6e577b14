"""What is to be reached, and what a report says of it.

Everything is a ratio within one run, or milliseconds on a given device. A target without its
measurement is neither reached nor missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from panoptic_ros.benchmark.comparisons import (
    instance_costs,
    peer_ratio,
    relative_costs,
    resolution_slopes,
)
from panoptic_ros.benchmark.peers import MASK2FORMER, MASK_RCNN
from panoptic_ros.benchmark.results import (
    PANOPTIC_HEAD,
    PIPELINE,
    Measurement,
    Report,
    format_size,
)
from panoptic_ros.benchmark.table import milliseconds

Size = tuple[int, int]
HALF, FULL, NATIVE, COCO = (512, 1024), (1024, 2048), (550, 550), (800, 1344)
SMALL = (256, 512)
EPSNET_SMALL = (264, 512)  # it needs more than 256 pixels a side

PAPERS = (
    "fpsnet_cityscapes",
    "dense_detection_cityscapes",
    "panonet_cityscapes",
    "epsnet_coco",
    "panoptic_fcn_cityscapes",
)
# Seconds that each paper reports on its own GPU, at what size; a twelfth of it is the target.
PUBLISHED = {
    "fpsnet_cityscapes": (0.114, FULL),
    "dense_detection_cityscapes": (0.099, FULL),
    "panonet_cityscapes": (0.050, FULL),
    "epsnet_coco": (0.051, NATIVE),
    "panoptic_fcn_coco_star": (0.109, COCO),
}
FASTER_THAN_PUBLISHED = 12
# Times as fast as a peer, on the CPU: ours, at its size, the peer at 512x1024, factor.
FASTER_THAN_PEERS = (
    ("fpsnet_cityscapes", HALF, MASK_RCNN, 3.0),
    ("fpsnet_cityscapes", HALF, MASK2FORMER, 5.0),
    ("dense_detection_cityscapes", HALF, MASK_RCNN, 3.0),
    ("dense_detection_cityscapes", HALF, MASK2FORMER, 5.0),
    ("panonet_cityscapes", HALF, MASK_RCNN, 10.0),
    ("epsnet_coco", NATIVE, MASK_RCNN, 2.0),
    ("panoptic_fcn_cityscapes", HALF, MASK_RCNN, 2.0),
)
CPU_OVERHEAD, GPU_OVERHEAD = 1.15, 1.3
SLOPE, INSTANCES = 1.05, 1.10
CAMERAS, CAMERA_TIME, CAMERA_MEMORY = 4, 3.2, 1.5
GPU_MEMORY = 3 * 10**9
FASTEST_SMALL, EACH_SMALL = 10.0, 5.0  # frames per second


class Target(NamedTuple):
    """One line: what, its limit, what was measured, and whether that reaches it (None: open)."""

    what: str
    limit: str
    measured: str
    reached: bool | None


def cpu_targets(report: Report, small: Sequence[str] = ()) -> list[Target]:
    """Return what is to be reached on a CPU with 2 cores; ``small`` are the shipped models."""
    return [
        *_overheads(report, HALF, CPU_OVERHEAD),
        *_peers(report),
        *_small_models(report, small),
        *_slopes(report, PAPERS),
        *_instances(report, PAPERS),
    ]


def gpu_targets(report: Report) -> list[Target]:
    """Return what is to be reached on an H200."""
    return [
        *_overheads(report, FULL, GPU_OVERHEAD),
        *_published(report),
        *_cameras(report),
        *_slopes(report, PAPERS),
        *_instances(report, PAPERS),
    ]


def best(report: Report, model: str, size: Size, run: str | None = None) -> Measurement | None:
    """Return the fastest way that a model took single images at a size; None if it took none.

    Args:
        report: Of one run or several.
        model: Name.
        size: Resolution.
        run: Only of this run; None for any.
    """
    fitting = [
        m
        for m in report.measurements
        if (m.variant.model, m.variant.resolution) == (model, size)
        and m.variant.batch == 1
        and m.variant.instances is None
        and run in (None, m.run)
    ]
    return min(fitting, key=lambda m: m.median(PIPELINE), default=None)


def small_size(model: str) -> Size:
    """Return the (height, width) that a shipped model is measured at."""
    return EPSNET_SMALL if model == "epsnet_small" else SMALL


def _overheads(report: Report, size: Size, limit: float) -> list[Target]:
    targets = []
    for model in PAPERS:
        what = f"{model}, {format_size(size)}: whole pipeline / bare forward"
        m = best(report, model, size)
        if m is None:
            targets.append(_missing(what, f"<= {limit}"))
            continue
        measured = f"{m.overhead():.2f} ({m.runtime})"
        if PANOPTIC_HEAD in m.seconds:
            measured += f"; {m.overhead(with_head=True):.2f} with its head as forward"
        targets.append(Target(what, f"<= {limit}", measured, m.overhead() <= limit))
    return targets


def _peers(report: Report) -> list[Target]:
    targets = []
    for model, size, name, limit in FASTER_THAN_PEERS:
        what = f"{model}, {format_size(size)}: times as fast as {name}, {format_size(HALF)}"
        pairs = [
            (peer, best(report, model, size, peer.run))
            for peer in report.peers
            if (peer.name, peer.resolution) == (name, HALF)
        ]
        peer, m = next((pair for pair in pairs if pair[1]), (None, None))
        if m is None:
            targets.append(_missing(what, f">= {limit:g}"))
            continue
        value = peer_ratio(peer, m).ratio
        measured = f"{value:.1f} ({m.runtime})"
        targets.append(Target(what, f">= {limit:g}", measured, value >= limit))
    return targets


def _small_models(report: Report, small: Sequence[str]) -> list[Target]:
    """Frames per second from message to messages; the node itself is measured elsewhere."""
    rates = {}
    for model in small:
        if m := best(report, model, small_size(model)):
            rates[f"{model}, {m.size}"] = m.frames_per_second
    what = "frames/s from messages to messages, without transport, of"
    if not rates:
        return [_missing(f"{what} the fastest shipped model", f">= {FASTEST_SMALL:g}")]
    fastest = max(rates, key=rates.get)
    lines = [(f"the fastest, {fastest}", rates[fastest], FASTEST_SMALL)]
    lines += [(name, rate, EACH_SMALL) for name, rate in rates.items()]
    return [
        Target(f"{what} {name}", f">= {limit:g}", f"{rate:.1f}", rate >= limit)
        for name, rate, limit in lines
    ]


def _slopes(report: Report, models: Sequence[str]) -> list[Target]:
    targets = []
    for model in models:
        what = f"{model}: exponent of the cost over the pixels"
        slopes = [s for s in resolution_slopes(report.measurements) if s.model == model]
        if not slopes:
            targets.append(_missing(what, f"<= {SLOPE}"))
            continue
        s = max(slopes, key=lambda s: (len(s.megapixels), -sum(s.seconds)))
        sizes = f"{s.megapixels[0]:.2g} to {s.megapixels[-1]:.2g} megapixels, {s.engine}"
        if model.startswith("epsnet"):
            limit = "none: its attention is quadratic"
            targets.append(Target(what, limit, f"{s.slope:.2f} ({sizes})", None))
        else:
            measured = f"{s.slope:.2f} ({sizes})"
            targets.append(Target(what, f"<= {SLOPE}", measured, s.slope <= SLOPE))
    return targets


def _instances(report: Report, models: Sequence[str]) -> list[Target]:
    """Compare the dearest scene with the cheapest one, whole frames each."""
    targets = []
    for model in models:
        what = f"{model}: dearest / cheapest scene of 0 to 200 instances"
        costs = [c for c in instance_costs(report.measurements) if c.model == model and c.whole]
        if len({c.instances for c in costs}) < 2:
            targets.append(_missing(what, f"<= {INSTANCES}"))
            continue
        wholes = {c.instances: c.whole for c in costs}
        value = max(wholes.values()) / min(wholes.values())
        listed = ", ".join(f"{count}: {whole:.2f}" for count, whole in sorted(wholes.items()))
        measured = f"{value:.2f} ({listed}; {costs[0].engine})"
        targets.append(Target(what, f"<= {INSTANCES}", measured, value <= INSTANCES))
    return targets


def _published(report: Report) -> list[Target]:
    targets = []
    for model, (seconds, size) in PUBLISHED.items():
        limit = seconds / FASTER_THAN_PUBLISHED
        what = f"{model}, {format_size(size)}"
        m = best(report, model, size)
        time, memory = f"{what}: ms a frame", f"{what}: memory in MB"
        bytes_limit = f"< {GPU_MEMORY / 1e6:.0f}"
        if m is None:
            targets.append(_missing(time, f"<= {milliseconds(limit)}"))
            targets.append(_missing(memory, bytes_limit))
            continue
        taken = m.median(PIPELINE)
        measured = f"{milliseconds(taken)} ({m.runtime})"
        targets.append(Target(time, f"<= {milliseconds(limit)}", measured, taken <= limit))
        targets.append(_memory(m, memory, bytes_limit))
    return targets


def _memory(measurement: Measurement, what: str, limit: str) -> Target:
    taken = measurement.memory_bytes
    if taken is None:
        return _missing(what, limit)
    return Target(what, limit, f"{taken / 1e6:.0f}", taken < GPU_MEMORY)


def _cameras(report: Report) -> list[Target]:
    targets = []
    costs = [c for c in relative_costs(report.measurements) if c.batch == CAMERAS]
    for model in PAPERS:
        mine = [c for c in costs if c.model == model]
        what = f"{model}: {CAMERAS} cameras / one,"
        cost = min(mine, key=lambda c: c.seconds, default=None)
        for name, limit, value in (
            ("time", CAMERA_TIME, cost and cost.time),
            ("memory", CAMERA_MEMORY, cost and cost.memory),
        ):
            if value is None:
                targets.append(_missing(f"{what} {name}", f"<= {limit}"))
                continue
            measured = f"{value:.2f} ({cost.size}, {cost.engine})"
            targets.append(Target(f"{what} {name}", f"<= {limit}", measured, value <= limit))
    return targets


def _missing(what: str, limit: str) -> Target:
    return Target(what, limit, "not measured", None)
