"""Parameters and multiply-adds of every configuration in config/networks, at its resolution.

``python -m benchmarks.counts [NAME ...]``. Nothing is computed: shapes are propagated on torch's
meta device. Parameters are torch's: frozen batch norms that are buffers do not count, EPSNet's,
which are parameters, do. Multiply-adds are those of ``forward`` and, for FPSNet, of its panoptic
head, which runs inside ``predict``: convolutions and matrix products, for one image.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from panoptic_ros.model_zoo import load_config
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.fpsnet.network import FPSNet
from panoptic_ros.networks.panoptic_fcn.heads import ModulatedDeformConv

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "config/networks"


class Counts(NamedTuple):
    """What was counted for one configuration.

    Attributes:
        resolution: (height, width) of the configuration.
        parameters: Their number of elements.
        multiply_adds: Of one image, padded to the network's size divisor.
    """

    resolution: tuple[int, int]
    parameters: int
    multiply_adds: int


def count(configuration: Path, resolution: tuple[int, int] | None = None) -> Counts:
    """Count one configuration, at another resolution if one is given."""
    config = load_config(configuration)
    resolution = resolution or config.input.resolution
    with torch.device("meta"):
        network = config.build().eval()
        image = torch.empty(1, 3, *network.padded_size(resolution))
    parameters = sum(p.numel() for p in network.parameters())
    return Counts(resolution, parameters, multiply_adds(network, image))


def multiply_adds(network: PanopticNetwork, image: Tensor) -> int:
    """Count the multiply-adds of a network for a batch of images, both on the meta device."""
    deformable = []

    def add(module: ModulatedDeformConv, _: tuple[Tensor, ...], output: Tensor) -> None:
        deformable.append(output.numel() * module.conv.weight[0].numel())

    for module in network.modules():
        if isinstance(module, ModulatedDeformConv):  # torch does not know how to count it
            module.register_forward_hook(add)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        raw = network(image)
        if isinstance(network, FPSNet):
            features = raw["features"]
            attention = features.new_empty(1, network.num_attention, *features.shape[2:])
            network.panoptic_head(features, attention)
    return counter.get_total_flops() // 2 + sum(deformable)


def row(name: str) -> str:
    """Return the table's row of the configuration of a name."""
    (height, width), parameters, operations = count(CONFIGURATIONS / f"{name}.yaml")
    return f"| {name} | {height}x{width} | {parameters:,} | {operations / 1e9:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))
    parser.add_argument("names", nargs="*", metavar="NAME", default=names, help="configurations")
    print("| configuration | resolution | parameters | multiply-adds (G) |")
    print("|---|---|---:|---:|")
    for name in parser.parse_args().names:
        print(row(name))


if __name__ == "__main__":
    main()
