"""Dense detection against the authors' implementation (golden/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from panoptic_ros.checkpoints.importing import import_checkpoint
from panoptic_ros.model_zoo import load_model
from panoptic_ros.networks.dense_detection.boxes import LEVELS, dense_boxes
from panoptic_ros.networks.dense_detection.masks import instance_masks
from panoptic_ros.truth import FrameSize, PredictionOptions

from ..golden import (
    assert_maps_equal,
    assert_masks_equal,
    golden_files,
    load_golden,
    official_keys,
    rebuild_image,
    rebuild_state,
    unpack_masks,
)

RAW_TOLERANCE = 1e-4
BOX_TOLERANCE = 0.05
SCORE_TOLERANCE = 1e-4


class Reference:
    """A golden file, and what this implementation makes of the same weights and image."""

    def __init__(self, path, folder):
        recipe, self.fields = load_golden(path)
        torch.save(
            rebuild_state(recipe, official_keys("dense_detection")), folder / "official.pth"
        )
        import_checkpoint("realtime_panoptic", folder / "official.pth", folder / "model")
        config, self.network = load_model(folder / "model")
        self.size = tuple(recipe["image_size"])
        with torch.inference_mode():
            image = config.input.normalise(rebuild_image(recipe))
            self.pyramid = self.network.pyramid(image)
            self.raw = self.network(image)
            found = self.network.detect(self.raw, [self.size])
        self.detections = [field[0][found.valid[0]] for field in found]


@pytest.fixture(scope="module", params=golden_files("dense_detection*.npz"))
def reference(request, tmp_path_factory):
    return Reference(request.param, tmp_path_factory.mktemp("golden"))


def match(reference: Reference) -> Tensor:
    """Return, for each reference detection, the index of ours: a permutation.

    Both lists are sorted by score; the nearest is taken among those whose scores are equal within
    the tolerance, since rounding may swap them.
    """
    boxes, labels, scores, _ = reference.detections
    fields = reference.fields
    assert len(boxes) == len(fields["boxes"])
    distance = torch.cdist(torch.from_numpy(fields["boxes"]), boxes, p=torch.inf)
    distance[(torch.from_numpy(fields["scores"])[:, None] - scores).abs() > SCORE_TOLERANCE] = 1e9
    distance[torch.from_numpy(fields["labels"])[:, None] != labels + 1] = 1e9
    order = distance.argmin(1)
    assert torch.equal(order.sort().values, torch.arange(len(boxes)))
    return order


def test_every_field_is_compared(reference):
    maps = {f"{kind}{i}" for kind in ("cls", "reg", "ctr") for i in range(len(LEVELS))}
    others = {"semantic", "levelness", "p3_slice"}
    results = {"boxes", "labels", "scores", "masks", "masks_area"}
    assert set(reference.fields) == maps | others | results


def test_raw_maps(reference):
    fields, raw = reference.fields, reference.raw
    assert_maps_equal("p3_slice", reference.pyramid[0][0, :8], fields["p3_slice"], RAW_TOLERANCE)
    for name in ("semantic", "levelness"):
        assert_maps_equal(name, raw[name], fields[name], RAW_TOLERANCE)
    for i, level in enumerate(LEVELS):
        for ours, theirs in (("box_class", "cls"), ("offsets", "reg"), ("centerness", "ctr")):
            name = f"{ours}_p{level}"
            assert_maps_equal(name, raw[name], fields[f"{theirs}{i}"], RAW_TOLERANCE)


def test_detections(reference):
    order = match(reference)
    boxes, labels, scores, _ = (field[order].numpy() for field in reference.detections)
    np.testing.assert_allclose(boxes, reference.fields["boxes"], rtol=0, atol=BOX_TOLERANCE)
    np.testing.assert_array_equal(labels + 1, reference.fields["labels"])
    np.testing.assert_allclose(scores, reference.fields["scores"], rtol=0, atol=SCORE_TOLERANCE)
    assert (np.diff(reference.detections[2].numpy()) <= 0).all()


def test_masks(reference):
    order = match(reference)
    boxes, labels = (field[order] for field in reference.detections[:2])
    dense = dense_boxes(reference.raw)[0]
    probability = reference.network.thing_probability(reference.raw["semantic"][0])
    expected = unpack_masks(reference.fields["masks"], reference.size[1])
    masks = torch.zeros_like(expected)
    made = instance_masks(boxes, labels, dense, probability, reference.size)
    for i, mask in enumerate(made):
        masks[i] = mask.placed(reference.size)
    assert_masks_equal("masks", masks, expected)
    assert (masks & expected).sum() >= 0.99 * (masks | expected).sum()
    area = masks.sum((1, 2)).numpy()
    np.testing.assert_array_equal(expected.sum((1, 2)).numpy(), reference.fields["masks_area"])
    allowed = 0.001 * reference.size[0] * reference.size[1]
    np.testing.assert_allclose(area, reference.fields["masks_area"], rtol=0, atol=allowed)


def test_the_fused_map_shows_these_masks(reference):
    """Things cover the union of the reference's masks, apart from the dropped instances."""
    size = FrameSize(reference.size, reference.size)
    options = PredictionOptions(score_threshold=0.0, overlap_threshold=1.0)
    with torch.inference_mode():
        (segments,) = reference.network.predict(reference.raw, [size], options)
    is_thing = torch.isin(segments.class_ids, reference.network.thing_ids)
    shown = torch.cat((torch.tensor([False]), is_thing))[segments.slots]
    expected = unpack_masks(reference.fields["masks"], reference.size[1]).any(0)
    assert_masks_equal("things", shown, expected)
