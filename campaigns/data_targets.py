"""Recipes and annotations as fuzz targets."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import yaml

from campaigns.image_targets import IMAGE, encoded
from campaigns.mutation import mutate_value
from campaigns.targets import Target
from panoptic_ros.data.coco_panoptic import CocoPanoptic
from panoptic_ros.files.pictures import write_ids
from panoptic_ros.system import share_directory
from panoptic_ros.training.fields import RecipeError
from panoptic_ros.training.recipe import load_recipe

CATEGORIES = [
    {"id": 1, "name": "ground", "isthing": 0, "color": [128, 64, 128]},
    {"id": 2, "name": "car", "isthing": 1, "color": [0, 0, 142]},
]
LAUGHS = ["a: &a [x, x, x, x, x, x, x, x, x]"] + [
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
]
HOSTILE_YAML = (
    "\n".join(LAUGHS).encode(),
    b"&a [*a]",
    b"a: &a {b: *a}",
    b"[" * 20_000,
    b"{a: " * 5_000,
    b"!!python/object/apply:os.system ['true']",
    b"base: model.yaml",
    b"? [a]\n: b",
    b"a: 1e999999999",
    b"a: " + b"9" * 10_000,
)


def mutated_yaml(rng: random.Random, example: dict) -> bytes:
    """Return a YAML text with one to three values of an example changed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        example = mutate_value(rng, example)
    return yaml.safe_dump(example, allow_unicode=True).encode("utf-8", "replace")


def recipes(folder: Path) -> Target:
    """Recipes of ``panoptic train``, read from a file."""
    config = share_directory() / "config"
    shutil.copytree(config / "networks", folder / "networks", dirs_exist_ok=True)
    (folder / "training").mkdir(exist_ok=True)
    path = folder / "training" / "recipe.yaml"
    os.environ |= {name: "/data" for name in ("CAMVID", "STREETS", "TRUNK")}
    example = yaml.safe_load((config / "training" / "fpsnet_small.yaml").read_text())

    def use(data: bytes) -> None:
        path.write_bytes(data)
        load_recipe(path)

    return Target(
        "recipes",
        [yaml.safe_dump(example).encode()],
        use,
        (RecipeError,),
        HOSTILE_YAML,
        lambda rng: mutated_yaml(rng, example),
    )


def annotations(folder: Path) -> Target:
    """COCO panoptic annotations, with every image that they name."""
    for name in ("images", "truth"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "images" / "0.png").write_bytes(encoded(".png"))
    ids = np.ones(IMAGE.shape[:2], np.int32)
    ids[2:6, 3:9] = 2
    write_ids(folder / "truth" / "0.png", ids)
    height, width = ids.shape
    example = {
        "images": [{"id": 0, "file_name": "0.png", "height": height, "width": width}],
        "annotations": [
            {
                "image_id": 0,
                "file_name": "0.png",
                "segments_info": [
                    {"id": i, "category_id": i, "iscrowd": 0, "area": 9, "bbox": [0, 0, 1, 1]}
                    for i in (1, 2)
                ],
            }
        ],
        "categories": CATEGORIES,
    }
    path = folder / "truth.json"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        dataset = CocoPanoptic(path, folder / "images")
        for index in range(len(dataset)):
            dataset[index]

    def generate(rng: random.Random) -> bytes:
        return json.dumps(mutate_value(rng, example)).encode()

    hostile = [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000]
    examples = [json.dumps(example).encode()]
    return Target("annotations", examples, use, (ValueError, OSError), hostile, generate)
