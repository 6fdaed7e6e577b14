"""Loss and prediction fit together: the small variant learns four pictures by heart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from panoptic_ros.data.targets import compact_target
from panoptic_ros.evaluation.panoptic_quality import PanopticQuality, SegmentTable
from panoptic_ros.model_zoo import load_config
from panoptic_ros.system import share_directory
from panoptic_ros.truth import FrameSize, PredictionOptions

SIZE = (64, 96)
COLORS = {1: (1, 1, -1), 4: (-1, -1, -1), 9: (1.5, -1, 0), 10: (-1, 1.5, 0)}


def picture(seed):
    """Sky above a road, a car and a person as ellipses; noise on everything."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    slots = np.where(rows < SIZE[0] // 2, 1, 2)
    for number, left in ((3, 20), (4, 65)):
        y, x = generator.integers(18, SIZE[0] - 18), left + generator.integers(0, 12)
        height, width = generator.integers(10, 18), generator.integers(10, 16)
        slots[((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1] = number
    class_ids = torch.tensor(list(COLORS))
    image = np.array(list(COLORS.values()))[slots - 1] + generator.normal(0, 0.2, (*SIZE, 3))
    truth = compact_target(
        torch.from_numpy(slots), class_ids, class_ids >= 9, torch.zeros(4, dtype=torch.bool)
    )
    return torch.from_numpy(image).permute(2, 0, 1).float(), truth


def table(slots, class_ids) -> SegmentTable:
    ids = np.setdiff1d(slots, [0])
    return SegmentTable(ids, np.asarray(class_ids)[ids - 1], np.zeros(len(ids), bool))


@torch.inference_mode()
def panoptic_quality(config, net, images, truths) -> float:
    options = PredictionOptions(config.options.score_threshold)
    segments = net.eval().predict(net(images), [FrameSize(SIZE, SIZE)] * len(images), options)
    quality = PanopticQuality(config.categories)
    for truth, found in zip(truths, segments, strict=True):
        maps = truth.slots.numpy(), found.slots.numpy()
        quality.add(
            maps[0], table(maps[0], truth.class_ids), maps[1], table(maps[1], found.class_ids)
        )
    return quality.result()["All"]["pq"]


def test_the_small_variant_overfits_four_pictures():
    torch.manual_seed(0)
    config = load_config(share_directory() / "config" / "networks" / "panoptic_fcn_small.yaml")
    settings = {**config.settings, "backbone": "resnet18_half"}  # learns fast from nothing
    net = replace(config, settings=settings).build()
    pictures, truths = zip(*(picture(seed) for seed in range(4)), strict=True)
    images = torch.stack(pictures)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=120, pct_start=0.1)
    quality = panoptic_quality(config, net, images, truths)
    assert quality < 0.1
    for step in range(120):
        optimiser.zero_grad()
        sum(net.train().loss(images, truths).values()).backward()
        optimiser.step()
        schedule.step()
        if step % 20 == 19:
            quality = panoptic_quality(config, net, images, truths)
            if quality > 0.9:
                return
    assert quality > 0.9
