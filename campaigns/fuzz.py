"""``make fuzz MINUTES=10``: hostile input to every way in, counted and judged.

    python -m campaigns.fuzz --minutes 10 --seed 1 --targets messages bags

Each target runs in a process of its own with a fixed seed. Every input is served or refused with
a reason; after every hundredth a good one must be served. An input that takes longer than
``PATIENCE``, more than ``GROWTH`` of memory, ends the process or raises anything else is a
finding: it is kept in test/corpus, which the tests replay, and the campaign fails.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from campaigns.targets import TARGETS, Target, load_target

CORPUS = Path(__file__).resolve().parents[1] / "test" / "corpus"
PATIENCE = 20.0  # seconds for one input, on a machine that may be busy
GROWTH = 500 * 2**20  # bytes of resident memory above that after the first inputs
WARM_UP = 200  # inputs
CURRENT, REPORT = "current.bin", "report.json"


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End the process with a traceback of all threads if the block takes longer."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def fuzz(
    target: Target, seed: int, seconds: float, folder: Path, most: int = sys.maxsize
) -> dict[str, Any]:
    """Use up to ``most`` inputs for a while; the one in use lies in ``folder``.

    Returns:
        Counts, memory in MiB at warm-up and at the end, the most CPU seconds of one input.

    Raises:
        AssertionError, Exception: A finding.
    """
    rng = random.Random(seed)
    memory = psutil.Process().memory_info
    report = {"target": target.name, "seed": seed, "inputs": 0, "served": 0, "refused": 0}
    report |= {"slowest": 0.0, "start_mib": 0.0, "end_mib": 0.0}
    end = time.monotonic() + seconds
    base = 0
    while time.monotonic() < end and report["inputs"] < most:
        data = target.make(rng)
        (folder / CURRENT).write_bytes(data)
        start = time.process_time()
        with deadline(PATIENCE):
            served = target.is_served(data)
        report["slowest"] = max(report["slowest"], time.process_time() - start)
        report["inputs"] += 1
        report["served" if served else "refused"] += 1
        if report["inputs"] % 100 == 0:
            check_good(target, rng)
            resident = memory().rss
            if report["inputs"] == WARM_UP:
                base = resident
            assert not base or resident < base + GROWTH, f"{resident / 2**20:.0f} MiB resident"
    check_good(target, rng)
    return {**report, "start_mib": base / 2**20, "end_mib": memory().rss / 2**20}


def check_good(target: Target, rng: random.Random) -> None:
    """Use a good input; it must be served.

    Raises:
        AssertionError: It is not.
    """
    example = rng.choice(target.examples)
    with deadline(PATIENCE):
        assert target.is_served(example), f"a good input of {target.name} is refused"


def replay(name: str, folder: Path) -> int:
    """Use every input of the corpus of a target; returns how many there are.

    Raises:
        AssertionError, Exception: One is a finding again.
    """
    target = load_target(name, folder)
    files = sorted((CORPUS / name).glob("*"))
    for file in files:
        with deadline(PATIENCE):
            target.is_served(file.read_bytes())
    check_good(target, random.Random(0))
    return len(files)


def _work(name: str, seed: int, seconds: float, folder: Path) -> None:
    """Fuzz one target in this process and write the report."""
    report = fuzz(load_target(name, folder), seed, seconds, folder)
    (folder / REPORT).write_text(json.dumps(report))


def _campaign(name: str, seed: int, seconds: float, keep: bool) -> tuple[dict[str, Any], str]:
    """Fuzz one target in a process of its own; returns its report and what was found."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        command = [sys.executable, "-m", "campaigns.fuzz", "--work", text, "--targets", name]
        command += ["--seed", str(seed), "--minutes", str(seconds / 60)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, capture_output=True, env=environment)
        if run.returncode == 0:
            return json.loads((folder / REPORT).read_text()), ""
        current = folder / CURRENT
        data = current.read_bytes() if current.exists() else b""
        digest = hashlib.sha256(data).hexdigest()[:12]
        if keep and current.exists():  # else it did not even start
            (CORPUS / name).mkdir(parents=True, exist_ok=True)
            (CORPUS / name / digest).write_bytes(data)
        last = "\n".join(run.stderr.decode(errors="replace").splitlines()[-25:])
        return {}, f"{name}, seed {seed}, input {digest} (exit code {run.returncode}):\n{last}"


def _has_launch() -> bool:
    """Tell whether ROS's launch is there; a folder of that name is a package, too."""
    try:
        return importlib.util.find_spec("launch.actions") is not None
    except ModuleNotFoundError:
        return False


def main() -> None:
    """Run the campaign and print a table; exit code 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="in all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--no-keep", action="store_true", help="leave test/corpus alone")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    if options.work:
        try:
            _work(options.targets[0], options.seed, seconds, options.work)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # threads of a node must not hold it up
        os._exit(0)
    print(f"seed {options.seed}")
    findings, total = [], 0
    print("| target | inputs | served | refused | slowest, CPU s | MiB, start to end |")
    print("|---|---|---|---|---|---|")
    for number, name in enumerate(options.targets):
        share = seconds / len(options.targets)
        if name == "launch" and not _has_launch():
            print(f"| {name} | skipped: ROS's package launch is not installed | | | | |")
            continue
        report, found = _campaign(name, options.seed + number, share, not options.no_keep)
        if found:
            findings.append(found)
            print(f"| {name} | finding | | | | |", flush=True)
            continue
        total += report["inputs"]
        print(
            "| {target} | {inputs} | {served} | {refused} | {slowest:.2f} | "
            "{start_mib:.0f} to {end_mib:.0f} |".format(**report),
            flush=True,
        )
    print(f"{total} inputs, {len(findings)} findings", *findings, sep="\n\n")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
