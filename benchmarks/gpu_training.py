"""Steps a second of training on a GPU: each small network, and one with its data loader.

``python -m benchmarks.gpu_training [--device cuda] [--seconds 4] [--batch 16]``. Every line of
the output is a JSON object. The steps of a network are made on batches that are there already;
``from the loader`` draws, augments and loads synthetic streets in processes beside.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from panoptic_ros.networks import NETWORKS
from panoptic_ros.training.batches import Batch, PartSampler, load_batches, training_mix
from panoptic_ros.training.distributed import process_group
from panoptic_ros.training.recipe import load_recipe
from panoptic_ros.training.stage_trainer import StageTrainer
from panoptic_ros.training.start import model_config, start_network

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "config/networks"
CROP = (288, 384)
WITH_LOADER = "fpsnet"
WARM_UP = 3  # steps


def recipe(name: str, batch: int, workers: int) -> dict[str, Any]:
    """Return a training of a small network on synthetic streets."""
    streets = {"set": "synthetic_streets", "settings": {"length": 64, "size": (360, 480)}}
    model = {"config": str(CONFIGURATIONS / f"{name}_small.yaml"), "input": {"resolution": CROP}}
    return {
        "model": model,
        "data": [streets],
        "augmentation": {"crop_size": CROP, "flip": 0.5, "photometric": True},
        "batch": batch,
        "iterations": 100_000,
        "optimiser": {"name": "adamw", "lr": 1e-4},
        "clip_norm": 10.0,
        "workers": workers,
    }


def timed(trainer: StageTrainer, batches: Iterable[Batch], seconds: float) -> dict[str, float]:
    """Make steps for so long, after some that do not count."""
    source: Iterator[Batch] = iter(batches)
    losses = [trainer.train_step([next(source)])["loss"] for _ in range(WARM_UP)]
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not done:
        losses.append(trainer.train_step([next(source)])["loss"])
        done += 1
    passed = time.perf_counter() - start
    assert all(map(math.isfinite, losses))
    return {"steps / s": done / passed, "loss": losses[-1]}


def measure(name: str, options: argparse.Namespace) -> None:
    """Print the facts of one network."""
    whole = load_recipe(recipe(name, options.batch, options.workers))
    (stage,) = whole.stages
    config = model_config(stage)
    mix = training_mix(stage, config.categories, seed=0)

    def batches(steps: int, workers: int) -> Iterable[Batch]:
        sampler = PartSampler(range(steps), stage.batch, 1, 0, 1)
        return load_batches(mix, sampler, workers)

    with process_group(options.device) as processes:
        trainer = StageTrainer(
            start_network(config, stage, None), stage, config.input, processes, seed=0
        )
        facts = timed(trainer, cycle(list(batches(2, 0))), options.seconds)
        if processes.device.type == "cuda":
            facts["peak, MB"] = torch.cuda.max_memory_allocated(processes.device) / 1e6
            torch.cuda.reset_peak_memory_stats(processes.device)
        print(json.dumps({f"{name}_small": facts}), flush=True)
        if name == WITH_LOADER:
            loaded = timed(trainer, batches(stage.iterations, whole.workers), 2 * options.seconds)
            loaded["workers"] = whole.workers
            print(json.dumps({f"{name}_small from the loader": loaded}), flush=True)


def main() -> None:
    """Measure all small networks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each network")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=12, help="processes that load batches")
    options = parser.parse_args()
    for name in NETWORKS:
        measure(name, options)


if __name__ == "__main__":
    main()
