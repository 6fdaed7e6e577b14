"""Draw what the node published over the frames that it saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from panoptic_ros.demo.results import Result
from panoptic_ros.drawing import VideoWriter, contact_sheet, draw_overlay, write_image
from panoptic_ros.prediction import Category

SHEET_RESULTS = 6
SHEET_COLUMNS = 4
SHEET_TILE_WIDTH = 480  # pixels


class DrivePictures:
    """An overlay video and a contact sheet of a drive; use it in a ``with`` statement.

    The video shows with every frame of the bag the newest result, as somebody watching live would
    see it. The sheet shows frames beside their results, spread evenly over the drive.

    Args:
        video: File to write.
        sheet: File to write.
        frame_rate: Of the video.
        frames: How many there are in the bag.
        results: How many of them have a result.
        categories: The model's class table.
    """

    def __init__(
        self,
        video: Path,
        sheet: Path,
        frame_rate: float,
        frames: int,
        results: int,
        categories: tuple[Category, ...],
    ) -> None:
        self._video = VideoWriter(video, frame_rate, frames)
        self._sheet = sheet
        self._categories = categories
        spread = np.linspace(0, results - 1, min(SHEET_RESULTS, results))
        self._chosen = {round(index) for index in spread}
        self._frames = self._results = 0
        self._shown: np.ndarray | None = None
        self._tiles: list[np.ndarray] = []
        self._captions: list[str] = []

    @property
    def codec(self) -> str:
        """Codec of the video, once there is a picture in it."""
        return self._video.codec

    def __enter__(self) -> DrivePictures:
        return self

    def __exit__(self, *_: object) -> None:
        self._video.__exit__()

    def add_result(self, image: np.ndarray, result: Result) -> None:
        """Show a frame and its result from now on; call ``add_frame`` after it."""
        prediction = result.prediction
        self._shown = draw_overlay(image, prediction, names=bool(prediction.tracks))
        if self._results in self._chosen:
            instances = len(prediction.instances)
            self._tiles += [image, draw_overlay(image, prediction, names=True)]
            self._captions += [f"frame {self._frames}", f"instances: {instances}"]
        self._results += 1

    def add_frame(self) -> None:
        """Append what is shown to the video; frames before the first result are left out."""
        self._frames += 1
        if self._shown is not None:
            self._video.write(self._shown)

    def write_sheet(self) -> None:
        """Write the contact sheet; call it when all results were added."""
        sheet = contact_sheet(
            self._tiles, self._captions, SHEET_COLUMNS, SHEET_TILE_WIDTH, self._categories
        )
        write_image(self._sheet, sheet)
