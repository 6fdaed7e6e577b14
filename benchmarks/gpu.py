"""The whole measurement on a CUDA device in one call.

``python -m benchmarks.gpu [--minutes 8] [--output DIR] [--only NETWORK ...] [--quick]`` prints
every fact at once and writes gpu.json, the most important first; logs.txt has all that the parts
wrote. Every network is a process of its own: all are compiled at the same time, which takes
processors, and measured one after the other when none compiles any more. One that fails or hangs
loses nothing else. TORCHINDUCTOR_MAX_AUTOTUNE=1 makes inductor try more, for minutes.
``--quick --device cpu`` runs the same in small, to see that all of it works.
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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.papers import PAPERS
from panoptic_ros.networks import NETWORKS

ROOT = Path(__file__).resolve().parents[1]
FASTER_THAN_THE_PAPER = 12
TO_REACH = {"frame / forward": 1.3, "GPU busy": 0.8, "200 instances / 0": 1.1, "memory, MB": 1000}
TO_REACH |= {"4 cameras: time of one": 3.2, "4 cameras: memory of one": 1.5}
BUILDING = 200  # seconds for all networks at most; what is built then is measured
ONE_NETWORK = 40  # seconds at most to measure it
TESTS, TRAINING = 120, 90  # seconds at most
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
        lines = self.log().splitlines()
        return [line[:300] for line in lines if line.startswith("WARNING")]

    def log(self) -> str:
        """Return all of its log."""
        return self._log.read_text()

    def _last_lines(self) -> list[str]:
        lines = [line for line in self.log().splitlines() if line.strip()]
        return [line[:300] for line in lines[-LINES_OF_ERROR:]]


def networks(options: argparse.Namespace, results: Results, end: float) -> None:
    """Build all networks at once; measure each alone when all are built."""
    small = (128, 256)
    wanted = [(p.config, small if options.quick else p.size) for p in PAPERS]
    wanted = [item for item in (*wanted, (SHIPPED, None)) if item[0] in (options.only or item[0])]
    with tempfile.TemporaryDirectory() as folder:
        started = [Network(name, size, options, Path(folder)) for name, size in wanted]
        try:
            built = time.monotonic() + BUILDING
            for network in started:
                seconds = max(1.0, min(built, end) - time.monotonic())
                if not network.read(seconds, True, partial(results.add, network.name)):
                    results.add(network.name, {"failed": f"not built in {BUILDING} s"})
                    network.end()
            for network in [n for n in started if n.is_built]:
                network.start_measuring()
                seconds = max(1.0, min(ONE_NETWORK, end - time.monotonic()))
                if not network.read(seconds, False, partial(results.add, network.name)):
                    results.add(network.name, {"cut off after, s": seconds})
                network.end()
                if warnings := network.warnings():
                    results.add(network.name, {"warnings": warnings})
        finally:
            for network in started:
                network.end()
                results.log(network.name, network.log())


def commands(wanted: Mapping[str, list[str]], seconds: float, results: Results) -> None:
    """Run Python with some arguments each, all at the same time, for a limited time."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        logs = {name: Path(folder) / str(number) for number, name in enumerate(wanted)}
        running = {
            name: subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                stdout=logs[name].open("w"),
                stderr=subprocess.STDOUT,
            )
            for name, words in wanted.items()
        }
        for name, process in running.items():
            try:
                process.wait(max(0.1, start + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            text = logs[name].read_text()
            end = [line for line in text.splitlines() if not line.startswith("{")]
            for line in text.splitlines():
                if line.startswith("{"):
                    results.add(name, json.loads(line))
            passed = time.monotonic() - start
            results.add(
                name, {"exit code": process.returncode, "seconds": passed, "end": end[-3:]}
            )
            results.log(name, text)


def tests() -> dict[str, list[str]]:
    """Return the arguments of the tests that need a GPU, in parts that take equally long."""
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    parts = {
        f"tests of {name}'s graph": [
            *pytest,
            "test/test_frame_graph.py",
            "-k",
            f"eager and {name}",
        ]
        for name in NETWORKS
    }
    return {"tests of kernels": [*pytest, "test/ops", "-k", "triton"], **parts}


class Results:
    """What is known, printed and written as it comes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file, self._logs = folder / "gpu.json", (folder / "logs.txt").open("w")
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

    def log(self, part: str, text: str) -> None:
        """Keep all that a part wrote."""
        self._logs.write(f"\n===== {part}\n{text}\n")
        self._logs.flush()

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
    left = end - time.monotonic()
    if not (options.only or options.quick) and left > 30:
        commands(tests(), min(left, TESTS), results)
    left = end - time.monotonic()
    if not options.only and left > 30:
        words = ["-m", "benchmarks.gpu_training", "--device", options.device]
        quick = ["--seconds", "1", "--batch", "2"] if options.quick else []
        commands({"training": [*words, *quick]}, min(left, TRAINING), results)
    print(results.table(), flush=True)


if __name__ == "__main__":
    main()
