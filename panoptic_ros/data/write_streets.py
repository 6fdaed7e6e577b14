"""Write synthetic streets to disk as a data set in the COCO panoptic format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from panoptic_ros.data.synthetic import StreetScene
from panoptic_ros.drawing import write_image
from panoptic_ros.files.pictures import write_ids
from panoptic_ros.system import write_file


def write_streets(
    folder: Path | str, number: int, size: tuple[int, int], seed: int, progress: bool = True
) -> Path:
    """Render one frame of each of ``number`` streets.

    Writes ``images/*.jpg``, ``panoptic/*.png`` and ``panoptic.json``. Street i has seed
    ``seed * 1_000_000 + i``, whatever ``number`` is.

    Args:
        folder: Where to write; made if it is not there.
        number: How many streets.
        size: (rows, columns) of the images.
        seed: Other seeds give other streets.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The JSON file.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "panoptic").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    scene = None
    for index in tqdm(range(number), "streets", unit="image", disable=not progress):
        scene = StreetScene(seed * 1_000_000 + index, size)
        image, ids, segments = scene.frame(index % 50)
        name = f"{index:06d}"
        write_image(folder / "images" / f"{name}.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 92)
        write_ids(folder / "panoptic" / f"{name}.png", ids)
        entry = {"id": index, "file_name": f"{name}.jpg", "height": size[0], "width": size[1]}
        images.append(entry)
        annotations.append(
            {"image_id": index, "file_name": f"{name}.png", "segments_info": segments}
        )
    categories = [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
        for c in (scene.categories if scene else ())
    ]
    path = folder / "panoptic.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_file(path, json.dumps(content).encode())
    return path
