"""Panoptic quality against hand-computed cases, the definition as loops, and panopticapi."""

from __future__ import annotations

import json
from collections import defaultdict

import cv2
import numpy as np
import pytest

from panoptic_ros.evaluation.panoptic_quality import PanopticQuality, SegmentTable
from panoptic_ros.prediction import Category
from test.shared_data import shared_path

ROAD, SKY, CAR, PERSON = (
    Category(1, "road", False, (1, 1, 1)),
    Category(2, "sky", False, (2, 2, 2)),
    Category(3, "car", True, (3, 3, 3)),
    Category(4, "person", True, (4, 4, 4)),
)
CATEGORIES = (ROAD, SKY, CAR, PERSON)


def table(*rows):
    """Rows of (id, category id, is crowd)."""
    return SegmentTable.from_segments_info(
        {"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in rows
    )


def test_perfect_prediction_is_one():
    ids = np.repeat([[10, 20, 30]], 4, axis=0)
    quality = PanopticQuality(CATEGORIES)
    segments = table((10, 1, 0), (20, 3, 0), (30, 3, 0))
    assert quality.add(ids, segments, ids, segments) == 1.0
    result = quality.result()
    assert result["All"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 2}
    assert result["miou"] == 1.0


def test_hand_computed_image():
    truth = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [5, 5, 5, 0], [6, 6, 6, 0]])
    guess = np.array([[1, 1, 1, 1], [1, 1, 1, 9], [5, 5, 9, 9], [7, 7, 7, 7]])
    quality = PanopticQuality(CATEGORIES)
    quality.add(
        truth,
        table((1, 1, 0), (5, 3, 0), (6, 3, 0)),
        guess,
        table((1, 1, 0), (5, 3, 0), (7, 4, 0), (9, 3, 0)),
    )
    per_class = quality.result()["per_class"]
    # road: 7 of 8 pixels found. Car 5: 2 of 3 found. Car 6 is missed, as a person is seen
    # there. 9 is a car that is not there: one of its three pixels is void, not more than half.
    assert per_class[1]["pq"] == pytest.approx(7 / 8)
    assert per_class[3]["tp"] == 1 and per_class[3]["fn"] == 1 and per_class[3]["fp"] == 1
    assert per_class[3]["pq"] == pytest.approx((2 / 3) / (1 + 0.5 + 0.5))
    assert per_class[4] | {"fp": 1, "pq": 0.0} == per_class[4]
    # pixels: road 7 of 8; car: truth 6, predicted 2 + 1 + 1 (void left out), right 3
    assert per_class[1]["iou"] == pytest.approx(7 / 8)
    assert per_class[3]["iou"] == pytest.approx(3 / (6 + 4 - 3))
    assert quality.result()["Stuff"]["n"] == 1


def test_void_and_crowd_forgive_false_positives():
    truth = np.array([[0, 0, 0, 8], [8, 8, 8, 8]])
    guess = np.array([[1, 1, 1, 2], [2, 2, 3, 3]])
    quality = PanopticQuality(CATEGORIES)
    # 1 lies in void; 2 is a person in a crowd of persons; 3 is a car there: false
    quality.add(truth, table((8, 4, 1)), guess, table((1, 3, 0), (2, 4, 0), (3, 3, 0)))
    per_class = quality.result()["per_class"]
    assert per_class[4]["fp"] == per_class[4]["fn"] == per_class[4]["tp"] == 0
    assert per_class[3]["fp"] == 1


