"""Loss and prediction fit together: the small variant learns four pictures by heart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from panoptic_ros.truth import FrameSize

from ..overfitting import learn, panoptic_quality
from .scenes import THINGS, configuration, make_target


def street(seed, size=(96, 128)):
    """Image (3, H, W) of plain colours and noise, and its truth: three stuff, three things."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    slots = np.ones(size, np.int64)
    slots[int(height * rng.uniform(0.3, 0.45)) :] = 2
    slots[: height // 3, int(width * rng.uniform(0.6, 0.8)) :] = 3
    class_ids = [1, 4, 2]
    for i in range(3):
        class_ids.append(THINGS[(seed + i) % 3])
        dx = (x - width * (i + 0.5) / 3 - rng.uniform(-4, 4)) / (width * rng.uniform(0.1, 0.14))
        dy = (y - height * rng.uniform(0.45, 0.65)) / (height * rng.uniform(0.18, 0.3))
        slots[dx**2 + dy**2 < 1] = len(class_ids)
    hues = {
        1: (1, 0, -1),
        2: (0, 0, 0),
        4: (-1, 0, 1),
        9: (1, 1, 0),
        10: (-1, -1, 0),
        11: (0, 1, 1),
    }
    colors = np.array([hues[class_id] for class_id in class_ids])[slots - 1]
    image = torch.from_numpy(colors + 0.1 * rng.standard_normal((*size, 3))).float()
    return image.permute(2, 0, 1), make_target(torch.from_numpy(slots), class_ids)


@pytest.mark.timeout(900)  # half a minute on an idle machine
def test_four_images_are_learnt_by_heart():
    """The small configuration on a trunk that learns fast from nothing; its losses as they are."""
    torch.manual_seed(0)
    config = configuration("small")
    config = replace(config, settings={**config.settings, "backbone": "resnet18_half"})
    network = config.build().train()
    images, targets = zip(*(street(seed) for seed in range(4)), strict=True)
    images = torch.stack(images)
    learn(network, images, targets, steps=120, rate=4e-3)
    sizes = [FrameSize((96, 128), (96, 128))] * len(images)
    with torch.inference_mode():
        found = network.eval().predict(network(images), sizes, config.options)
    assert panoptic_quality(config.categories, found, targets) > 0.9
