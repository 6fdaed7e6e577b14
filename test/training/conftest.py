import json

import cv2
import numpy as np
import pytest

from panoptic_ros.files.pictures import write_ids
from test.training.tiny import CATEGORIES


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory):
    """Six images of one or two bright cars on dark ground, in the COCO panoptic format."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    (folder / "truth").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(6):
        ids = np.full((64, 80), 1)
        for car in range(1 + number % 2):
            top, left = rng.integers(4, 40, 2)
            ids[top : top + 16, left : left + 24] = 2 + car
        pixels = np.where(ids[..., None] == 1, 60, 180) + rng.integers(-30, 30, (64, 80, 3))
        cv2.imwrite(str(folder / f"images/{number}.png"), pixels.astype(np.uint8))
        write_ids(folder / f"truth/{number}.png", ids)
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 80})
        segments = [
            {"id": int(i), "category_id": min(int(i), 2), "iscrowd": 0} for i in np.unique(ids)
        ]
        annotations.append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "truth.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def recipe(coco_folder):
    """A recipe that trains the smallest FPSNet in about a tenth of a second per step."""
    source = {
        "set": "coco_panoptic",
        "settings": {
            "annotations": str(coco_folder / "truth.json"),
            "images": str(coco_folder / "images"),
        },
    }
    return {
        "model": {
            "name": "tiny",
            "network": {
                "name": "fpsnet",
                "backbone": "resnet18_half",
                "fpn_channels": 8,
                "head_channels": 8,
                "head_depth": 1,
                "feature_channels": 8,
                "panoptic_channels": 8,
                "panoptic_depth": 1,
                "num_attention": 4,
                "candidates": 20,
            },
            "categories": CATEGORIES,
            "input": {"resolution": [64, 80]},
        },
        "data": [source],
        "augmentation": {"scale": [0.8, 1.2], "crop_size": [64, 64]},
        "batch": 2,
        "iterations": 6,
        "optimiser": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        "schedule": {"name": "poly", "warmup": 2},
        "ema": 0.9,
        "clip_norm": 5,
        "precision": "fp32",
        "workers": 0,
        "log_every": 1,
        "evaluate_every": 3,
        "checkpoint_every": 2,
        "seed": 3,
    }
