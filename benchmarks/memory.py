"""Peak memory of post-processing: what it takes beyond the network's outputs.

``python benchmarks/memory.py [NAME ...]`` runs ``predict`` and the encoding of the label image
at 1024x2048 (EPSNet: 550x550 to a label image of 1024x2048), each configuration in a process of
its own. Noise stands for the network's outputs, with scores so high that every instance slot is
in use: the worst case, which is checked. On CUDA the number is what torch's allocator reserves,
elsewhere the process's resident memory (Linux), with glibc told to give freed blocks back at
once, so that it is the peak of live tensors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panoptic_ros.benchmark.loading import load_network, network_resolution
from panoptic_ros.benchmark.memory import peak_memory
from panoptic_ros.benchmark.table import MEGABYTE
from panoptic_ros.benchmark.targets import PAPERS
from panoptic_ros.devices import PRECISIONS
from panoptic_ros.model_zoo import ModelConfig
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import FrameSize, PredictionOptions, SegmentMap

NAMES = (*PAPERS, "dense_detection_coco", "panoptic_fcn_cityscapes_star", "panoptic_fcn_coco")
OUTPUT = (1024, 2048)
WARM_UP = (288, 288)  # small; EPSNet needs more than 256 a side
OPTIONS = PredictionOptions(score_threshold=0.0, overlap_threshold=1.0)
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}  # glibc's environment variable


@torch.inference_mode()
def measure(name: str, device: str, precision: str) -> dict[str, Any]:
    """Measure one configuration in this process.

    Returns:
        ``name``, ``megabytes`` beyond those of the network's outputs (``outputs``), and
        ``instances``, the thing slots in use.

    Raises:
        RuntimeError: Slots stayed empty, so that it was not the worst case, or this system does
            not tell the peak.
    """
    config, network, _ = load_network(name)
    dtype = PRECISIONS[precision]
    network = network.to(device, dtype)
    if config.network == "panoptic_fcn":  # fresh, its masks would all be one half everywhere
        nn.init.normal_(network.thing_embedding.weight, std=0.1)
    resolution = network_resolution(config, OUTPUT)
    warm_up = noise(config, WARM_UP, device, dtype)
    post_process(network, warm_up, FrameSize(WARM_UP, WARM_UP))
    raw, size = noise(config, resolution, device, dtype), FrameSize(resolution, OUTPUT)
    peak = peak_memory(lambda: post_process(network, raw, size), torch.device(device))
    if peak is None:
        raise RuntimeError("the peak of memory is known on CUDA and on Linux only")
    class_ids = post_process(network, raw, size).class_ids
    things = len(class_ids) - len(network.stuff_ids)
    used = int((class_ids[:things] > 0).sum())
    if used < things:
        raise RuntimeError(f"{name}: {used} of {things} slots in use; this is no worst case")
    outputs = sum(value.nbytes for value in raw.values())
    return {
        "name": name,
        "megabytes": round(peak / MEGABYTE),
        "outputs": round(outputs / MEGABYTE),
        "instances": used,
    }


def noise(
    config: ModelConfig, resolution: tuple[int, int], device: str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return random values in place of what ``forward`` returns for one image."""
    with torch.device("meta"):
        network = config.build().eval().to(dtype)
        shapes = network(torch.empty(1, 3, *resolution, dtype=dtype))
    raw = {name: torch.randn_like(shape, device=device) for name, shape in shapes.items()}
    for name, value in raw.items():
        if name.startswith("offsets"):  # sides of boxes, in pixels
            value.mul_(0.5).add_(3).exp_()
        elif name == "anchors":
            value.uniform_(0.05, 0.95)
        elif name == "embedding":  # on a wide grid, so that there are many clusters
            value.round_().mul_(3)
    return raw


def post_process(network: PanopticNetwork, raw: dict[str, Tensor], size: FrameSize) -> SegmentMap:
    """Do what the segmenter does between ``forward`` and the download."""
    segments = network.predict(raw, [size], OPTIONS)[0]
    encode_segments(segments, network.thing_ids)
    return segments


def main() -> None:
    """Measure every configuration in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help="configurations")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.names[0], arguments.device, arguments.precision)))
        return
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.precision}\n")
    print("| configuration | instances | network's outputs (MB) | post-processing (MB) |")
    print("|---|---:|---:|---:|")
    rows = []
    for name in arguments.names:
        command = [sys.executable, __file__, name, "--here"]
        command += ["--device", arguments.device, "--precision", arguments.precision]
        environment = {**os.environ, **RETURN_FREED}
        result = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        rows.append(json.loads(result.stdout))
        print("| {name} | {instances} | {outputs} | {megabytes} |".format(**rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
