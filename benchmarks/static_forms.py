"""Whether the forms for GPUs give the labels of the CPU's, without a GPU.

``python -m benchmarks.static_forms --images camvid/val --every 10`` runs the shipped models on
images, each at its own resolution: the forms' plain parts as they are, their kernels in Triton's
interpreter, which takes a minute an image. Needs triton, and TRITON_INTERPRET=1 is set here.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from panoptic_ros.files.pictures import read_image
from panoptic_ros.model_zoo import ModelConfig, load_model
from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.ops.segments import EncodedSegments, encode_segments
from panoptic_ros.truth import FrameSize


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
) -> tuple[EncodedSegments, EncodedSegments]:
    """Return the segments by the CPU's forms and by those for GPUs.

    Args:
        config: The model.
        network: With its weights.
        image: uint8, (H, W, 3), RGB.
        size: (height, width) that the network sees.
        output: (height, width) of the label image.
    """
    batch, sizes = config.input.prepare([torch.from_numpy(image)], size, network.padded_size(size))
    sizes = [FrameSize(sizes[0].valid, output)]
    raw = network.eval()(batch)

    def segments() -> EncodedSegments:
        (found,) = network.predict(raw, sizes, config.options)
        return encode_segments(found, network.thing_ids, config.options.stuff_area_limit)

    expected = segments()
    with OnCuda():
        return expected, segments()


def listed(segments: EncodedSegments) -> list[int]:
    """Return the label values of the segments that are there, ascending."""
    table = segments.table
    return sorted(table[table[:, 1] > 0, 0].tolist())


def main() -> None:
    """Compare, and print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder")
    parser.add_argument("--every", type=int, default=10, help="take every n-th of them")
    parser.add_argument("--models", nargs="*", default=[f"{name}_small" for name in NETWORKS])
    options = parser.parse_args()
    os.environ["TRITON_INTERPRET"] = "1"  # triton is imported with the first kernel
    paths = sorted(options.images.iterdir())[:: options.every]
    for name in options.models:
        config, network = load_model(name)
        shares, same, segments = [], 0, 0
        for path in paths:
            image = read_image(path)
            size = config.input.resolution
            expected, found = both_forms(config, network, image, size, image.shape[:2])
            shares.append((found.labels == expected.labels).double().mean().item())
            same += listed(found) == listed(expected)
            segments += len(listed(expected))
        print(
            f"{name}: {len(paths)} images, {segments} segments: equal labels on "
            f"{100 * np.mean(shares):.4f} % of the pixels, {100 * min(shares):.4f} % at least; "
            f"the same segments in {same}",
            flush=True,
        )


if __name__ == "__main__":
    main()
