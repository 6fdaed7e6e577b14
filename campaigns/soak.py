"""``make soak HOURS=24``: the frames of so many hours at 30 Hz, as fast as the node can.

    python -m campaigns.soak --hours 24 --most-minutes 60 --output docs/soak.png

Images enter a real node in this process as from DDS: they are converted, segmented by a small
network, and published. The stamps are those of a 30 Hz camera, so hours pass on the frames' clock.
Its own resident memory, file descriptors and threads are sampled; the slope of a straight line
through the memory of the second half must be 0 within three standard errors or below ``SLOPE``,
and the other two constant. Every frame received must end in one counter.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from test.ros.blobs import BlobSegmenter, check_blobs, load_blobs
from test.ros.peers import image_message, picture

RATE = 30.0  # frames per second of the camera
SLOPE = 1.0  # MiB in an hour of the camera that pass for none
SAMPLES = 400
REPORTS = 4000  # diagnostics before the first sample; see ``_fill_cache_of_names``


@dataclass
class Soak:
    """What was seen.

    Attributes:
        samples: float64, (N, 4): hours of the camera, resident MiB of its own, open file
            descriptors and threads. All rows are there from the start: samples that pile up in
            the process under test would be memory that grows, 260 bytes each.
        taken: How many of the rows are filled.
        counts: Of the node's statistics at the end.
    """

    samples: np.ndarray = field(default_factory=lambda: np.full((2 * SAMPLES, 4), -1.0))
    taken: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    _process: psutil.Process = field(default_factory=psutil.Process)

    def sample(self, frames: int) -> None:
        """Look at the process."""
        process = self._process
        info = process.memory_info()
        memory = (info.rss - info.shared) / 2**20  # pages of files come and go as others need them
        row = frames / RATE / 3600, memory, process.num_fds(), process.num_threads()
        self.samples[self.taken] = row
        self.taken += 1

    @property
    def columns(self) -> np.ndarray:
        """Hours, memory, file descriptors and threads of the samples taken: (4, taken)."""
        return self.samples[: self.taken].T

    def problems(self) -> list[str]:
        """Return what is not as it should be."""
        hours, memory, files, threads = self.columns
        slope, error = slope_of(hours, memory)
        found = []
        if slope > max(3 * error, SLOPE):
            found.append(f"memory grows by {slope:.3f} +- {error:.3f} MiB an hour")
        for name, values in (("file descriptors", files), ("threads", threads)):
            later = values[len(values) // 2 :]
            if max(later) > min(later):
                found.append(f"{name} go from {min(later):.0f} to {max(later):.0f}")
        ended = sum(count for name, count in self.counts.items() if name != "received")
        if ended != self.counts["received"]:
            found.append(f"{self.counts['received']} frames came, {ended} ended: {self.counts}")
        return found


def slope_of(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return slope and standard error of the straight line through the second half of points."""
    half = len(x) // 2
    across, up = np.asarray(x[half:]), np.asarray(y[half:])
    centred = across - across.mean()
    slope = centred @ (up - up.mean()) / (centred @ centred)
    rest = up - up.mean() - slope * centred
    return float(slope), float(np.sqrt(rest @ rest / max(len(up) - 2, 1) / (centred @ centred)))


def soak(hours: float, most_seconds: float, model: str = "") -> Soak:
    """Run the frames of some hours, or as many as there is time for.

    Args:
        hours: Of the camera.
        most_seconds: After which it ends early.
        model: Name of a model; the segmenter of the tests if empty.
    """
    from panoptic_ros.ros.node import PanopticNode

    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    overrides = [Parameter("model", value=model or "blobs"), Parameter("lazy", value=False)]
    stand_in = {} if model else {"load": _load_stand_in, "check": check_blobs}
    node = PanopticNode(**stand_in, context=context, parameter_overrides=overrides)
    executor.add_node(node)
    result = Soak()
    try:
        node.start()
        _fill_cache_of_names(node)
        _feed(node, executor, result, round(hours * 3600 * RATE), most_seconds)
        result.counts = counts_of(node)
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    return result


