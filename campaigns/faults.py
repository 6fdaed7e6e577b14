"""``make faults ROUNDS=10``: processes killed at random moments, disks that are full or read-only.

    python -m campaigns.faults --rounds 10 --seed 1

What stands in a file afterwards must be whole: the old or the new. A training that was killed and
resumed any number of times has every step in its log once. The faults of the node (out of memory,
threads that raise, a process that stands still, time that jumps, models that change) are tests,
in test/ros/test_faults.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from campaigns.data_targets import CATEGORIES
from campaigns.model_targets import TINY

WRITER = """
import sys
from pathlib import Path
from campaigns.faults import write_forever
write_forever(sys.argv[1], Path(sys.argv[2]))
"""
KINDS = ("model", "engine", "checkpoint")


def write_forever(kind: str, folder: Path) -> None:
    """Write the same files again and again, with other contents each time."""
    import torch

    from panoptic_ros.engines import cache
    from panoptic_ros.model_zoo import parse_config, save_model
    from panoptic_ros.training.checkpoint import save_checkpoint

    config = parse_config(TINY)
    network = config.build()
    os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        if kind == "model":
            next(network.parameters()).data.fill_(number)
            save_model(folder / "model", config, network)
        elif kind == "engine":
            cache._write("key", bytes([number % 256]) * 3_000_000)
        else:
            save_checkpoint(folder / "checkpoint.pt", {"n": torch.full((700_000,), number)})


def check_written(kind: str, folder: Path) -> None:
    """Read what a killed writer has left; it must be whole.

    Raises:
        AssertionError, Exception: It is not.
    """
    from panoptic_ros.engines import cache
    from panoptic_ros.model_zoo import ModelError, load_model
    from panoptic_ros.training.checkpoint import load_checkpoint

    if kind == "model":
        if (folder / "model" / "model.yaml").exists():
            try:
                load_model(folder / "model")
            except ModelError as error:  # new weights beside the old description: refused
                assert "sha256" in str(error), error
    elif kind == "engine":
        os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")
        if cache._path("key").exists():
            data = cache._read("key")
            assert data and len(data) == 3_000_000 and len(set(data)) == 1
    elif (folder / "checkpoint.pt").exists():
        assert load_checkpoint(folder / "checkpoint.pt")["n"].unique().numel() == 1


def kill_writers(kind: str, rounds: int, rng: random.Random) -> int:
    """Kill a process that writes, at random moments; returns how often."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for _ in range(rounds):
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, kind, text], stdout=subprocess.PIPE
            )
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            check_written(kind, folder)
    return rounds


def tiny_recipe(folder: Path, iterations: int) -> Path:
    """Write a recipe of the smallest network, and its data; returns its file."""
    from campaigns.data_targets import annotations

    annotations(folder).use(annotations(folder).examples[0])
    source = {"annotations": str(folder / "truth.json"), "images": str(folder / "images")}
    recipe = {
        "model": {**TINY, "categories": CATEGORIES},
        "data": [{"set": "coco_panoptic", "settings": source}],
        "augmentation": {"scale": [0.8, 1.2], "crop_size": [64, 64]},
        "batch": 2,
        "iterations": iterations,
        "optimiser": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        "schedule": {"name": "poly", "warmup": 2},
        "precision": "fp32",
        "workers": 0,
        "log_every": 1,
        "checkpoint_every": 3,
        "seed": 3,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def kill_training(rounds: int, rng: random.Random, iterations: int = 60) -> int:
    """Kill a training at random moments, then let it end; returns how often it was killed.

    Raises:
        AssertionError, Exception: A checkpoint is broken, or the log has a step twice or not.
    """
    from panoptic_ros.training.checkpoint import load_checkpoint

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        recipe, output = tiny_recipe(folder, iterations), folder / "run"
        command = [sys.executable, "-m", "panoptic_ros.cli", "train", "--config", str(recipe)]
        command += ["--output", str(output), "--device", "cpu"]
        kills = 0
        for _ in range(rounds):
            seen = _steps(output)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            # Starting takes seconds in which nothing can break: wait for the first new step.
            while process.poll() is None and _steps(output) == seen:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stderr.close()
            kills += process.returncode == -signal.SIGKILL
            if (output / "checkpoint.pt").exists():
                load_checkpoint(output / "checkpoint.pt")
        subprocess.run(command, check=True, capture_output=True)
        steps = [json.loads(row)["step"] for row in _rows(output)]
        assert sorted(steps) == list(range(1, iterations + 1)), steps
        return kills


def _rows(output: Path) -> list[str]:
    log = output / "log.jsonl"
    return log.read_text().splitlines() if log.exists() else []


def _steps(output: Path) -> str:
    return "".join(_rows(output)[-1:])


def on_small_disk(size: int, read_only: bool, use: Callable[[Path], None]) -> bool:
    """Call a function with a folder on a disk of ``size`` bytes; False if none can be mounted."""
    with tempfile.TemporaryDirectory() as text:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", text]
        if subprocess.run(mount, capture_output=True).returncode:
            return False
        try:
            if read_only:
                subprocess.run(["mount", "-o", "remount,ro", text], check=True)
            use(Path(text))
        finally:
            subprocess.run(["umount", text], check=True)
    return True


def check_full_disk(folder: Path) -> None:
    """A full or read-only disk: an OSError with the reason, and what was there stays."""
    from panoptic_ros.engines import cache
    from panoptic_ros.system import write_file

    old = folder / "old"
    fits = os.statvfs(folder).f_flag & os.ST_RDONLY == 0
    if fits:
        write_file(old, b"whole")
    for path in (old, folder / "new"):
        try:
            write_file(path, bytes(1 << 21))
        except OSError as error:
            assert error.strerror
        else:
            raise AssertionError(f"{path} was written")
    left = sorted(entry.name for entry in folder.iterdir())
    assert left == (["old"] if fits else []), left
    assert not fits or old.read_bytes() == b"whole"
    os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")
    assert cache.cached("key", lambda: (bytes(1 << 21), "built"), bytes.decode) == "built"


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    rng = random.Random(options.seed)
    for kind in KINDS:
        print(f"{kind}: {kill_writers(kind, options.rounds, rng)} kills", flush=True)
    print(f"training: {kill_training(options.rounds, rng)} kills", flush=True)
    for read_only in (False, True):
        done = on_small_disk(1 << 20, read_only, check_full_disk)
        what = "read-only" if read_only else "full"
        print(f"disk {what}: {'whole' if done else 'skipped, cannot mount'}", flush=True)


if __name__ == "__main__":
    main()
