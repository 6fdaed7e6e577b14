"""Learn four synthetic images by heart: whether targets, loss and prediction fit together.

``python -m benchmarks.overfit --network NAME [--steps N]`` trains the small configuration of a
network on nothing but these images, and measures the panoptic quality on them, which is to
exceed 90. A defect in the targets, in a term of the loss or in the prediction shows here.

Segments that are too thin or small for a map at 1/8 of the image, the coarsest that a network
predicts from, are void: no network could show them, and 90 would be out of reach for the truth
itself.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.data.augmentation import with_slots
from panoptic_ros.data.synthetic import SyntheticStreets
from panoptic_ros.evaluation.evaluate import dataset_truth, evaluate, format_table
from panoptic_ros.model_zoo import ModelConfig, load_config
from panoptic_ros.networks import NETWORKS
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.ops.upsampling import Step, upsampled_argmax
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.truth import PanopticTarget

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "config/networks"
IMAGES, SEED = 4, 2
STRIDE, SHOWN = 8, 0.85  # IoU of what is kept with itself, seen at that stride
SIZES = dict.fromkeys(NETWORKS, (128, 256)) | {"epsnet": (288, 384)}  # it needs more than 256
SETTINGS = {
    # Anchors that overlap a thing by 0.4 to 0.5 are not trained, and four images do not teach what
    # to make of them: some become second boxes of a thing, which a stricter suppression removes.
    "fpsnet": {"nms_threshold": 0.3},
    # Where nothing is labelled some class still scores highest, if low. From four images the
    # network does not learn to keep it below the usual 0.05.
    "panoptic_fcn": {"region_threshold": 0.3},
}
STEPS = dict.fromkeys(NETWORKS, 300) | {"fpsnet": 800, "panoptic_fcn": 450}
RATES = dict.fromkeys(NETWORKS, 2e-3) | {"panoptic_fcn": 2e-2}

Sample = tuple[Tensor, PanopticTarget]


def load_samples(size: tuple[int, int]) -> list[Sample]:
    """Render the images, uint8 (3, H, W), with their truth."""
    streets = SyntheticStreets(IMAGES, size, SEED)
    return [
        (image, without_details(target))
        for image, target in map(streets.__getitem__, range(IMAGES))
    ]


def without_details(target: PanopticTarget) -> PanopticTarget:
    """Return a truth whose segments that a map at 1/STRIDE cannot show are void."""
    number = len(target.class_ids) + 1
    shares = F.avg_pool2d(F.one_hot(target.slots, number).permute(2, 0, 1).float(), STRIDE)
    coarse = upsampled_argmax(shares, Step((STRIDE, STRIDE), tuple(target.slots.shape)))
    slots = torch.arange(number)[:, None, None]
    fine, shown = target.slots == slots, coarse == slots
    iou = (fine & shown).sum((1, 2)) / (fine | shown).sum((1, 2)).clamp(min=1)
    keep = (iou >= SHOWN)[target.slots]
    return with_slots(target, target.slots.where(keep, 0))


def train(
    network: PanopticNetwork,
    config: ModelConfig,
    samples: Sequence[Sample],
    steps: int,
    rate: float,
) -> None:
    """Train on all samples in every step, and print loss and quality ten times."""
    images = config.input.normalise(torch.stack([image for image, _ in samples]))
    targets = [target for _, target in samples]
    if config.network == "panoptic_fcn":
        # AdamW soon saturates its masks, some at the wrong class, where dice has no gradient.
        optimiser = torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    else:
        optimiser = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, cycle_momentum=False
    )
    start = time.monotonic()
    for step in range(1, steps + 1):
        network.train()
        terms = network.loss(images, targets)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 10) == 0:
            values = "  ".join(f"{name} {value.item():.4f}" for name, value in terms.items())
            quality = 100 * measure(network, config, samples)["All"]["pq"]
            seconds = (time.monotonic() - start) / step
            print(f"step {step}  PQ {quality:.1f}  {values}  {seconds:.2f} s/step", flush=True)


def measure(
    network: PanopticNetwork, config: ModelConfig, samples: Sequence[Sample]
) -> dict[str, Any]:
    """Return the metrics of a network on the samples, through the segmenter."""
    segmenter = Segmenter(config, copy.deepcopy(network), precision="fp32", engine="eager")
    return evaluate(segmenter, dataset_truth(samples), config.categories, progress=False).metrics


def main() -> None:
    """Train and print; the exit status says whether the quality exceeds 90."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--steps", type=int, help="default: as many as this network needs")
    parser.add_argument("--rate", type=float, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    arguments = parser.parse_args()
    name = arguments.network
    samples = load_samples(SIZES[name])
    config = load_config(CONFIGURATIONS / f"{name}_small.yaml")
    config = replace(
        config,
        settings={**config.settings, **SETTINGS.get(name, {})},
        categories=SyntheticStreets(1).categories,
        input=replace(config.input, resolution=SIZES[name]),
    )
    torch.manual_seed(arguments.seed)
    network = config.build()
    steps = arguments.steps or STEPS[name]
    train(network, config, samples, steps, arguments.rate or RATES[name])
    metrics = measure(network, config, samples)
    quality = 100 * metrics["All"]["pq"]
    print(format_table(metrics))
    segments = [target.is_thing for _, target in samples]
    things = sum(int(is_thing.sum()) for is_thing in segments)
    print(
        f"{name}: PQ {quality:.1f} on {sum(map(len, segments))} segments, {things} of them things"
    )
    raise SystemExit(quality <= 90)


if __name__ == "__main__":
    main()
