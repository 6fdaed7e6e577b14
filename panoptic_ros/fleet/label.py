"""A worker's part: label a span, and join its bag if that was the last one.

Both are renamed into place when they are whole, and neither is done again when it is there: a
span may be given to any number of workers, at once or after one has died.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import torch

from panoptic_ros.files.bag import BagError
from panoptic_ros.files.bag_spans import CameraFrame, read_frames
from panoptic_ros.files.camera_messages import ImageError, image_and_size
from panoptic_ros.files.label_messages import LabelMessages
from panoptic_ros.fleet.join import join_bag
from panoptic_ros.fleet.parts import PartWriter, read_totals
from panoptic_ros.fleet.places import (
    Settings,
    Span,
    bag_folder,
    missing_parts,
    part_folder,
    work_folder,
)
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.system import keep_freed_memory, whole_folder

MAX_ATTEMPTS = 4  # of a span within a run: each ended with the death of its worker


@dataclass(frozen=True)
class SpanResult:
    """What became of a span.

    Attributes:
        bag: Name of its bag.
        number: Of the span.
        state: ``done``; ``failed`` where only this span cannot be labelled; ``stop`` where no
            other can, either.
        reason: Of a failure.
        frames: How many frames were labelled or refused for it.
        seconds: That it took.
        worker: Machine and process.
    """

    bag: str
    number: int
    state: str
    reason: str = ""
    frames: int = 0
    seconds: float = 0.0
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")


class _CannotLoadError(Exception):
    """The model cannot be loaded; the message says why."""


class Labeller:
    """Labels spans; one in each worker. It loads its model when it begins with the first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _segmenter(self) -> Segmenter:
        settings = self._settings
        keep_freed_memory()
        cv2.setNumThreads(settings.threads)
        torch.set_num_threads(settings.threads)
        where = (settings.device, settings.precision, settings.resolution, settings.engine)
        try:
            segmenter = Segmenter.load(settings.model, *where)
            segmenter.warm_up()  # what cannot run at all must not refuse frame by frame
            return segmenter
        except Exception as error:
            raise _CannotLoadError(str(error)) from error

    @cached_property
    def _messages(self) -> LabelMessages:
        return LabelMessages(self._segmenter.name, self._segmenter.categories)

    def __call__(self, span: Span) -> SpanResult:
        """Label a span unless that is done, and join its bag if it is the last; never raises."""
        start = time.monotonic()
        try:
            frames = self._label_and_join(span)
        except BagError as error:
            return SpanResult(span.bag, span.number, "failed", str(error))
        except _CannotLoadError as error:
            return SpanResult(span.bag, span.number, "stop", str(error))
        except OSError as error:
            if self._is_whole(span):  # another worker was faster, and has tidied up
                return SpanResult(span.bag, span.number, "done")
            return SpanResult(span.bag, span.number, "stop", f"cannot write: {error}")
        except Exception as error:  # one span must not end a run over thousands of bags
            reason = f"{type(error).__name__}: {error}"
            return SpanResult(span.bag, span.number, "failed", reason)
        seconds = time.monotonic() - start
        return SpanResult(span.bag, span.number, "done", "", frames, seconds)

    def _is_whole(self, span: Span) -> bool:
        return bag_folder(self._settings.output, span.bag).exists()

    def _label_and_join(self, span: Span) -> int:
        if self._is_whole(span):
            return 0
        output = self._settings.output
        part, frames = part_folder(output, span.bag, span.number), 0
        if not part.exists():
            _count_attempt(part)
            work = work_folder(output, span.bag)
            with whole_folder(part, work) as folder, self._writer(folder) as writer:
                self._label(span, writer)
            frames = sum(read_totals(part).counts.values())
        if not missing_parts(output, span.bag, span.count):
            join_bag(output, span.bag, self._messages)
        return frames

    def _writer(self, folder: Path) -> PartWriter:
        return PartWriter(folder, self._settings, self._messages)

    def _label(self, span: Span, writer: PartWriter) -> None:
        for frame in _until_damaged(span, writer):
            try:
                if frame.message is None:
                    raise ImageError(frame.problem)
                max_pixels = self._settings.max_pixels
                image, size = image_and_size(frame.message, self._fit, max_pixels)
                started = time.perf_counter()
                [prediction] = self._segmenter([image], [size])
            except ValueError as error:
                writer.refuse(frame, str(error))
                continue
            writer.add(frame, image, prediction, time.perf_counter() - started)

    def _fit(self, size: tuple[int, int]) -> tuple[int, int]:
        whole = self._settings.images and "cityscapes" in self._settings.formats
        return size if whole else self._segmenter.fit(size)


def _until_damaged(span: Span, writer: PartWriter) -> Iterator[CameraFrame]:
    """Yield the frames of a span; what comes after damage in it is lost, and noted.

    Raises:
        BagError: The bag could not be read at the moment, as on a disk that is away.
    """
    try:
        yield from read_frames(Path(span.path), span.topics, span.start, span.stop)
    except BagError as error:
        if isinstance(error.__cause__, OSError):
            raise
        writer.damage(str(error))


def _count_attempt(part: Path) -> None:
    """Note that work on a span begins.

    Raises:
        RuntimeError: That was noted too often: the span kills its workers.
    """
    with part.with_suffix(".attempts").open("ab") as file:
        if file.tell() >= MAX_ATTEMPTS:
            raise RuntimeError(
                f"{MAX_ATTEMPTS} workers died while they labelled it; is there enough memory? "
                "A run of the same command tries again"
            )
        file.write(b".")
