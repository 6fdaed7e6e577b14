"""The whole measurement on a CUDA device in one call of ten minutes; see benchmarks/README.md.

``python benchmarks/gpu.py [--output DIR] [--minutes 9]`` needs a checkout of the repository and a
Python with torch and torchvision for CUDA. What else is missing is installed with pip where that
works. It writes gpu.json, gpu.md and gpu.png after every part, the most important part first, and
each part runs in a process of its own for a limited time: one that fails loses nothing else.
``--smoke`` runs the same with a small network, also on a CPU, to see that all of it works.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {  # module: what pip calls it
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "tqdm": "tqdm",
    "typer": "typer",
    "yaml": "pyyaml",
}
WANTED = {"matplotlib": "matplotlib", "transformers": "transformers"}  # picture, peers
REPEAT, FEW = 20, 10
OTHER_ENGINES = ("compiled", "tensorrt")  # auto and eager are measured before them
INSTANCES, CAMERAS = (0, 50, 200), 4

if TYPE_CHECKING:
    from panoptic_ros.benchmark.parts import Part
    from panoptic_ros.benchmark.results import Report


def install_missing() -> None:
    """Install what is not there; raises SystemExit when torch or something needed is missing."""
    for module in ("torch", "torchvision"):
        if importlib.util.find_spec(module) is None:
            sys.exit(f"{module} is not installed; take the build for this machine's CUDA")
    missing = [pip for name, pip in {**NEEDED, **WANTED}.items() if not _is_there(name)]
    if missing:
        print(f"installing {' '.join(missing)}", flush=True)
        for name in missing:  # one by one: what cannot be had does not hold up the others
            command = [sys.executable, "-m", "pip", "install", "--quiet", name]
            subprocess.run(command, timeout=120, check=False)
        importlib.invalidate_caches()
    if missing := [pip for name, pip in NEEDED.items() if not _is_there(name)]:
        sys.exit(f"not installed, and pip cannot: {' '.join(missing)}")


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def all_parts() -> list[Part]:
    """Return the parts, the most important first."""
    from panoptic_ros.benchmark.command import make_variants
    from panoptic_ros.benchmark.parts import Part
    from panoptic_ros.benchmark.peers import PEERS
    from panoptic_ros.benchmark.results import Variant
    from panoptic_ros.benchmark.targets import (
        FULL,
        HALF,
        PAPERS,
        PUBLISHED,
        SMALL,
    )

    published = [
        Variant(model, size, engine=engine)
        for model, (_, size) in PUBLISHED.items()
        for engine in ("auto", "eager")
    ]
    targets = make_variants(
        [m for m in PAPERS if m not in PUBLISHED or m == "epsnet_coco"], [FULL]
    )
    cameras = make_variants(PAPERS, [FULL], (1, CAMERAS))
    sizes = make_variants(PAPERS, [SMALL, HALF, FULL])
    others = make_variants(PAPERS, [HALF], engines=("auto", "eager", *OTHER_ENGINES))
    others += make_variants(PAPERS, [FULL], engines=("auto", *OTHER_ENGINES))
    peers = tuple(itertools.product(PEERS, (FULL, HALF)))
    return [
        Part("published", (*published, *targets), (), REPEAT, 150),
        Part("peers", tuple(make_variants(PAPERS, [FULL, HALF])), peers, FEW, 120),
        Part("cameras", tuple(cameras), (), FEW, 100),
        Part(
            "instances",
            tuple(make_variants(PAPERS, [FULL], instances=INSTANCES)),
            (),
            FEW,
            130,
        ),
        Part("sizes", tuple(sizes), (), FEW, 100),
        Part("engines", tuple(others), (), FEW, 240),
    ]


def smoke_parts() -> list[Part]:
    """Return the same shape of a run in small, and a part that is out of time."""
    from panoptic_ros.benchmark.command import make_variants
    from panoptic_ros.benchmark.parts import Part

    model, size, larger = "fpsnet_small", (64, 128), (128, 256)
    few = make_variants([model, "no such model"], [size], (1, 2), ["eager", "tensorrt"])
    scenes = make_variants([model], [size], engines=["eager"], instances=(0, 20))
    return [
        Part("published", tuple(few), (("no such peer", size),), 2),
        Part("ended by force", tuple(make_variants([model], [size])), (), 2, 1),
        Part("instances", tuple(scenes), (), 2),
        Part("sizes", tuple(make_variants([model], [size, larger], engines=["eager"])), (), 2),
    ]


def write(stem: Path, report: Report) -> str:
    """Write what there is so far, and return it as text."""
    from panoptic_ros.benchmark.parts import write_all
    from panoptic_ros.benchmark.targets import gpu_targets

    return write_all(report, gpu_targets(report), stem, "GPU benchmark")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all parts and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    folder = Path(os.environ.get("OUT") or "results/gpu")
    parser.add_argument("--output", type=Path, default=folder, help="default: $OUT or results/gpu")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts")
    parser.add_argument("--smoke", action="store_true", help="small, to see that it works")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.part:
        install_missing()
    sys.path.insert(0, str(ROOT))  # a checkout is enough
    import torch

    from panoptic_ros.benchmark.parts import run_part, run_parts

    if not options.smoke and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device; --smoke runs without one")
    parts = smoke_parts() if options.smoke else all_parts()
    if options.part:
        run_part(next(part for part in parts if part.name == options.part), options.parts)
        return
    words = ["--smoke"] if options.smoke else []
    stem = options.output / "gpu"
    with tempfile.TemporaryDirectory() as folder:
        report = run_parts(
            Path(__file__),
            words,
            parts,
            Path(folder),
            60 * options.minutes,
            partial(write, stem),
        )
    print(write(stem, report))


if __name__ == "__main__":
    main()
