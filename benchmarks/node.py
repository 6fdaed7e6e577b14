"""What the node costs besides the network: camera, node and receiver in processes of their own.

``python -m benchmarks.node [overhead idle overlap cameras]`` runs all four, or those named, over
DDS with the shipped profile, and prints a table. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from panoptic_ros.demo.processes import Processes
from panoptic_ros.ros.frame_statistics import percentiles

PEERS = "benchmarks.node_peers"
READY_SECONDS = 120.0
WARM_UP_SECONDS = 2.0
DRAIN_SECONDS = 1.5
FULL_HD, VGA = "1080x1920", "480x640"
FREE = "stand-in"  # a model that costs nothing
COLUMNS = ("what", "measured", "target")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Rig:
    """Camera, node and receiver for one measurement.

    Args:
        processes: Where to start them.
        options: Of the camera: ``size``, ``rate``, ``seconds``, ``jpeg``.
        cameras: Names; the empty name is a single camera.
        listen: Topics of the receiver.
        parameters: Of the node; None for no node.
    """

    def __init__(
        self,
        processes: Processes,
        options: dict[str, Any],
        cameras: tuple[str, ...] = ("",),
        listen: tuple[str, ...] = (),
        parameters: dict[str, str] | None = None,
    ) -> None:
        self._processes = processes
        self._seconds = options["seconds"]
        self._has_node = parameters is not None
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.sent = 0
        words = [f"/{name}/image" if name else "/image" for name in cameras]
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)] * bool(value)
        self._camera = processes.start("camera", PEERS, "camera", *words)
        self._wait("camera", "ready")
        self._pid = 0
        if self._has_node:
            arguments = [w for k, v in parameters.items() for w in ("-p", f"{k}:={v}")]
            processes.start("node", PEERS, "node", "--ros-args", *arguments)
            self._pid = self._wait("node", "process")["pid"]
        self._receiver = processes.start("receiver", PEERS, "receiver", *listen)
        self._wait("receiver", "ready")
        while self._has_node and self.diagnostics.get("model", {}).get("state") != "active":
            self._wait("receiver", "diagnostics")
        time.sleep(WARM_UP_SECONDS)

    def run(self) -> dict[str, list[float]]:
        """Publish for a while; returns the ages of what was received, in ms, by topic."""
        self._play()
        time.sleep(DRAIN_SECONDS)
        if self._has_node:
            self._wait("receiver", "diagnostics")
        self._receiver.tell("report")
        ages = self._wait("receiver", "ages")["ages"]
        return {topic: [1e3 * age for age in values] for topic, values in ages.items()}

    def _play(self) -> None:
        self._camera.tell("go")
        self.sent += self._wait("camera", "sent")["number"]

    def processor_share(self) -> float:
        """Publish for a while; returns the processor time of the node per time, in percent."""
        before, start = self._processor_seconds(), time.monotonic()
        self._play()
        return 100 * (self._processor_seconds() - before) / (time.monotonic() - start)

    def _processor_seconds(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def resident_megabytes(self) -> float:
        """Return the resident memory of the node."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def count(self, what: str) -> int:
        """Return a counter of the node, over all its cameras."""
        return sum(int(values.get(what, 0)) for values in self.diagnostics.values())

    def stage(self, name: str) -> float:
        """Return the median duration of a stage of the node, in ms."""
        return float(self.diagnostics["model"].get(f"{name} p50 (ms)", "nan"))

    def _wait(self, process: str, kind: str) -> dict[str, Any]:
        """Wait for an event; returns its fields."""
        deadline = time.monotonic() + READY_SECONDS + self._seconds
        while True:
            event = self._processes.next_event(deadline, f"{kind} of the {process}")
            if event.kind == "diagnostics":
                self.diagnostics = event.fields
            if (event.process, event.kind) == (process, kind):
                return event.fields


@contextmanager
def rig(options: dict[str, Any], **arguments: Any) -> Iterator[Rig]:
    """Start a rig; its processes end with the block."""
    with tempfile.TemporaryDirectory() as logs, Processes(Path(logs)) as processes:
        yield Rig(processes, options, **arguments)


