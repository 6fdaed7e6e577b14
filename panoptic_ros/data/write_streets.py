"""Write synthetic streets to disk as a data set in the COCO panoptic format."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from panoptic_ros.data.categories import load_categories
from panoptic_ros.data.synthetic import StreetScene
from panoptic_ros.devices import use_one_core
from panoptic_ros.drawing import write_image
from panoptic_ros.files.pictures import write_ids
from panoptic_ros.prediction import category_fields
from panoptic_ros.system import usable_cores, write_file

WORTH_WORKERS = 50  # streets: to start a process takes as long as to draw some


def write_streets(
    folder: Path | str,
    number: int,
    size: tuple[int, int],
    seed: int,
    progress: bool = True,
    workers: int = 0,
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
        workers: Processes that draw; 0 for one a core, if that is worth their start.

    Returns:
        The JSON file.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "panoptic").mkdir(exist_ok=True)
    write = partial(_write_street, folder, size, seed)
    workers = workers or (usable_cores() if number >= WORTH_WORKERS else 1)
    with ExitStack() as stack:
        streets: Iterable[list[dict[str, Any]]] = map(write, range(number))
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            executor = ProcessPoolExecutor(workers, context, initializer=use_one_core)
            pool = stack.enter_context(executor)
            streets = pool.map(write, range(number), chunksize=8)
        bar = tqdm(streets, "streets", number, unit="image", disable=not progress)
        segments = list(bar)
    height, width = size
    images = [
        {"id": i, "file_name": f"{i:06d}.jpg", "height": height, "width": width}
        for i in range(number)
    ]
    annotations = [
        {"image_id": i, "file_name": f"{i:06d}.png", "segments_info": listed}
        for i, listed in enumerate(segments)
    ]
    categories = category_fields(load_categories("camvid"))
    path = folder / "panoptic.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_file(path, json.dumps(content).encode())
    return path


def _write_street(
    folder: Path, size: tuple[int, int], seed: int, index: int
) -> list[dict[str, Any]]:
    """Write image and truth of one street; returns its segments."""
    image, ids, segments = StreetScene(seed * 1_000_000 + index, size).frame(index % 50)
    name = f"{index:06d}"
    write_image(folder / "images" / f"{name}.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 92)
    write_ids(folder / "panoptic" / f"{name}.png", ids)
    return segments
