"""The best that Panoptic FCN can show of its own truth: its panoptic quality, without learning.

``python -m benchmarks.planted_truth [--resolution 128x256]``. The targets of positions become the
position maps, every segment gets a kernel of its own, and the encoded feature is such that a
kernel's mask is the segment's training mask at 1/4. What ``predict`` makes of that bounds what
training can reach on the scenes of ``benchmarks.overfit``: what is missing to 100 is lost in the
resolution of the masks, in positions that share a cell, or in merging.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.overfit import CONFIGURATIONS, SIZES, Sample, load_samples
from panoptic_ros.data.synthetic import SyntheticStreets
from panoptic_ros.evaluation.evaluate import dataset_truth, evaluate, format_table
from panoptic_ros.input_format import parse_resolution
from panoptic_ros.model_zoo import ModelConfig, load_config
from panoptic_ros.networks.panoptic_fcn.kernels import LEVELS
from panoptic_ros.networks.panoptic_fcn.network import PanopticFCN
from panoptic_ros.networks.panoptic_fcn.targets import (
    ThingTargets,
    center_heatmap,
    region_map,
    stuff_target,
    thing_targets,
)
from panoptic_ros.networks.panoptic_fcn.training import stuff_channels
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.truth import PanopticTarget, TargetBatch

_KERNELS = 64  # at most one for each segment
_CONTRAST = 3.0  # logit of a mask inside; of 1.5 to 16 it gives the best borders
_LOW, _HIGH = 0.005, 0.9  # scores where the target of a position is 0, and above that where 1


class PlantedTruth:
    """Stands for ``PanopticFCN.forward``: one image after the other, each its own truth.

    Args:
        network: Whose maps are planted; its kernels are not embedded any more.
        targets: In the order of the images.
    """

    def __init__(self, network: PanopticFCN, targets: Sequence[PanopticTarget]) -> None:
        network.thing_embedding = network.stuff_embedding = nn.Identity()
        self.network, self.targets = network, iter(targets)

    def __call__(self, _: Tensor) -> dict[str, Tensor]:
        """Return the maps of the next target."""
        network, batch = self.network, TargetBatch.of([next(self.targets)])
        things = thing_targets(batch, network.class_index(batch.class_ids, network.thing_ids))
        stuff = stuff_target(batch, stuff_channels(network, batch.class_ids), network.regions)
        masks = torch.cat((stuff[0], things.masks))  # the order of the kernels
        encoding = masks.new_zeros(1, _KERNELS, *masks.shape[1:])
        encoding[0, : len(masks)] = _CONTRAST * (2 * masks - 1)
        raw = {"encoding": encoding}
        for power, (level, within) in enumerate(
            zip(LEVELS, things.within(network.scale_ranges), strict=True), start=3
        ):
            size = [-(-side // 2**power) for side in batch.slots.shape[1:]]
            numbers = torch.nonzero(within).flatten()
            here, regions = things.only(numbers), region_map(stuff, size)
            heatmap = center_heatmap(here, (1, len(network.thing_ids), *size))
            raw[f"centers_{level}"] = (_LOW + (_HIGH - _LOW) * heatmap).logit()
            raw[f"regions_{level}"] = (_LOW + (_HIGH - _LOW) * regions).logit()
            raw[f"kernels_{level}"] = _kernels(here, numbers, regions)
        return raw


def _kernels(things: ThingTargets, numbers: Tensor, regions: Tensor) -> Tensor:
    """Return for each cell of a level the kernel of its region, or of the thing centred there."""
    size = torch.tensor(regions.shape[2:])
    kernels = regions.new_zeros(1, _KERNELS, *size)
    best, channel = regions.max(1)
    kernels.scatter_(1, channel[:, None], (best > 0).float()[:, None])
    rows, columns = (things.centers * size / torch.tensor(things.masks.shape[1:])).long().unbind(1)
    kernels[0, :, rows, columns] = 0
    kernels[0, regions.shape[1] + numbers, rows, columns] = 1
    return kernels


def best_quality(config: ModelConfig, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the metrics of the planted truth of some images.

    Args:
        config: Of a Panoptic FCN, with the categories of the images.
        samples: Images and truth, at the configuration's resolution.
    """
    config = replace(config, settings={**config.settings, "encoder_channels": _KERNELS})
    network = config.build()
    network.forward = PlantedTruth(network, [target for _, target in samples])
    segmenter = Segmenter(config, network, precision="fp32", engine="eager")
    return evaluate(segmenter, dataset_truth(samples), config.categories, progress=False).metrics


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--resolution", type=parse_resolution, default=SIZES["panoptic_fcn"])
    resolution = parser.parse_args().resolution
    config = load_config(CONFIGURATIONS / "panoptic_fcn_small.yaml")
    config = replace(
        config,
        categories=SyntheticStreets(1).categories,
        input=replace(config.input, resolution=resolution),
    )
    print(format_table(best_quality(config, load_samples(resolution))))


if __name__ == "__main__":
    main()
