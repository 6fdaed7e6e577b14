"""Cityscapes: leftImg8bit images and the instance ids of gtFine, as panoptic truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from panoptic_ros.data.categories import load_categories
from panoptic_ros.data.targets import target_from_ids
from panoptic_ros.files.pictures import read_image, read_stored
from panoptic_ros.truth import PanopticTarget

INSTANCE_DIVISOR = 1000


def read_instance_ids(path: Path | str) -> np.ndarray:
    """Read ``*_gtFine_instanceIds.png``: int32, (H, W), as stored.

    A thing is label id * 1000 + number; stuff, and groups of things, are the plain label id.

    Raises:
        OSError: The file is missing, declares too many pixels, or cannot be decoded.
        ValueError: It is not a single-channel image of 8 or 16 bits.
    """
    ids = read_stored(path)
    if ids.ndim != 2 or ids.dtype not in (np.uint8, np.uint16):
        channels = 1 if ids.ndim == 2 else ids.shape[2]
        raise ValueError(
            f"{path} has {channels} channels of {ids.dtype}; instance ids have one, of 16 bits"
        )
    return ids.astype(np.int32)


def panoptic_segments(instance_ids: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Turn Cityscapes instance ids into a panoptic id map and its segments.

    The rules of the data set's own createPanopticImgs: classes outside the 19 of the evaluation
    become void, groups of things become crowds, and ids keep their values.

    Args:
        instance_ids: int32, (H, W); see ``read_instance_ids``.

    Returns:
        The id map, int32 (H, W) with 0 for void, and per segment ``id``, ``category_id`` (the
        label id) and ``iscrowd``.
    """
    is_thing = {category.id: category.is_thing for category in load_categories("cityscapes")}
    present = np.flatnonzero(np.bincount(instance_ids.ravel()))
    table = np.zeros(present.max() + 1, dtype=np.int32)
    segments = []
    for value in present.tolist():
        grouped = value < INSTANCE_DIVISOR
        label = value if grouped else value // INSTANCE_DIVISOR
        if label in is_thing:
            table[value] = value
            crowd = int(grouped and is_thing[label])
            segments.append({"id": value, "category_id": label, "iscrowd": crowd})
    return table[instance_ids], segments


class Cityscapes(Dataset[tuple[Tensor, PanopticTarget]]):
    """Images and truth of one split of Cityscapes, in the 19 classes of the evaluation.

    An item is the image, uint8 (3, H, W) RGB, and its PanopticTarget.

    Args:
        root: The folder with ``leftImg8bit`` and ``gtFine``.
        split: train, val or test.

    Attributes:
        categories: The class table.
        files: (image file, instance id file) per item.

    Raises:
        FileNotFoundError: There are no annotations of that split, or an image is missing.
    """

    def __init__(self, root: Path | str, split: str = "train") -> None:
        self.categories = load_categories("cityscapes")
        truth = Path(root) / "gtFine" / split
        suffix = "_gtFine_instanceIds.png"
        self.files: list[tuple[Path, Path]] = []
        for ids in sorted(truth.glob(f"*/*{suffix}")):
            name = ids.name.removesuffix(suffix) + "_leftImg8bit.png"
            image = Path(root) / "leftImg8bit" / split / ids.parent.name / name
            if not image.is_file():
                raise FileNotFoundError(f"{ids} has no image {image}")
            self.files.append((image, ids))
        if not self.files:
            raise FileNotFoundError(f"there is no CITY/*{suffix} in {truth}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, PanopticTarget]:
        image_path, ids_path = self.files[index]
        image = torch.from_numpy(read_image(image_path)).permute(2, 0, 1).contiguous()
        ids, segments = panoptic_segments(read_instance_ids(ids_path))
        if ids.shape != image.shape[-2:]:
            sizes = [f"{height}x{width}" for height, width in (ids.shape, image.shape[-2:])]
            raise ValueError(f"{ids_path} is {sizes[0]}, but its image {image_path} {sizes[1]}")
        return image, target_from_ids(ids, segments, self.categories)
