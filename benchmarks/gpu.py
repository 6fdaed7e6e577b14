"""The whole measurement on a CUDA device in one call of eight minutes.

``python -m benchmarks.gpu [--output DIR] [--minutes 8] [--device cuda] [--quick]`` writes gpu.json
and gpu.md after every part, the most important first. Each part runs in a process of its own for
a limited time: one that fails or hangs loses nothing else. ``--quick --device cpu`` runs the same
in small, to see that all of it works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FASTER_THAN_THE_PAPER = 12
FRAME_LIMIT, CAMERA_TIME, CAMERA_MEMORY, INSTANCE_LIMIT = 1.3, 3.2, 1.5, 1.10

Facts = dict[str, Any]


def paper(config: str, device: str, quick: bool) -> Facts:
    """Time one paper's network: frame, forward, instances, cameras, memory, kernels."""
    import torch

    from benchmarks.papers import CAMERAS, PAPERS, frame_calls, make_segmenter
    from benchmarks.rounds import medians

    chosen = next(p for p in PAPERS if p.config == config)
    size = (288, 512) if quick else chosen.size
    before = _reserved(device)
    segmenter = make_segmenter(config, size, device)
    calls = frame_calls(segmenter, size)
    memory = _reserved(device) - before
    repeat, seconds = (1, 5) if quick else (30, 20)
    ms = {k: 1e3 * v for k, v in medians(calls, repeat, segmenter.device, seconds).items()}
    facts: Facts = {
        "engine": f"{segmenter.engine} {segmenter.precision}",
        "size": list(size),
        "ms": ms,
        "to reach, ms": 1e3 / chosen.frames_per_second / FASTER_THAN_THE_PAPER,
        f"frame / forward (to reach {FRAME_LIMIT})": ms["frame"] / ms["forward"],
        f"200 instances / 0 (to reach {INSTANCE_LIMIT})": (ms["forward"] + ms["200 instances"])
        / (ms["forward"] + ms["0 instances"]),
        "memory, MB": memory / 1e6,
        **_profile(calls["frame"], segmenter.device),
    }
    del calls
    four = make_segmenter(config, size, device)
    many = frame_calls(four, size, CAMERAS, ())[f"{CAMERAS} cameras"]
    together = 1e3 * medians({"all": many}, repeat, four.device, seconds)["all"]
    facts[f"{CAMERAS} cameras: time of one (to reach {CAMERA_TIME})"] = together / ms["frame"]
    if torch.cuda.is_available():
        all_memory = _reserved(device) - before - memory
        facts[f"{CAMERAS} cameras: memory of one (to reach {CAMERA_MEMORY})"] = all_memory / memory
    return facts


def shipped(device: str, quick: bool) -> Facts:
    """Time the shipped models at their own size; to reach: below 2 ms a frame."""
    from benchmarks.rounds import medians
    from panoptic_ros.benchmark.pictures import street_images
    from panoptic_ros.model_zoo import available_models
    from panoptic_ros.segmenter import Segmenter

    facts: Facts = {"to reach, ms": 2.0}
    for name in available_models()[: 1 if quick else None]:
        segmenter = Segmenter.load(name, device)
        (image,) = street_images(1, segmenter.resolution)
        segmenter.warm_up()
        calls = {"frame": lambda s=segmenter, i=image: s(i)}
        found = medians(calls, 1 if quick else 50, segmenter.device, 10)
        facts[name] = {
            "ms": 1e3 * found["frame"],
            **_profile(calls["frame"], segmenter.device),
        }
    return facts


def tests(device: str, quick: bool) -> Facts:
    """Run the tests that need a GPU, and those of the operations and engines."""
    chosen = ["test/ops", "test/engines"] if not quick else ["test/ops/test_merging.py"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *chosen], cwd=ROOT, capture_output=True, text=True
    )
    return {"exit code": run.returncode, "last lines": run.stdout.splitlines()[-15:]}


def training(device: str, quick: bool) -> Facts:
    """Train the default model for a minute on synthetic streets; returns steps per second."""
    import tempfile

    from panoptic_ros.training.trainer import train

    streets = {"set": "synthetic_streets", "settings": {"number": 64, "size": [360, 480]}}
    recipe = {
        "model": {"config": str(ROOT / "config/networks/fpsnet_small.yaml")},
        "data": [streets],
        "augmentation": {"crop_size": [64, 64] if quick else [288, 384]},
        "batch": 2 if quick else 16,
        "iterations": 3 if quick else 300,
        "optimiser": {"name": "adamw", "lr": 0.001},
        "workers": 0 if quick else 8,
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, folder, device=device)
    seconds = time.monotonic() - start
    return {"steps": recipe["iterations"], "seconds with the start": seconds}


PARTS: dict[str, tuple[Callable[[str, bool], Facts], float]] = {  # function, seconds at most
    "fpsnet": (lambda d, q: paper("fpsnet_cityscapes", d, q), 75),
    "dense_detection": (lambda d, q: paper("dense_detection_cityscapes", d, q), 75),
    "panonet": (lambda d, q: paper("panonet_cityscapes", d, q), 75),
    "epsnet": (lambda d, q: paper("epsnet_coco", d, q), 75),
    "panoptic_fcn": (lambda d, q: paper("panoptic_fcn_coco_star", d, q), 90),
    "shipped models": (shipped, 90),
    "training": (training, 90),
    "tests": (tests, 180),
}


def _reserved(device: str) -> int:
    import torch

    return torch.cuda.memory_reserved() if device.startswith("cuda") else 0


def _profile(call: Callable[[], object], device: Any) -> Facts:
    """Count the kernels of a frame, and the share of its time that the GPU is at work."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    if device.type != "cuda":
        return {}
    frames = 5
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        for _ in range(frames):
            call()
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    kernels = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(e.time_range.elapsed_us() for e in kernels) / 1e6
    return {"kernels": len(kernels) / frames, "GPU busy (to reach 0.8)": busy / seconds}


def _run_part(name: str, options: argparse.Namespace, seconds: float) -> Facts:
    words = ["--part", name, "--device", options.device, *(["--quick"] if options.quick else [])]
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {seconds:.0f} s"}
    lines = run.stdout.splitlines()
    if run.returncode or not lines:
        return {"failed": run.stderr.splitlines()[-5:]}
    return json.loads(lines[-1])


def _write(folder: Path, results: dict[str, Facts]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(results, indent=1))
    lines = []
    for part, facts in results.items():
        lines += [f"## {part}", ""]
        for name, value in facts.items():
            text = f"{value:.3g}" if isinstance(value, float) else json.dumps(value)
            lines.append(f"- {name}: {text}")
        lines.append("")
    (folder / "gpu.md").write_text("\n".join(lines))


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    folder = Path(os.environ.get("OUT") or "results/gpu")
    parser.add_argument("--output", type=Path, default=folder, help="default: $OUT or results/gpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part][0](options.device, options.quick)))
        return
    end = time.monotonic() + 60 * options.minutes
    results: dict[str, Facts] = {}
    for name, (_, seconds) in PARTS.items():
        left = end - time.monotonic()
        print(f"{name}: {left:.0f} s left", flush=True)
        results[name] = _run_part(name, options, min(seconds, left)) if left > 5 else {}
        _write(options.output, results)
    print((options.output / "gpu.md").read_text())


if __name__ == "__main__":
    main()
