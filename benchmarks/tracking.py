"""How well tracks hold on synthetic drives, whose tracks are exact, and what they cost.

Every shipped model sees the same drives, and so does the truth itself, in which things are
numbered anew in every frame: it shows what association alone can do. Methods: the numbers of the
label image (none), ByteTrack on boxes as the package trackers has it, and panoptic_ros.tracking.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.track_quality import Shown, TrackQuality
from panoptic_ros.data.synthetic import FRAME_RATE, StreetScene, drive
from panoptic_ros.drawing import contact_sheet, draw_overlay, write_image
from panoptic_ros.prediction import LABEL_DIVISOR, Category, PanopticPrediction, Segment, Track
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.tracking import Tracker

MODELS = (
    "fpsnet_small",
    "panoptic_fcn_small",
    "dense_detection_small",
    "epsnet_small",
    "panonet_small",
)
SIZE = (360, 480)
SMALLEST = 50  # pixels; what is smaller, or hidden but for so little, is void in the truth
COLUMNS = ("what sees", "association", "IDF1", "switches", "VPQ", "found")

Associate = Callable[[PanopticPrediction, int], PanopticPrediction]  # with the stamp


@dataclass(frozen=True)
class Moment:
    """A frame of a drive: image, and truth as ``StreetScene.frame`` returns it."""

    image: np.ndarray
    ids: np.ndarray
    segments: list[dict[str, Any]]


class NoAssociation:
    """Takes the numbers of the label image for tracks."""

    def __call__(self, prediction: PanopticPrediction, stamp: int) -> PanopticPrediction:
        return replace(prediction, tracks={s.id: Track(s.id, 1, 0) for s in prediction.instances})


class ByteTrack:
    """ByteTrack on boxes, of all classes at once, with the settings that its package has.

    But those that would keep it from numbering everything that is seen, as the others do: every
    score may begin a track, in its first frame.
    """

    def __init__(self) -> None:
        import supervision
        from trackers import ByteTrackTracker

        self._detections = supervision.Detections
        self._tracker = ByteTrackTracker(
            frame_rate=FRAME_RATE,
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
        )
        self._unnumbered = 1 << 40

    def __call__(self, prediction: PanopticPrediction, stamp: int) -> PanopticPrediction:
        instances = prediction.instances
        boxes = np.array([s.bbox for s in instances], np.float32).reshape(-1, 4)
        found = self._tracker.update(
            self._detections(
                np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1),
                confidence=np.array([s.score for s in instances], np.float32),
                class_id=np.array([s.id for s in instances], int),
            )
        )
        tracks = {}
        for label, number in zip(found.class_id, found.tracker_id, strict=True):
            self._unnumbered += 1  # it leaves low scores without a number
            tracks[int(label)] = Track(int(number) if number >= 0 else self._unnumbered, 1, 0)
        return replace(prediction, tracks=tracks)


def make_tracker() -> Associate:
    """Return the tracker of this package."""
    return Tracker().update


def methods() -> dict[str, Callable[[], Associate]]:
    """Return what can be compared here, by name."""
    found: dict[str, Callable[[], Associate]] = {"none": NoAssociation}
    try:
        ByteTrack()
        found["ByteTrack"] = ByteTrack
    except ImportError as error:
        print(f"without ByteTrack: {error} (pip install trackers)")
    return {**found, "panoptic_ros": make_tracker}


def truth_as_prediction(
    moment: Moment, categories: tuple[Category, ...], rng: random.Random, missing: float
) -> PanopticPrediction:
    """Return the truth as a network would, with the things in an order that means nothing.

    Args:
        moment: A frame.
        categories: The class table.
        rng: Shuffles the things, and chooses those that are missing.
        missing: Chance of a thing to be overlooked in a frame.
    """
    names = {c.id: c for c in categories}
    labels = np.zeros(moment.ids.shape, np.uint16)
    segments = []
    for place, segment in enumerate(rng.sample(moment.segments, len(moment.segments)), 1):
        category = names[segment["category_id"]]
        label = category.id * LABEL_DIVISOR + place * category.is_thing
        if category.is_thing and rng.random() < missing:
            continue
        labels[moment.ids == segment["id"]] = label
        x, y, width, height = segment["bbox"]
        box, center = (x, y, width, height), (x + width / 2, y + height / 2)
        segments.append(
            Segment(
                label,
                category.id,
                category.name,
                category.is_thing,
                1.0,
                segment["area"],
                box,
                center,
            )
        )
    return PanopticPrediction(labels, tuple(segments), categories)


def shown_truth(moment: Moment, things: set[int]) -> Shown:
    """Return the truth for the metrics."""
    classes = {s["id"]: s["category_id"] for s in moment.segments}
    return Shown(moment.ids, classes, {i: i for i, c in classes.items() if c in things})


def shown_prediction(prediction: PanopticPrediction) -> Shown:
    """Return a prediction for the metrics, with its tracks."""
    return Shown(
        prediction.labels,
        {s.id: s.class_id for s in prediction.segments},
        {label: track.number for label, track in prediction.tracks.items()},
    )


def moments(seed: int, frames: int) -> list[Moment]:
    """Return a drive, without the things that are too small to be told."""
    things = {c.id for c in StreetScene(seed, SIZE).categories if c.is_thing}
    made = []
    for image, ids, segments in drive(seed, SIZE, frames):
        small = {s["id"] for s in segments if s["category_id"] in things and s["area"] < SMALLEST}
        ids = np.where(np.isin(ids, list(small)), 0, ids)
        made.append(Moment(image, ids, [s for s in segments if s["id"] not in small]))
    return made


@dataclass
class Run:
    """A source of predictions, and what each method makes of them."""

    name: str
    see: Callable[[Moment], PanopticPrediction]
    qualities: dict[str, TrackQuality]

    def drive(self, frames: Iterable[Moment], makers: dict[str, Callable[[], Associate]]) -> None:
        """Follow one drive with every method."""
        trackers = {name: make() for name, make in makers.items()}
        for quality in self.qualities.values():
            quality.begin()
        for index, moment in enumerate(frames):
            prediction = self.see(moment)
            things = {c.id for c in prediction.categories if c.is_thing}
            truth = shown_truth(moment, things)
            stamp = round(index * 1e9 / FRAME_RATE)
            for name, associate in trackers.items():
                tracked = associate(prediction, stamp)
                self.qualities[name].add(truth, shown_prediction(tracked))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Return the rows of the table."""
        for name, quality in self.qualities.items():
            r = quality.result()
            cells = (f"{100 * r[key]:.1f}" for key in ("idf1", "vpq", "recall"))
            idf1, vpq, found = cells
            yield self.name, name, idf1, str(r["switches"]), vpq, found


