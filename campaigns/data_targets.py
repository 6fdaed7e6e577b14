"""Recipes and annotations as fuzz targets."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import yaml

from campaigns.image_targets import IMAGE, PNG_TOKENS, encoded
from campaigns.mutation import mutate_value
from campaigns.targets import Target
from panoptic_ros.data.cityscapes import Cityscapes
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


def cityscapes(folder: Path) -> Target:
    """Images of instance ids as Cityscapes has them."""
    name = "train/city/city_000000_000000"
    image = folder / "leftImg8bit" / f"{name}_leftImg8bit.png"
    ids = folder / "gtFine" / f"{name}_gtFine_instanceIds.png"
    for path in (image, ids):
        path.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(encoded(".png"))

    def use(data: bytes) -> None:
        ids.write_bytes(data)
        Cityscapes(folder)[0]

    def generate(rng: random.Random) -> bytes:
        kind = rng.choice((np.uint8, np.uint16, np.uint16, np.float32, np.int32))
        ending = ".tif" if kind in (np.float32, np.int32) else ".png"
        shape = rng.choice((IMAGE.shape[:2], IMAGE.shape[:2], (1, 1), (40, 3), IMAGE.shape))
        values = [0, 7, 26, 255, 26_000, 26_001, 33_999, 65_535, -1, 2**31 - 1, float("nan")]
        with np.errstate(all="ignore"):
            chosen = np.array([rng.choice(values) for _ in range(int(np.prod(shape)))])
            return cv2.imencode(ending, chosen.astype(kind).reshape(shape))[1].tobytes()

    good = np.full(IMAGE.shape[:2], 7, np.uint16)
    good[2:6, 3:9] = 26_001
    example = cv2.imencode(".png", good)[1].tobytes()
    refusals = (ValueError, OSError)
    return Target("cityscapes", [example], use, refusals, (), generate, PNG_TOKENS)