def _load_stand_in(parameters: Any) -> BlobSegmenter:
    """Load the segmenter of the tests, which would otherwise remember every call."""
    segmenter = load_blobs(parameters)
    segmenter.batches, segmenter.seen = deque(maxlen=1), deque(maxlen=1)
    return segmenter


def _fill_cache_of_names(node) -> None:
    """Publish diagnostics until CPython has cached as many names of attributes as it ever does.

    rclpy looks up the fields of a message by new strings; the cache keeps up to 4,096 of them, of
    some 60 bytes. At one report a second it fills for an hour, which would look like a leak.
    """
    for _ in range(REPORTS):
        node._report()


def _feed(node, executor, result: Soak, frames: int, most_seconds: float) -> None:
    message = image_message(picture())
    end = time.monotonic() + most_seconds
    sampled = time.monotonic()
    for number in range(frames):
        seconds, index = divmod(number, int(RATE))
        message.header.stamp.sec, message.header.stamp.nanosec = seconds, int(index * 1e9 / RATE)
        node.receive(message)
        _wait_for_turn(node, number)
        if number % 50 == 0:
            executor.spin_once(0)  # diagnostics
        now = time.monotonic()
        if now >= sampled + most_seconds / SAMPLES or number == frames - 1:
            sampled = now
            result.sample(number + 1)
        if now > end:
            break
    _wait_for_turn(node, -1)


def counts_of(node) -> dict[str, int]:
    """Return how the images of the node's single camera ended, as diagnostics say."""
    return node._cameras[""].statistics.counts()


def _wait_for_turn(node, number: int) -> None:
    """Wait until a frame has ended, but for every tenth, which the next may replace."""
    if number >= 0 and number % 10 == 9:
        return
    give_up = time.monotonic() + 30
    while True:
        counts = counts_of(node)
        if sum(counts.values()) == 2 * counts["received"]:
            return
        assert time.monotonic() < give_up, f"frames do not end: {counts}"
        time.sleep(0.0002)


def draw(result: Soak, path: Path, title: str) -> None:
    """Draw memory, file descriptors and threads over the hours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    upper, middle, lower = figure.subplots(3, sharex=True)
    hours, memory, files, threads = result.columns
    upper.plot(hours, memory, ".", markersize=3, color="#0072B2")
    upper.set_ylim(0, 1.2 * max(memory))
    upper.set_ylabel("memory of its own, MiB")
    middle.plot(hours, 1024 * (memory - memory[0]), ".", markersize=3, color="#0072B2")
    middle.set_ylabel("more than at first, KiB")
    lower.plot(hours, files, label="file descriptors", color="#D55E00")
    lower.plot(hours, threads, label="threads", color="#009E73")
    lower.set_ylim(0, 1.2 * max(*files, *threads))
    lower.set_xlabel("hours of a camera of 30 Hz")
    lower.legend(frameon=False, loc="lower left")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run it, draw it, and exit with 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--most-minutes", type=float, default=24 * 60.0)
    parser.add_argument("--model", default="", help="name of a model; a stand-in unless given")
    parser.add_argument("--output", type=Path, default=Path("soak.png"))
    options = parser.parse_args()
    start = time.monotonic()
    result = soak(options.hours, 60 * options.most_minutes, options.model)
    minutes = (time.monotonic() - start) / 60
    hours, memory, *_ = result.columns
    slope, error = slope_of(hours, memory)
    title = (
        f"{result.counts['received']} frames ({hours[-1]:.2f} hours at 30 Hz) in "
        f"{minutes:.1f} minutes, {options.model or 'stand-in for a network'}: memory "
        f"{slope:.4f} ± {error:.4f} MiB an hour"
    )
    draw(result, options.output, title)
    print(title, result.counts, *result.problems(), sep="\n")
    sys.exit(bool(result.problems()))


if __name__ == "__main__":
    main()
