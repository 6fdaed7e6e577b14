"""How well things keep their number: IDF1, identity switches and video panoptic quality.

IDF1: Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking,
2016, section 2.2. Switches: Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking
Performance: The CLEAR MOT Metrics, 2008. A thing of the truth and one of the prediction are the
same in a frame where they have the same class and their masks an IoU above 0.5, as in MOTS
(Voigtlaender et al., CVPR 2019). VPQ: Kim et al., Video Panoptic Segmentation, CVPR 2020,
section 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

SPANS = (1, 5, 10, 15)  # frames of a tube


@dataclass(frozen=True)
class Shown:
    """The segments of a frame, as a map of values and what each value stands for.

    Attributes:
        values: Integer, (H, W), below 2^20; 0 is void.
        classes: Class of each value in it but 0.
        tracks: Number over the frames of the things among them; no two have the same.
    """

    values: np.ndarray
    classes: Mapping[int, int]
    tracks: Mapping[int, int]


@dataclass(frozen=True)
class _Joint:
    """Pixels that segments of the truth and of the prediction share in a frame.

    Attributes:
        truth: int64, (t, 2): class and track, -1 for stuff; first void as (0, -1).
        predicted: int64, (p, 2): likewise.
        shared: int64, (t, p).
    """

    truth: np.ndarray
    predicted: np.ndarray
    shared: np.ndarray


class TrackQuality:
    """Accumulates the metrics over drives."""

    def __init__(self) -> None:
        self._drives: list[list[_Joint]] = []

    def begin(self) -> None:
        """Begin a drive; its tracks have nothing to do with those of others."""
        self._drives.append([])

    def add(self, truth: Shown, predicted: Shown) -> None:
        """Count the next frame of the drive."""
        truth_keys, rows = _compact(truth)
        predicted_keys, columns = _compact(predicted)
        shape = (len(truth_keys), len(predicted_keys))
        shared = np.bincount(
            (rows * shape[1] + columns).reshape(-1), minlength=shape[0] * shape[1]
        )
        self._drives[-1].append(_Joint(truth_keys, predicted_keys, shared.reshape(shape)))

    def result(self) -> dict[str, float]:
        """Return ``idf1``, ``recall`` and ``vpq`` as fractions, and the number of ``switches``.

        ``recall`` is the share of the things of the truth, frame by frame, that are found.
        """
        counts = sum((_identities(drive) for drive in self._drives), np.zeros(5, np.int64))
        right, truth, predicted, switches, found = counts.tolist()
        return {
            "idf1": 2 * right / max(truth + predicted, 1),
            "switches": switches,
            "recall": found / max(truth, 1),
            "vpq": float(np.mean([self.video_quality(span) for span in SPANS])),
        }

    def video_quality(self, span: int) -> float:
        """Return the panoptic quality of tubes of ``span`` frames, over all positions."""
        totals: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))
        for drive in self._drives:
            for start in range(len(drive) - span + 1):
                for class_id, counts in _tubes(drive[start : start + span]).items():
                    totals[class_id] += counts
        qualities = [
            iou / (found + false / 2 + missed / 2) for iou, found, false, missed in totals.values()
        ]
        return float(np.mean(qualities)) if qualities else float("nan")


def _compact(shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    """Return the segments of a frame as (class, track), void first, and each pixel's index."""
    values = list(shown.classes)
    table = np.zeros(1 << 20, np.int64)
    table[values] = np.arange(1, len(values) + 1)
    keys = [(0, -1), *((shown.classes[v], shown.tracks.get(v, -1)) for v in values)]
    return np.array(keys, np.int64), table[shown.values]


def _matches(joint: _Joint) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the same things in a frame; above 0.5 nothing has two."""
    shared = joint.shared
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    thing = (joint.truth[:, 1:] >= 0) & (joint.predicted[:, 1] >= 0)
    same_class = joint.truth[:, :1] == joint.predicted[:, 0]
    return np.nonzero(thing & same_class & (shared > 0.5 * union))


def _identities(drive: list[_Joint]) -> np.ndarray:
    """Return counts of a drive: right identities, truth, predicted, switches, found.

    What is predicted where the truth is void does not count.
    """
    together: defaultdict[tuple[int, int], int] = defaultdict(int)
    last: dict[int, int] = {}
    counts = np.zeros(5, np.int64)
    for joint in drive:
        in_void = joint.shared[0] > 0.5 * joint.shared.sum(0)
        counts[1] += (joint.truth[:, 1] >= 0).sum()
        counts[2] += ((joint.predicted[:, 1] >= 0) & ~in_void).sum()
        for row, column in zip(*_matches(joint), strict=True):
            track, other = int(joint.truth[row, 1]), int(joint.predicted[column, 1])
            counts[3] += last.get(track, other) != other
            counts[4] += 1
            last[track] = other
            together[track, other] += 1
    counts[0] = _best_sum(together)
    return counts


def _best_sum(together: Mapping[tuple[int, int], int]) -> int:
    """Return the frames in which tracks go together, each with one other, in the best case."""
    if not together:
        return 0
    rows, columns = (
        np.unique(side, return_inverse=True)[1] for side in zip(*together, strict=True)
    )
    frames = np.zeros((rows.max() + 1, columns.max() + 1))
    frames[rows, columns] = list(together.values())
    return int(frames[linear_sum_assignment(frames, maximize=True)].sum())


def _tubes(frames: list[_Joint]) -> dict[int, np.ndarray]:
    """Return by class (sum of IoU, found, false, missed) of the tubes of consecutive frames."""
    sides = []
    for keys in ([f.truth for f in frames], [f.predicted for f in frames]):
        tubes, index = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
        sides.append((tubes, np.split(index.reshape(-1), np.cumsum([len(k) for k in keys])[:-1])))
    (truth, rows), (predicted, columns) = sides
    shared = np.zeros((len(truth), len(predicted)))
    for frame, row, column in zip(frames, rows, columns, strict=True):
        shared[np.ix_(row, column)] += frame.shared
    # Void sorts first, as its class is 0; what is predicted there is neither right nor wrong.
    areas, void = shared.sum(0)[1:], shared[0, 1:]
    union = shared[1:].sum(1, keepdims=True) + areas - void - shared[1:, 1:]
    iou = shared[1:, 1:] / np.maximum(union, 1)
    same = (truth[1:, :1] == predicted[1:, 0]) & (iou > 0.5)
    counts: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))
    for row, column in zip(*np.nonzero(same), strict=True):
        counts[int(truth[row + 1, 0])] += (iou[row, column], 1, 0, 0)
    for class_id in predicted[1:, 0][~same.any(0) & (void <= 0.5 * areas)].tolist():
        counts[class_id][2] += 1
    for class_id in truth[1:, 0][~same.any(1)].tolist():
        counts[class_id][3] += 1
    return counts
