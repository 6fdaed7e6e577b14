"""The COCO panoptic format: a JSON file, and a folder of PNG files that hold the segment ids."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from panoptic_ros.data.categories import parse_categories
from panoptic_ros.data.targets import measure_segments, target_from_ids
from panoptic_ros.files.pictures import read_ids, read_image
from panoptic_ros.prediction import Category, PanopticPrediction
from panoptic_ros.truth import PanopticTarget


def segments_info(id_map: np.ndarray, category_of: Mapping[int, int]) -> list[dict[str, Any]]:
    """List the segments of an id map as the COCO panoptic JSON does, by rising id.

    Args:
        id_map: Integers, (H, W); 0 is void.
        category_of: The category id of every id in the map; ids without a pixel are left out.
    """
    ids = np.array([0, *sorted(set(category_of) - {0})])
    slots = np.searchsorted(ids, id_map)
    areas, boxes = measure_segments(torch.from_numpy(slots), len(ids) - 1)
    return [
        {
            "id": segment_id,
            "category_id": int(category_of[segment_id]),
            "area": area,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": 0,
        }
        for segment_id, area, (x1, y1, x2, y2) in zip(
            ids[1:].tolist(), areas.tolist(), boxes.tolist(), strict=True
        )
        if area
    ]


def predicted_segments(prediction: PanopticPrediction) -> list[dict[str, Any]]:
    """List the segments of a prediction as the COCO panoptic JSON does, with their scores."""
    return [
        {
            "id": segment.id,
            "category_id": segment.class_id,
            "area": segment.area,
            "bbox": list(segment.bbox),
            "iscrowd": 0,
            "score": segment.score,
        }
        for segment in prediction.segments
    ]


class CocoPanoptic(Dataset[tuple[Tensor, PanopticTarget]]):
    """Images and truth of a data set in the COCO panoptic format.

    An item is the image, uint8 (3, H, W) RGB, and its PanopticTarget.

    Args:
        annotations: The JSON file.
        images: The folder of the images.
        segments: The folder of the id PNGs; the JSON's path without ``.json`` unless given.
        only: Regular expression; images whose file name it is not found in are left out.
        without: Likewise; images whose file name it is found in are left out.

    Attributes:
        categories: The class table of the JSON.
        entries: (image entry, annotation entry) of the JSON per item.

    Raises:
        ValueError: The JSON is not in the COCO panoptic format.
        OSError: A file is missing.
    """

    def __init__(
        self,
        annotations: Path | str,
        images: Path | str,
        segments: Path | str | None = None,
        only: str = "",
        without: str = "",
    ) -> None:
        annotations = Path(annotations)
        self.images = Path(images)
        self.segments = Path(segments) if segments else annotations.with_suffix("")
        for folder in (self.images, self.segments):
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no folder {folder}")
        try:
            content = json.loads(annotations.read_text(encoding="utf-8"))
            self.categories: tuple[Category, ...] = _read_categories(content["categories"])
            image_of = {image["id"]: image for image in content["images"]}
            entries = [(image_of[a["image_id"]], a) for a in content["annotations"]]
            self.entries = [e for e in entries if _is_chosen(e[0]["file_name"], only, without)]
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{annotations} is not COCO panoptic JSON: no {error}") from error
        except (RecursionError, re.error) as error:
            raise ValueError(f"{annotations} cannot be used: {error}") from error

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, PanopticTarget]:
        """Return image and truth; raises ValueError naming the file where they disagree."""
        image_entry, annotation = self.entries[index]
        if not isinstance(annotation.get("file_name"), str):
            raise ValueError(f"{self.segments}.json, annotation {index} has no file_name")
        image = read_image(self.images / image_entry["file_name"])
        path = self.segments / annotation["file_name"]
        ids = read_ids(path)
        if ids.shape != image.shape[:2]:
            raise ValueError(f"{path} is {ids.shape}, its image {image.shape[:2]} (height, width)")
        try:
            target = target_from_ids(ids, annotation["segments_info"], self.categories)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path}: {error}") from error
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), target


def _is_chosen(name: str, only: str, without: str) -> bool:
    return bool(re.search(only, name)) and not (without and re.search(without, name))


def _read_categories(entries: Sequence[Mapping[str, Any]]) -> tuple[Category, ...]:
    """Read a class table whose entries may lack a colour, which the format leaves optional."""
    return parse_categories([{"color": [128, 128, 128], **entry} for entry in entries])