def overhead(seconds: float) -> Iterator[tuple[str, str, str]]:
    """Measure the way through the node beside the way straight from camera to receiver."""
    options = {"seconds": seconds, "size": FULL_HD}
    with rig(options, listen=("/image",)) as run:
        ages = run.run()["/image"]
        direct = percentiles(ages)["p50"]
    yield "1080p bgr8 at 30 Hz, camera to receiver: age p50", f"{direct:.1f} ms", ""
    yield "- frames lost", f"{run.sent - len(ages)} of {run.sent}", ""
    with rig(options, listen=("/panoptic/labels",), parameters={"model": FREE}) as run:
        ages = run.run()["/panoptic/labels"]
        middle, late = percentiles(ages).values()
        yield "the same through the node, free model: age p50", f"{middle:.1f} ms", "12 ms"
        yield "- against the direct way", f"{middle / direct:.2f}", ""
        yield "- p95", f"{late:.1f} ms", ""
        yield "- frames lost", f"{run.sent - len(ages)} of {run.sent}", "0"
        on_way = (run.sent - run.count("received"), run.count("published") - len(ages))
        where = "{} to the node, {} in it, {} from it".format(
            on_way[0], run.count("received") - run.count("published"), on_way[1]
        )
        yield "- of them", where, ""
        stages = ("wait", "convert", "segment", "publish")
        inside = ", ".join(f"{name} {run.stage(name):.1f}" for name in stages)
        yield "- stages in the node, p50 (ms)", inside, ""


def idle(seconds: float) -> Iterator[tuple[str, str, str]]:
    """Measure what the node takes while nobody listens."""
    for name, size in (("640x480", VGA), ("1080p", FULL_HD)):
        options = {"seconds": seconds, "size": size}
        with rig(options, parameters={"model": FREE}) as run:
            share = run.processor_share()
        yield f"{name} bgr8 at 30 Hz, nobody listens: of a core", f"{share:.2f} %", "2 %"
        with rig(options, listen=("/panoptic/labels",), parameters={"model": FREE}) as run:
            share = run.processor_share()
        yield "- with one listener, free model", f"{share:.1f} %", ""


def overlap(seconds: float) -> Iterator[tuple[str, str, str]]:
    """Measure which part of the time the model works when frames come faster than it is."""
    for name, jpeg in (("bgr8", False), ("JPEG", True)):
        for model, words in (("stand-in 0.02", "20 ms on a device"), ("fpsnet_small", "")):
            options = {"seconds": seconds, "size": FULL_HD, "jpeg": jpeg, "rate": 60}
            parameters = {
                "model": model,
                "resolution": "256x512",
                "image_transport": "compressed" if jpeg else "raw",
            }
            with rig(options, listen=("/panoptic/labels",), parameters=parameters) as run:
                ages = run.run()["/panoptic/labels"]
                busy = run.stage("segment") * run.count("published") / (10 * seconds)
                what = f"1080p {name} at 60 Hz, {words or model}: model at work"
                yield what, f"{busy:.0f} %", "100 %"
                rate, age = len(ages) / seconds, percentiles(ages)["p50"]
                yield "- published, age p50", f"{rate:.1f} Hz, {age:.0f} ms", ""


def cameras(seconds: float) -> Iterator[tuple[str, str, str]]:
    """Measure one camera and four with the same model."""
    times, memory = [], []
    for names in (("front",), ("front", "left", "right", "rear")):
        parameters = {
            "model": "fpsnet_small",
            "resolution": "256x512",
            "cameras": f"[{','.join(names)}]",
        }
        topics = tuple(f"/panoptic/{name}/labels" for name in names)
        options = {"seconds": seconds, "size": VGA}
        with rig(options, cameras=names, listen=topics, parameters=parameters) as run:
            ages = run.run()
            times.append(run.stage("segment"))
            memory.append(run.resident_megabytes())
            rates = ", ".join(f"{len(ages.get(topic, [])) / seconds:.1f}" for topic in topics)
            what = f"fpsnet_small at 256x512, {len(names)} of 640x480 at 30 Hz"
            yield f"{what}: a batch", f"{times[-1]:.0f} ms", ""
            yield "- published (Hz)", rates, ""
    yield "four cameras against one: time", f"{times[1] / times[0]:.2f}", "3.2 on a GPU"
    yield "four cameras against one: memory", f"{memory[1] / memory[0]:.2f}", "1.5 on a GPU"


MEASUREMENTS = {f.__name__: f for f in (overhead, idle, overlap, cameras)}


def main() -> None:
    """Run the measurements and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    arguments = parser.parse_args()
    rows = []
    print("| " + " | ".join(COLUMNS) + " |\n|---|---|---|")
    for name in arguments.names or MEASUREMENTS:
        for row in MEASUREMENTS[name](arguments.seconds):
            rows.append(dict(zip(COLUMNS, row, strict=True)))
            print("| " + " | ".join(row) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    # The children find this folder as a package below the repository's root.
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    sys.exit(main())
