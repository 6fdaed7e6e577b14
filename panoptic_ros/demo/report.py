"""What became of every frame, how long it took, and with what: report.json. Needs no ROS."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import panoptic_ros
from panoptic_ros.demo.results import Result
from panoptic_ros.ros.frame_statistics import percentiles
from panoptic_ros.system import package_version, ros_distribution

MILLISECONDS = 1e-6  # of a nanosecond
# What the node counts for a frame besides received: each frame ends in exactly one of them.
FATES = ("published", "dropped", "refused", "failed", "rate_limited", "unheard")


@dataclass
class StampCheck:
    """Compares every result with the frame whose stamp it carries.

    Attributes:
        results: How many results were received.
        repeated: Results whose stamp another result had before.
        unknown: Results whose stamp no sent frame has.
        other_frame_id: Results whose frame_id differs from their frame's.
        other_size: Results whose size differs from their frame's.
        without_instances: Results without an instance message of their stamp.
    """

    sent: frozenset[int]
    results: int = 0
    repeated: int = 0
    unknown: int = 0
    other_frame_id: int = 0
    other_size: int = 0
    without_instances: int = 0
    _seen: set[int] = field(default_factory=set, repr=False)

    def add_result(self, result: Result) -> None:
        """Check what can be told from the result alone."""
        self.results += 1
        self.repeated += result.stamp in self._seen
        self.unknown += result.stamp not in self.sent
        self.without_instances += not result.has_instances
        self._seen.add(result.stamp)

    def add_pair(self, frame_id: str, size: tuple[int, int], result: Result) -> bool:
        """Check a result against its frame; False when they differ in size."""
        fits = result.prediction.labels.shape == size
        self.other_frame_id += result.frame_id != frame_id
        self.other_size += not fits
        return fits

    def summary(self) -> dict[str, Any]:
        """Return the counts, and ``verified``: whether all results are as they should be."""
        faults = {
            "repeated": self.repeated,
            "of_unknown_frames": self.unknown,
            "with_other_frame_id": self.other_frame_id,
            "with_other_size": self.other_size,
            "without_instances": self.without_instances,
        }
        verified = self.results > 0 and not any(faults.values())
        return {"verified": verified, "results": self.results, **faults}


def account_for_frames(
    sent: int, recorded: int, counters: Mapping[str, int]
) -> dict[str, int | bool]:
    """Say what became of the frames sent.

    Args:
        sent: Frames that the player published.
        recorded: Frames whose result was received.
        counters: The node's: ``received`` and ``FATES``.

    Returns:
        The counts. ``lost_in_transport`` never reached the node (its queue holds one frame: DDS
        itself replaces one that a busy node has not taken), ``results_lost`` were published but
        not received. ``all_accounted_for`` is whether each frame that the node received
        ended in one fate, and none came from nowhere.
    """
    fates = {name: counters[name] for name in FATES}
    received = counters["received"]
    lost = sent - received
    return {
        "sent": sent,
        "received": received,
        **fates,
        "lost_in_transport": lost,
        "recorded": recorded,
        "results_lost": fates["published"] - recorded,
        "all_accounted_for": received == sum(fates.values())
        and lost >= 0
        and fates["published"] >= recorded,
    }


def rounded_percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50 and p95 of some milliseconds, rounded to a tenth; empty for no values."""
    return {name: round(value, 1) for name, value in percentiles(values).items()}


def rate(times: Sequence[int]) -> float:
    """Return events per second from their moments in nanoseconds; 0 for less than two."""
    if len(times) < 2:
        return 0.0
    return round((len(times) - 1) * 1e9 / (max(times) - min(times)), 2)


def stage_latencies(diagnostics: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Collect ``STAGE p50 (ms)`` and ``STAGE p95 (ms)`` of the node's diagnostics by stage.

    ``age`` (now - stamp) is left out: the stamps are those of the bag, maybe years old.
    """
    stages: dict[str, dict[str, float]] = {}
    for key, value in diagnostics.items():
        for part in ("p50", "p95"):
            if key.endswith(ending := f" {part} (ms)") and not key.startswith("age "):
                stages.setdefault(key.removesuffix(ending), {})[part] = float(value)
    return stages


def frame_table(
    sent: Mapping[int, int], results: Mapping[int, tuple[int, int]]
) -> list[dict[str, Any]]:
    """List all frames sent.

    Args:
        sent: Moment of publication by stamp, both in nanoseconds.
        results: Moment of receipt of the result, and number of instances, by stamp.

    Returns:
        For each frame its stamp, and latency (ms) and instances of its result, None without one.
    """
    table = []
    for stamp, published in sent.items():
        received, instances = results.get(stamp, (None, None))
        latency = None if received is None else round((received - published) * MILLISECONDS, 2)
        table.append({"stamp": stamp, "latency_ms": latency, "instances": instances})
    return table


def instance_summary(numbers: Sequence[int]) -> dict[str, float]:
    """Return least, mean and most instances per frame; empty for no frames."""
    if not numbers:
        return {}
    mean = round(statistics.fmean(numbers), 2)
    return {"min": min(numbers), "mean": mean, "max": max(numbers)}


def versions() -> dict[str, str]:
    """Return the versions of all that matters for speed and results."""
    return {
        "panoptic_ros": panoptic_ros.__version__,
        "ros": ros_distribution(),
        "rclpy": package_version("rclpy"),
        "torch": package_version("torch"),
        "torchvision": package_version("torchvision"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
