"""Whether the forms for GPUs give the labels of the CPU's, without a GPU.

``python -m benchmarks.static_forms --images camvid/val --every 10`` runs the shipped models on
images, each at its own resolution: the forms' plain parts as they are, their kernels in Triton's
interpreter, which takes 2 to 30 s an image. ``--scenes 0 1 50 200`` plants so many instances in
what ``forward`` says of a small street instead. Needs triton, and TRITON_INTERPRET=1 before it.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from benchmarks.planting import plant
from benchmarks.scenes import Layout
from panoptic_ros.benchmark.pictures import street_images
from panoptic_ros.files.pictures import read_image
from panoptic_ros.model_zoo import ModelConfig, load_model
from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.ops.segments import EncodedSegments, encode_segments
from panoptic_ros.truth import FrameSize

# The interpreter takes the same time for a program whatever the size of its tile, so that few and
# large ones are up to a hundred times as fast. The tests have the tiles of GPUs.
LARGE_TILES = {
    "upsampling_triton": {"_ROWS": 512, "_COLUMNS": 512},
    "mask_bits_triton": {"TILE_ROWS": 64, "TILE_WORDS": 16},
    "merging_triton": {"TILE_ROWS": 64, "TILE_WORDS": 16, "_AT_ONCE": 2},
    "mean_shift_triton": {"_PROGRAMS": 4, "_POINTS": 2048},
    "nearest_triton": {"_PROGRAMS": 4, "_CELLS": 2048},
    "dynamic_kernels_triton": {"_PROGRAMS": 4},
}


class OnCuda(TorchFunctionMode):
    """Makes code believe that its tensors are on a GPU; they stay where they are."""

    def __torch_function__(self, function, types, arguments=(), settings=None):
        """Answer for the device; make everything on the CPU."""
        if function == torch.Tensor.device.__get__:
            return torch.device("cuda:0")
        if function == torch.Tensor.is_cuda.__get__:
            return True
        stay = [torch.device("cpu") if isinstance(a, torch.device) else a for a in arguments]
        settings = settings or {}
        if settings.get("device") is not None:
            settings = {**settings, "device": torch.device("cpu")}
        return function(*stay, **settings)


@torch.inference_mode()
def both_forms(
    config: ModelConfig,
    network: PanopticNetwork,
    image: np.ndarray,
    size: tuple[int, int],
    output: tuple[int, int],
    instances: int | None = None,
) -> tuple[EncodedSegments, EncodedSegments]:
    """Return the segments by the CPU's forms and by those for GPUs.

    Args:
        config: The model.
        network: With its weights.
        image: uint8, (H, W, 3), RGB.
        size: (height, width) that the network sees.
        output: (height, width) of the label image.
        instances: Plant so many in the network's outputs, in place of what it sees.
    """
    batch, sizes = config.input.prepare([torch.from_numpy(image)], size, network.padded_size(size))
    sizes = [FrameSize(sizes[0].valid, output)]
    raw = network.eval()(batch)
    if instances is not None:
        raw = plant(network, raw, Layout.of(instances, len(network.thing_ids), sizes[0].valid))

    def segments() -> EncodedSegments:
        (found,) = network.predict(raw, sizes, config.options)
        return encode_segments(found, network.thing_ids, config.options.stuff_area_limit)

    expected = segments()
    with OnCuda():
        return expected, segments()


def enlarge_tiles() -> None:
    """Give the kernels tiles that suit the interpreter; results are the same."""
    for module, sizes in LARGE_TILES.items():
        for name, value in sizes.items():
            setattr(importlib.import_module(f"panoptic_ros.ops.{module}"), name, value)


def listed(segments: EncodedSegments) -> list[int]:
    """Return the label values of the segments that are there, ascending."""
    table = segments.table
    return sorted(table[table[:, 1] > 0, 0].tolist())


def compare(name: str, images: list[np.ndarray], instances: int | None = None) -> str:
    """Return a line on how equal a shipped model's forms are.

    Args:
        name: Of the model.
        images: As ``both_forms`` takes them.
        instances: See ``both_forms``; the network then sees a small image, for the interpreter.
    """
    config, network = load_model(name)
    size = config.input.resolution if instances is None else scene_size(config.network)
    shares, same, segments = [], 0, 0
    for image in images:
        expected, found = both_forms(config, network, image, size, image.shape[:2], instances)
        shares.append((found.labels == expected.labels).double().mean().item())
        same += listed(found) == listed(expected)
        segments += len(listed(expected))
    return (
        f"{name}: {len(images)} images, {segments} segments: equal labels on "
        f"{100 * np.mean(shares):.4f} % of the pixels, {100 * min(shares):.4f} % at least; "
        f"the same segments in {same}"
    )


def scene_size(network: str) -> tuple[int, int]:
    """Return (height, width) that is small, since the interpreter is slow, but not too small."""
    return (264, 288) if network == "epsnet" else (128, 192)


def main() -> None:
    """Compare, and print a line for each model, or each model and scene."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--images", type=Path, help="folder")
    what.add_argument("--scenes", type=int, nargs="+", metavar="INSTANCES")
    parser.add_argument("--every", type=int, default=10, help="take every n-th of the images")
    parser.add_argument("--models", nargs="*", default=[f"{name}_small" for name in NETWORKS])
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") != "1":
        parser.error("TRITON_INTERPRET is not 1; put it before the command")
    enlarge_tiles()
    for name in options.models:
        if options.images:
            paths = sorted(options.images.iterdir())[:: options.every]
            print(compare(name, [read_image(path) for path in paths]), flush=True)
        for instances in options.scenes or []:
            line = compare(name, street_images(1, (128, 192)), instances)
            print(f"{instances} planted: {line}", flush=True)


if __name__ == "__main__":
    main()
