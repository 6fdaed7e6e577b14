"""The whole measurement on a CUDA device in one call.

``python -m benchmarks.gpu [--minutes 8] [--output DIR] [--device cuda] [--quick]`` prints every
fact at once and writes gpu.json, the most important first. Every network is a process of its own:
all are compiled at the same time, which takes processors, and measured one after the other. One
that fails or hangs loses nothing else. TORCHINDUCTOR_MAX_AUTOTUNE=1 makes inductor try more, for
minutes. ``--quick --device cpu`` runs the same in small, to see that all of it works.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.papers import PAPERS

ROOT = Path(__file__).resolve().parents[1]
FASTER_THAN_THE_PAPER = 12
TO_REACH = {"frame / forward": 1.3, "GPU busy": 0.8, "200 instances / 0": 1.1, "memory, MB": 1000}
TO_REACH |= {"4 cameras: time of one": 3.2, "4 cameras: memory of one": 1.5}
ONE_NETWORK = 40  # seconds at most to measure it
SHIPPED, SHIPPED_MS = "fpsnet_small", 2.0
LINES_OF_ERROR = 12

Facts = dict[str, Any]


class Network:
    """A process that builds one network, and measures it when told to.

    Args:
        name: Model or configuration.
        size: (height, width); None for the model's own.
        options: Of the command line.
        folder: For its log.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int] | None,
        options: argparse.Namespace,
        folder: Path,
    ) -> None:
        self.name, self.is_built, self.has_ended = name, False, False
        self._log = folder / f"{name}.log"
        words = ["--network", name, "--device", options.device]
        words += ["--size", "x".join(map(str, size))] if size else []
        words += ["--quick"] if options.quick else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()  # None: its end
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def start_measuring(self) -> None:
        """Let it go on."""
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except OSError:  # it has died: reading says so
            pass

    def read(self, seconds: float, until_built: bool, found: Callable[[Facts], None]) -> bool:
        """Pass its facts on for so long, until it is built or ends; returns whether it did."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return False
            if line is None:
                self.has_ended = True
                if code := self._process.wait():
                    found({"failed": [f"exit code {code}", *self._last_lines()]})
                return True
            if line.startswith("{"):
                self.is_built = True
                found(json.loads(line))
                if until_built:
                    return True

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()

    def warnings(self) -> list[str]:
        """Return what its log says of graphs."""
        lines = self._log.read_text().splitlines()
        return [line[:300] for line in lines if line.startswith("WARNING")]

    def _last_lines(self) -> list[str]:
        lines = [line for line in self._log.read_text().splitlines() if line.strip()]
        return [line[:300] for line in lines[-LINES_OF_ERROR:]]


def networks(options: argparse.Namespace, results: Results, end: float) -> None:
    """Build all networks at once, and measure each alone as soon as it is built."""
    small = (128, 256)
    wanted = [(p.config, small if options.quick else p.size) for p in PAPERS]
    wanted = [item for item in (*wanted, (SHIPPED, None)) if item[0] in (options.only or item[0])]
    with tempfile.TemporaryDirectory() as folder:
        left = [Network(name, size, options, Path(folder)) for name, size in wanted]
        try:
            while left and time.monotonic() < end:
                for network in left:
                    if not network.is_built:
                        network.read(0.05, True, partial(results.add, network.name))
                left = [n for n in left if not n.has_ended]  # before it was built: it failed
                network = next((n for n in left if n.is_built), None)
                if network is None:
                    continue
                left.remove(network)
                network.start_measuring()
                seconds = min(ONE_NETWORK, end - time.monotonic())
                if not network.read(seconds, False, partial(results.add, network.name)):
                    results.add(network.name, {"cut off after, s": seconds})
                network.end()
                if warnings := network.warnings():
                    results.add(network.name, {"warnings": warnings})
            for network in left:
                results.add(network.name, {"failed": "not built in time"})
        finally:
            for network in left:
                network.end()


def command(words: list[str], seconds: float) -> Facts:
    """Run a command for a limited time."""
    start = time.monotonic()
    try:
        run = subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {seconds:.0f} s"}
    lines = (run.stdout + run.stderr).splitlines()[-LINES_OF_ERROR:]
    return {"exit code": run.returncode, "seconds": time.monotonic() - start, "end": lines}


TRAINING = """
from panoptic_ros.training.trainer import train
import tempfile
streets = {"set": "synthetic_streets", "settings": {"number": 64, "size": [360, 480]}}
train({"model": {"config": "config/networks/fpsnet_small.yaml"}, "data": [streets], "batch": 16,
       "augmentation": {"crop_size": [288, 384]}, "iterations": 300, "workers": 8,
       "optimiser": {"name": "adamw", "lr": 0.001}}, tempfile.mkdtemp(), device="DEVICE")
"""


class Results:
    """What is known, printed and written as it comes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "gpu.json"
        self._begin = time.monotonic()
        self.facts: dict[str, Facts] = {}

    def add(self, part: str, facts: Facts) -> None:
        """Print facts of a part and write all."""
        self.facts.setdefault(part, {}).update(facts)
        for name, value in facts.items():
            text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
            limit = f" (to reach {TO_REACH[name]})" if name in TO_REACH else ""
            print(f"{self._passed():4.0f} {part}: {name}: {text}{limit}", flush=True)
        self._file.write_text(json.dumps(self.facts, indent=1))

    def _passed(self) -> float:
        return time.monotonic() - self._begin

    def table(self) -> str:
        """Return the most important facts as Markdown, a row per network."""
        names = ["frame, ms", "forward, ms", *TO_REACH, "kernels", "labels as eager"]
        lines = [f"| | to reach, ms | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
        goals = {p.config: 1e3 / p.frames_per_second / FASTER_THAN_THE_PAPER for p in PAPERS}
        for part, goal in {**goals, SHIPPED: SHIPPED_MS}.items():
            facts = self.facts.get(part, {})
            cells = [f"{facts[n]:.4g}" if n in facts else "-" for n in names]
            lines.append(f"| {part} | {goal:.2f} | {' | '.join(cells)} |")
        return "\n".join(lines)


def main() -> None:
    """Measure what fits into the time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    folder = Path(os.environ.get("OUT") or "results/gpu")
    parser.add_argument("--output", type=Path, default=folder, help="default: $OUT or results/gpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument(
        "--only", nargs="*", metavar="NETWORK", help="measure these networks alone"
    )
    parser.add_argument("--network", help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.network:
        from benchmarks.gpu_part import run

        size = tuple(map(int, options.size.split("x"))) if options.size else None
        run(options.network, size, options.device, options.quick)
        return
    end = time.monotonic() + 60 * options.minutes
    results = Results(options.output)
    networks(options, results, end)
    parts = {
        "tests": ["-m", "pytest", "-q", "test/test_frame_graph.py", "test/engines", "test/ops"],
        "training": ["-c", TRAINING.replace("DEVICE", options.device)],
    }
    for name, words in parts.items():
        left = end - time.monotonic()
        if left > 30 and not (options.quick or options.only):
            results.add(name, command(words, min(left, 180)))
    print(results.table(), flush=True)


if __name__ == "__main__":
    main()
