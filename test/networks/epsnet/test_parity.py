"""EPSNet against the authors' implementation (golden/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from panoptic_ros.checkpoints.importing import import_checkpoint
from panoptic_ros.model_zoo import load_model
from panoptic_ros.networks.epsnet.boxes import pixel_boxes
from panoptic_ros.networks.epsnet.detection import fast_nms
from panoptic_ros.networks.epsnet.network import instance_masks, stuff_logits, stuff_map
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
SCORE_TOLERANCE = 1e-4
SCORE_THRESHOLD = 0.2
ANCHOR_STEP = 7  # the golden file has every 7th anchor
PROTOTYPE_STEP = 3


class Reference:
    """A golden file, and what this implementation makes of the same weights and image."""

    def __init__(self, path, folder):
        recipe, self.fields = load_golden(path)
        keys = official_keys(path.stem.split("-")[0])
        torch.save(rebuild_state(recipe, keys), folder / "official.pth")
        import_checkpoint("epsnet", folder / "official.pth", folder / "model")
        config, self.network = load_model(folder / "model")
        with torch.inference_mode():
            self.raw = self.network(config.input.normalise(rebuild_image(recipe)))
            self.found = fast_nms(self.raw, SCORE_THRESHOLD)
        self.output = self.fields["semantic_argmax_1_to_54"].shape
        self.used = int((self.found.scores > 0).sum())

    def detections(self):
        """Classes, scores, relative boxes and coefficients in use."""
        scores, labels, boxes, coefficients = (field[0, : self.used] for field in self.found)
        return labels, scores, boxes, coefficients


@pytest.fixture(scope="module", params=golden_files("epsnet*.npz"))
def reference(request, tmp_path_factory):
    return Reference(request.param, tmp_path_factory.mktemp("golden"))


def match(reference: Reference) -> Tensor:
    """Return the index of ours for each reference detection: rounding may swap equal scores."""
    labels, scores, boxes, _ = reference.detections()
    fields = {
        name: torch.from_numpy(reference.fields[name])
        for name in ("det_class", "det_score", "det_box")
    }
    assert len(labels) == len(fields["det_class"])
    pixels = pixel_boxes(boxes, reference.output).float()
    distance = torch.cdist(fields["det_box"].float(), pixels, p=torch.inf)
    distance[(fields["det_score"][:, None] - scores).abs() > SCORE_TOLERANCE] = 1e9
    distance[fields["det_class"][:, None] != labels] = 1e9
    order = distance.argmin(1)
    assert torch.equal(order.sort().values, torch.arange(len(labels)))
    return order


def test_every_field_is_compared(reference):
    raw = {"loc", "conf", "mask", "priors", "proto", "segm"}
    results = {"det_class", "det_score", "det_box", "det_mask", "semantic_argmax_1_to_54"}
    assert set(reference.fields) == raw | results


@pytest.mark.parametrize(
    ("ours", "theirs"), [("box_deltas", "loc"), ("class_logits", "conf"), ("coefficients", "mask")]
)
def test_heads(reference, ours, theirs):
    value = reference.raw[ours][0]
    if theirs == "conf":
        value = value.softmax(-1)
    assert_maps_equal(ours, value[::ANCHOR_STEP], reference.fields[theirs], RAW_TOLERANCE)


def test_anchors(reference):
    assert_maps_equal("anchors", reference.raw["anchors"][0], reference.fields["priors"], 1e-6)


def test_prototypes_and_semantic_coefficients(reference):
    prototypes = reference.raw["prototypes"][0].permute(1, 2, 0)
    sampled = prototypes[::PROTOTYPE_STEP, ::PROTOTYPE_STEP]
    assert_maps_equal("prototypes", sampled, reference.fields["proto"], RAW_TOLERANCE)
    pooled = torch.from_numpy(reference.fields["segm"]).mean((2, 3))[0]
    ours = reference.raw["semantic_coefficients"][0].flatten()
    assert_maps_equal("semantic", ours, pooled.numpy(), RAW_TOLERANCE)


def test_detections(reference):
    order = match(reference)
    labels, scores, boxes, _ = (field[order] for field in reference.detections())
    fields = reference.fields
    np.testing.assert_array_equal(labels, fields["det_class"])
    np.testing.assert_allclose(scores, fields["det_score"], rtol=0, atol=SCORE_TOLERANCE)
    # whole pixels there: a box a hair below a whole number may be truncated to the one before
    difference = np.abs(pixel_boxes(boxes, reference.output).numpy() - fields["det_box"])
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    assert (np.diff(reference.found.scores[0].numpy()) <= 0).all()


def test_masks(reference):
    order = match(reference)
    _, _, boxes, coefficients = (field[order] for field in reference.detections())
    expected = unpack_masks(reference.fields["det_mask"], reference.output[1])
    prototypes = reference.raw["prototypes"][0]
    made = instance_masks(prototypes, coefficients, boxes, reference.output)
    masks = torch.stack([mask.placed(reference.output) for mask in made])
    assert_masks_equal("masks", masks, expected)
    assert (masks & expected).sum() >= 0.999 * (masks | expected).sum()


def test_semantics(reference):
    """Without instances "other" competes as class 0: that is the authors' channel 54."""
    logits = stuff_logits(
        reference.raw["prototypes"][0], reference.raw["semantic_coefficients"][0]
    )
    stuff = stuff_map(logits, torch.zeros(reference.output, dtype=torch.bool))
    expected = torch.from_numpy(reference.fields["semantic_argmax_1_to_54"]).long()
    assert_masks_equal("semantics", stuff, expected.where(expected != 54, 0))


def test_the_fused_map_shows_these_masks_and_semantics(reference):
    size = FrameSize((0, 0), reference.output)
    options = PredictionOptions(score_threshold=SCORE_THRESHOLD, overlap_threshold=1.0)
    with torch.inference_mode():
        (segments,) = reference.network.predict(reference.raw, [size], options)
    is_thing = torch.isin(segments.class_ids, reference.network.thing_ids)
    shown = torch.cat((torch.tensor([False]), is_thing))[segments.slots]
    expected = unpack_masks(reference.fields["det_mask"], reference.output[1]).any(0)
    assert_masks_equal("things", shown, expected)
