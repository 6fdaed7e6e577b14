"""The whole measurement on a CPU, against what is to be reached; see benchmarks/README.md.

``python benchmarks/cpu.py [--only NAME ...] [--output DIR] [--repeat N] [--fresh]`` runs each part
in a process of its own and writes cpu.json, cpu.md and cpu.png after every one of them. What was
measured before in that folder is kept: run it again to go on, with ``--fresh`` to start anew.
``--smoke`` runs the same with small networks on small pictures, to see that all of it works.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from panoptic_ros.benchmark.command import make_variants
from panoptic_ros.benchmark.parts import Part, run_part, run_parts, write_all
from panoptic_ros.benchmark.peers import MASK_RCNN, MASKFORMER, PEERS
from panoptic_ros.benchmark.results import Report, Variant
from panoptic_ros.benchmark.targets import (
    FULL,
    HALF,
    NATIVE,
    PAPERS,
    SMALL,
    cpu_targets,
    small_size,
)
from panoptic_ros.model_zoo import available_models

ENGINES = ("auto", "eager", "compiled", "onnxruntime")
INSTANCES = (0, 50, 200)


def all_parts(repeat: int) -> list[Part]:
    """Return the parts of the full run, the quickest to tell something first."""
    small = small_variants(engines=("auto", "eager"))
    parts = [Part("small", tuple(small), ((MASK_RCNN, SMALL),), repeat)]
    parts += [paper_part(model, repeat) for model in PAPERS]
    parts += [
        Part(f"sizes_{model}", tuple(make_variants([model], (SMALL, HALF, FULL))), (), repeat)
        for model in PAPERS
    ]
    cameras = small_variants((1, 2, 4))
    cameras += make_variants(["panonet_cityscapes", "fpsnet_cityscapes"], [HALF], (1, 4))
    return [*parts, Part("cameras", tuple(cameras), (), repeat)]


def small_variants(
    batches: Sequence[int] = (1,), engines: Sequence[str] = ("auto",)
) -> list[Variant]:
    """Return the shipped models, each at its small size."""
    return [
        variant
        for model in available_models()
        for variant in make_variants([model], [small_size(model)], batches, engines)
    ]


def paper_part(model: str, repeat: int) -> Part:
    """Return one paper's network: all engines, instances, and peers, in the same rounds."""
    sizes = [HALF, NATIVE] if model.startswith("epsnet") else [HALF]
    variants = make_variants([model], sizes, engines=ENGINES)
    variants += make_variants([model], sizes, precision="fp32")  # as the peers compute
    variants += [Variant(model, HALF, instances=number) for number in INSTANCES]
    return Part(model, tuple(variants), tuple(itertools.product(PEERS, sizes)), repeat)


def smoke_parts() -> list[Part]:
    """Return the same shape of a run in small: a network, two sizes, a peer, two cameras."""
    model, sizes = "fpsnet_small", ((64, 128), (128, 256))
    variants = make_variants([model], sizes[:1], (1, 2), ("auto", "eager"))
    variants += make_variants([model], sizes[:1], instances=(0, 20))[1:]
    return [
        Part("small", tuple(variants), ((MASKFORMER, sizes[0]), ("no such peer", sizes[0])), 2),
        Part("sizes", tuple(make_variants([model], sizes, engines=["eager"])), (), 2),
    ]


def write(stem: Path, report: Report) -> str:
    """Write what there is so far, and return it as text."""
    targets = cpu_targets(report, available_models())
    return write_all(report, targets, stem, "CPU benchmark")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that are not measured yet and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts to run; the default: all")
    parser.add_argument("--output", type=Path, default=Path("results/cpu"), help="folder")
    parser.add_argument("--repeat", type=int, default=7, help="rounds of every part")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    parser.add_argument("--smoke", action="store_true", help="small, to see that it works")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    parts = smoke_parts() if options.smoke else all_parts(options.repeat)
    by_name = {part.name: part for part in parts}
    if options.list:
        print("\n".join(by_name))
        return
    if unknown := set(options.only or ()) - set(by_name):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(by_name)}")
    if options.part:
        run_part(by_name[options.part], options.parts)
        return
    names, folder = options.only or list(by_name), options.output / "parts"
    if options.fresh:
        for name in names:
            (folder / f"{name}.json").unlink(missing_ok=True)
    words = ["--repeat", str(options.repeat), *(["--smoke"] if options.smoke else [])]
    stem = options.output / "cpu"
    report = run_parts(Path(__file__), words, parts, folder, math.inf, partial(write, stem), names)
    print(write(stem, report))


if __name__ == "__main__":
    main()