def test_iou_of_exactly_one_half_does_not_match():
    truth = np.array([[1, 1, 2, 2]])
    guess = np.array([[1, 3, 3, 3]])
    quality = PanopticQuality(CATEGORIES)
    quality.add(truth, table((1, 3, 0), (2, 1, 0)), guess, table((1, 3, 0), (3, 1, 0)))
    per_class = quality.result()["per_class"]
    assert (per_class[3]["tp"], per_class[3]["fp"], per_class[3]["fn"]) == (0, 1, 1)
    assert per_class[1]["pq"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("guess", "segments", "message"),
    [
        (np.ones((2, 3), int), [(1, 1, 0)], "same height and width"),
        (np.ones((2, 2), int), [(1, 1, 0), (2, 1, 0)], r"segments \[2\] that have no pixels"),
        (np.full((2, 2), 7), [], r"pixels of segments \[7\]"),
        (np.ones((2, 2), int), [(1, 99, 0)], r"category \[99\] is not among"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(guess, segments, message):
    quality = PanopticQuality(CATEGORIES)
    with pytest.raises(ValueError, match=message):
        quality.add(np.ones((2, 2), int), table((1, 1, 0)), guess, table(*segments))


def quality_by_loops(images):
    """The definition, pair by pair: {category: [iou, tp, fp, fn]}."""
    stats = defaultdict(lambda: [0.0, 0, 0, 0])
    for truth, truth_segments, guess, guess_segments in images:
        matched_truth, matched_guess, crowd = set(), set(), {}
        for g, g_class, g_crowd in truth_segments:
            if g_crowd:
                crowd[g_class] = g
                continue
            for p, p_class, _ in guess_segments:
                inter = np.sum((truth == g) & (guess == p))
                void = np.sum((truth == 0) & (guess == p))
                union = np.sum(truth == g) + np.sum(guess == p) - inter - void
                if g_class == p_class and inter / union > 0.5:
                    stats[g_class][0] += inter / union
                    stats[g_class][1] += 1
                    matched_truth.add(g)
                    matched_guess.add(p)
            if g not in matched_truth:
                stats[g_class][3] += 1
        for p, p_class, _ in guess_segments:
            ignored = np.sum((truth == 0) & (guess == p))
            if p_class in crowd:
                ignored += np.sum((truth == crowd[p_class]) & (guess == p))
            if p not in matched_guess and ignored / np.sum(guess == p) <= 0.5:
                stats[p_class][2] += 1
    return stats


@pytest.mark.parametrize("seed", range(8))
def test_random_images_equal_the_definition(seed):
    rng = np.random.default_rng(seed)
    quality, images = PanopticQuality(CATEGORIES), []
    for _ in range(3):
        truth = cv2.resize(
            rng.integers(0, 7, (4, 5)).astype(np.uint8), (30, 24), interpolation=cv2.INTER_NEAREST
        ).astype(int)
        guess = np.where(rng.random(truth.shape) < 0.15, rng.integers(0, 7, truth.shape), truth)
        segments = [
            [
                (int(i), int(rng.integers(1, 5)) if rng.random() < 0.3 else int(i) % 4 + 1, 0)
                for i in np.unique(ids)
                if i
            ]
            for ids in (truth, guess)
        ]
        segments[0] = [(i, c, int(c > 2 and rng.random() < 0.4)) for i, c, _ in segments[0]]
        images.append((truth, segments[0], guess, segments[1]))
        quality.add(truth, table(*segments[0]), guess, table(*segments[1]))
    expected = quality_by_loops(images)
    for category, got in quality.result()["per_class"].items():
        iou, tp, fp, fn = expected[category]
        assert (got["tp"], got["fp"], got["fn"]) == (tp, fp, fn)
        assert got["pq"] == pytest.approx(iou / max(tp + fp / 2 + fn / 2, 1e-9), abs=1e-12)


def read_ids(path):
    blue, green, red = cv2.split(cv2.imread(str(path)).astype(np.int64))
    return red + 256 * green + 65536 * blue


def as_given(ids, segments):
    return ids, segments


def shifted(ids, segments):
    moved = np.roll(ids, (9, -14), axis=(0, 1))
    return moved, [s for s in segments if (moved == s["id"]).any()]


def merged(ids, segments):
    """The two largest segments of the first class that has two become one."""
    of_class = defaultdict(list)
    for segment in sorted(segments, key=lambda s: -s["area"]):
        of_class[segment["category_id"]].append(segment["id"])
    keep, gone = next(v for v in of_class.values() if len(v) > 1)[:2]
    return np.where(ids == gone, keep, ids), [s for s in segments if s["id"] != gone]


def split(ids, segments):
    """The right-hand two fifths of the image get segments of their own."""
    ids, new = ids.copy(), list(segments)
    right = np.zeros(ids.shape, bool)
    right[:, ids.shape[1] * 3 // 5 :] = True
    for number, segment in enumerate(segments, start=1):
        mask = (ids == segment["id"]) & right
        if mask.any() and not mask[ids == segment["id"]].all():
            ids[mask] = number
            new.append({**segment, "id": number})
    return ids, new


def with_holes(ids, segments):
    ids = ids.copy()
    ids[::3] = 0
    return ids, [s for s in segments if (ids == s["id"]).any()]


# computed by panopticapi (commit 7bb4655) on its two sample images: PQ, SQ, RQ, n
PANOPTICAPI = {
    ("as_given", False): {
        "All": [1.0, 1.0, 1.0, 8.0],
        "Stuff": [1.0, 1.0, 1.0, 4.0],
        "Things": [1.0, 1.0, 1.0, 4.0],
    },
    ("as_given", True): {
        "All": [0.9575358851674641, 1.0, 0.9575358851674641, 8.0],
        "Stuff": [1.0, 1.0, 1.0, 4.0],
        "Things": [0.9150717703349283, 1.0, 0.9150717703349283, 4.0],
    },
    ("merged", False): {
        "All": [0.9932728338764583, 0.9978217890255529, 0.9953703703703703, 8.0],
        "Stuff": [1.0, 1.0, 1.0, 4.0],
        "Things": [0.9865456677529165, 0.9956435780511057, 0.9907407407407407, 4.0],
    },
    ("merged", True): {
        "All": [0.9597091824025641, 0.9968536952591318, 0.9624060150375939, 8.0],
        "Stuff": [1.0, 1.0, 1.0, 4.0],
        "Things": [0.9194183648051283, 0.9937073905182637, 0.924812030075188, 4.0],
    },
    ("shifted", False): {
        "All": [0.21707233043436974, 0.24959175819841073, 0.3125, 8.0],
        "Stuff": [0.4341446608687395, 0.49918351639682146, 0.625, 4.0],
        "Things": [0.0, 0.0, 0.0, 4.0],
    },
    ("shifted", True): {
        "All": [0.1829707532586332, 0.1829707532586332, 0.25, 8.0],
        "Stuff": [0.3659415065172664, 0.3659415065172664, 0.5, 4.0],
        "Things": [0.0, 0.0, 0.0, 4.0],
    },
    ("split", False): {
        "All": [0.7625128213421337, 0.8847713306034717, 0.8416666666666668, 8.0],
        "Stuff": [0.5458781405664994, 0.7740274803664777, 0.7, 4.0],
        "Things": [0.979147502117768, 0.9955151808404658, 0.9833333333333334, 4.0],
    },
    ("split", True): {
        "All": [0.7572378154444034, 0.9002122586752055, 0.824013157894737, 8.0],
        "Stuff": [0.6209525833078007, 0.806428874961701, 0.7499999999999999, 4.0],
        "Things": [0.8935230475810062, 0.99399564238871, 0.8980263157894737, 4.0],
    },
    ("with_holes", False): {
        "All": [0.6635836523316766, 0.6635836523316766, 1.0, 8.0],
        "Stuff": [0.6658287489154868, 0.6658287489154868, 1.0, 4.0],
        "Things": [0.6613385557478664, 0.6613385557478664, 1.0, 4.0],
    },
    ("with_holes", True): {
        "All": [0.6346410086532297, 0.6629475538315934, 0.9575358851674641, 8.0],
        "Stuff": [0.66584338491228, 0.66584338491228, 1.0, 4.0],
        "Things": [0.6034386323941794, 0.6600517227509068, 0.9150717703349283, 4.0],
    },
}


@pytest.mark.parametrize("perturb", [as_given, shifted, merged, split, with_holes])
@pytest.mark.parametrize("crowds", [False, True], ids=["", "crowds"])
def test_equals_panopticapi_on_coco_images(perturb, crowds):
    folder = shared_path("data/coco_sample/sample_data")
    truth = json.loads((folder / "panoptic_examples.json").read_text())
    categories = [
        Category(c["id"], c["name"], bool(c["isthing"]), tuple(c["color"]))
        for c in json.loads((folder.parent / "panoptic_coco_categories.json").read_text())
    ]
    quality = PanopticQuality(categories)
    for annotation in truth["annotations"]:
        ids = read_ids(folder / "panoptic_examples" / annotation["file_name"])
        segments = [
            {**s, "iscrowd": int(crowds and n % 3 == 0)}
            for n, s in enumerate(annotation["segments_info"])
        ]
        guess, guess_segments = perturb(ids, segments)
        quality.add(
            ids,
            SegmentTable.from_segments_info(segments),
            guess,
            SegmentTable.from_segments_info(
                {"id": s["id"], "category_id": s["category_id"]} for s in guess_segments
            ),
        )
    got = quality.result()
    expected = PANOPTICAPI[perturb.__name__, crowds]
    for group, values in expected.items():
        assert [got[group][k] for k in ("pq", "sq", "rq", "n")] == pytest.approx(
            values, abs=1e-9
        ), group