def sources(names: Iterable[str], seed: int) -> Iterator[tuple[str, Callable]]:
    """Return what sees the drives: the truth, the truth with gaps, and models."""
    categories = StreetScene(0, SIZE).categories
    for name, missing in (("truth", 0.0), ("truth, a fifth missing", 0.2)):
        rng = random.Random(seed)
        yield name, lambda m, r=rng, p=missing: truth_as_prediction(m, categories, r, p)
    for name in names:
        segmenter = Segmenter.load(name, device="cpu")
        if segmenter.categories != categories:
            raise ValueError(f"{name} has other classes than the synthetic streets")
        yield name, lambda moment, s=segmenter: s(moment.image)


def cost(count: int, size: tuple[int, int], frames: int = 100) -> float:
    """Return the processor time of an update with ``count`` things that move: median, in ms."""
    height, width = size
    columns = int(np.ceil(np.sqrt(count * width / height)))
    rows = int(np.ceil(count / columns))
    cell, side = (height / rows, width / columns), (0.8 * height / rows, 0.8 * width / columns)
    rng = random.Random(0)
    tracker, times = Tracker(), []
    category = Category(1, "car", True, (0, 0, 142))
    for frame in range(frames):
        labels, segments = np.zeros(size, np.uint16), []
        for place in rng.sample(range(count), count):
            label = LABEL_DIVISOR + 1 + len(segments)
            y, x = (round(c * n) for c, n in zip(cell, divmod(place, columns), strict=True))
            y, x, h, w = y + frame % 3, x + frame % 5, round(side[0]), round(side[1])
            labels[y : y + h, x : x + w] = label
            box, center = (x, y, w, h), (x + w / 2, y + h / 2)
            segments.append(Segment(label, 1, "car", True, 0.9, w * h, box, center))
        prediction = PanopticPrediction(labels, tuple(segments), (category,))
        start = time.thread_time()
        tracker.update(prediction, frame * 33_000_000)
        times.append(1e3 * (time.thread_time() - start))
    return float(np.median(times))


def draw(path: Path, seed: int = 10, first: int = 4, step: int = 4, number: int = 6) -> None:
    """Draw some frames of a drive with the tracks of the default model."""
    segmenter, tracker = Segmenter.load(MODELS[0], device="cpu"), Tracker()
    tiles, captions = [], []
    for index, (image, _, _) in enumerate(
        drive(seed, (360, 640), first + step * (number - 1) + 1)
    ):
        prediction = tracker.update(segmenter(image), round(index * 1e9 / FRAME_RATE))
        if index >= first and (index - first) % step == 0:
            tiles.append(draw_overlay(image, prediction, 0.5, names=True))
            captions.append(f"{index / FRAME_RATE:.1f} s")
    write_image(path, contact_sheet(tiles, captions, 3), cv2.IMWRITE_JPEG_QUALITY, 85)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS, help=f"of {', '.join(MODELS)}")
    parser.add_argument("--drives", type=int, default=4, help="how many")
    parser.add_argument("--frames", type=int, default=60, help="of each drive")
    parser.add_argument("--seed", type=int, default=1000, help="of the first drive")
    parser.add_argument("--picture", type=Path, help="draw one drive to this file, nothing else")
    arguments = parser.parse_args()
    if arguments.picture:
        draw(arguments.picture)
        return
    makers = methods()
    for size in ((360, 480), (720, 1280), (1080, 1920)):
        times = ", ".join(f"{cost(count, size):.2f} ms with {count}" for count in (10, 100, 200))
        print(f"processor time of an update at {size[0]}x{size[1]}: {times} things", flush=True)
    runs = [
        Run(name, see, {method: TrackQuality() for method in makers})
        for name, see in sources(arguments.models, arguments.seed)
    ]
    for number in tqdm(range(arguments.drives), "drives"):
        frames = moments(arguments.seed + number, arguments.frames)
        for run in tqdm(runs, "what sees", leave=False):
            run.drive(frames, makers)
    print("| " + " | ".join(COLUMNS) + " |\n|---|---|---:|---:|---:|---:|")
    for run in runs:
        for row in run.rows():
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
