"""Processes that write, killed with -9: at random moments, and at every step on the disk."""

from __future__ import annotations

import itertools
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

from campaigns.data_targets import CATEGORIES, annotations
from campaigns.model_targets import TINY

WRITER = """
import sys
from pathlib import Path
from campaigns.kills import write_forever
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
    from panoptic_ros.model_zoo import load_model
    from panoptic_ros.training.checkpoint import load_checkpoint

    if kind == "model":
        if (folder / "model" / "model.yaml").exists():
            load_model(folder / "model")
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


def kill_trainings(rounds: int, rng: random.Random, iterations: int = 60) -> int:
    """Kill trainings at random moments, each until it ends, until there were so many kills.

    Returns:
        How often one was killed.

    Raises:
        AssertionError, Exception: A checkpoint is broken, or a log has a step twice or not.
    """
    kills = 0
    while kills < rounds:
        kills += _kill_training(rounds - kills, rng, iterations)
    return kills


def _kill_training(most: int, rng: random.Random, iterations: int) -> int:
    from panoptic_ros.training.checkpoint import load_checkpoint

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        recipe, output = tiny_recipe(folder, iterations), folder / "run"
        command = [sys.executable, "-m", "panoptic_ros.cli", "train", "--config", str(recipe)]
        command += ["--output", str(output), "--device", "cpu"]
        kills, ended = 0, False
        while kills < most and not ended:
            seen = _steps(output)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            # Starting takes seconds in which nothing can break: wait for the first new step.
            while process.poll() is None and _steps(output) == seen:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stderr.close()
            ended = process.returncode != -signal.SIGKILL
            kills += not ended
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


def kill_at_every_step(folder: Path) -> int:
    """Kill a process that saves a model over another at each of its steps on the disk.

    Returns:
        The number of steps.

    Raises:
        AssertionError, ModelError: The folder does not hold the old model or the new.
    """
    from panoptic_ros.model_zoo import load_model, parse_config, save_model

    config = parse_config(TINY)
    network = config.build()
    weight = next(network.parameters()).data
    save_model(folder, config, network.requires_grad_(False))
    held = weight.clone()
    for step in itertools.count(1):
        weight.fill_(step)
        child = os.fork()
        if not child:
            try:
                die_at(step)
                save_model(folder, config, network)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
        loaded = next(load_model(folder)[1].parameters()).data
        assert loaded.equal(held) or loaded.equal(weight), f"neither, after step {step}"
        held = loaded.clone()
        if os.WIFEXITED(status):
            assert held.equal(weight)
            return step - 1


def die_at(step: int, below: Path | None = None) -> Callable[[], int]:
    """Have this process killed before its ``step``-th change of the disk, first is 1.

    Args:
        step: Which; 0 for none.
        below: Only changes of this folder count; all if None.

    Returns:
        A function that tells how many changes there have been.
    """
    taken = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal taken
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if event == "open" and isinstance(arguments[2], int):
            changes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not changes or (below and not str(arguments[0]).startswith(str(below))):
            return
        taken += 1
        if taken == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    return lambda: taken
