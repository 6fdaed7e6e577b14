"""Panoptic FCN against the authors' implementation (golden/README.md).

The weights of the recipes leave plateaus: many cells of one class with exactly equal scores. Which
of them are taken and come first is undefined (the authors' sort is not stable), and with it the
kernel that the others join. So the final results are computed from the reference's own center
maps, whose plateaus are its own; single instances are compared in classes without ties, and the
panoptic result must be that of one of two orders of equal scores.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from panoptic_ros.checkpoints.importing import import_checkpoint, misfits
from panoptic_ros.model_zoo import load_config, load_model
from panoptic_ros.networks.panoptic_fcn.checkpoint import convert
from panoptic_ros.networks.panoptic_fcn.kernels import (
    LEVELS,
    best_first,
    best_mask,
    steps_to,
)
from panoptic_ros.ops.dynamic_kernels import soft_masks
from panoptic_ros.ops.masks import EnlargedMasks
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.prediction import LABEL_DIVISOR
from panoptic_ros.system import share_directory
from panoptic_ros.truth import FrameSize, PredictionOptions

from ..golden import (
    assert_maps_equal,
    assert_masks_equal,
    golden_files,
    load_golden,
    official_keys,
    rebuild_image,
    rebuild_state,
)

RAW_TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-4
STUFF_AREA_LIMIT = 64
# our map, the reference's, every how many-th channel
MAPS = (("centers", "centre", 1), ("regions", "region", 1), ("kernels", "weight", 8))


class Reference:
    """A golden file, and what this implementation makes of the same weights and image."""

    def __init__(self, path, folder):
        recipe, self.fields = load_golden(path)
        star = 4 * len(self.fields["encode"]) == 256
        keys = official_keys("panoptic_fcn_star" if star else "panoptic_fcn")
        torch.save({"model": rebuild_state(recipe, keys)}, folder / "official.pth")
        import_checkpoint("panoptic_fcn", folder / "official.pth", folder / "model")
        self.config, self.network = load_model(folder / "model")
        height, width = recipe["image_size"]
        self.size = FrameSize((height, width), self.fields["panoptic"].shape)
        image = self.config.input.normalise(rebuild_image(recipe))
        divisor = self.network.size_divisor
        image = F.pad(image, (0, -width % divisor, 0, -height % divisor))
        with torch.inference_mode():
            self.raw = self.network(image)

    def raw_with_its_centers(self):
        maps = {
            f"centers_{level}": torch.from_numpy(self.fields[f"centre{i}"])[None]
            for i, level in enumerate(LEVELS)
        }
        return {**self.raw, **maps}

    def labels_and_table(self):
        """Segment as the product does: predict and encode_segments, with the area limit."""
        options = PredictionOptions(self.config.options.score_threshold, 0.5, STUFF_AREA_LIMIT)
        (segments,) = self.network.predict(self.raw_with_its_centers(), [self.size], options)
        labels, table = encode_segments(segments, self.network.thing_ids, options.stuff_area_limit)
        labels = labels.numpy().view(np.uint16).astype(np.int64)
        return torch.from_numpy(labels), table[table[:, 1] > 0]


@pytest.fixture(scope="module", params=golden_files("panoptic_fcn*.npz"))
def reference(request, tmp_path_factory):
    return Reference(request.param, tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize(
    ("keys", "configuration"),
    [("panoptic_fcn", "panoptic_fcn_coco"), ("panoptic_fcn_star", "panoptic_fcn_coco_star")],
)
def test_every_official_tensor_has_its_place(keys, configuration):
    path = share_directory() / "config" / "networks" / f"{configuration}.yaml"
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in official_keys(keys)}
        assert misfits(convert(state), load_config(path).build()) == []


def test_every_field_is_compared(reference):
    maps = {f"{theirs}{i}" for _, theirs, _ in MAPS for i in range(len(LEVELS))}
    instances = {"inst_scores", "inst_classes", "inst_area"}
    results = {"encode", "sem_seg_argmax", "panoptic", "seg_id", "seg_thing", "seg_cat"}
    assert set(reference.fields) == maps | instances | results


def test_raw_maps(reference):
    raw, fields = reference.raw, reference.fields
    assert_maps_equal("encoding", raw["encoding"][0, ::4], fields["encode"], RAW_TOLERANCE)
    for i, level in enumerate(LEVELS):
        for ours, theirs, step in MAPS:
            name = f"{ours}_{level}"
            assert_maps_equal(name, raw[name][0, ::step], fields[f"{theirs}{i}"], RAW_TOLERANCE)


@torch.inference_mode()
def test_instances(reference):
    fields, network, raw = reference.fields, reference.network, reference.raw_with_its_centers()
    candidates = network.find_things(raw).of_image(0)
    tied = {
        int(c)
        for c in candidates.classes[candidates.scores > 0].unique()
        if (s := candidates.scores[(candidates.classes == c) & (candidates.scores > 0)]).numel()
        > s.unique().numel()
    }
    things = network.generate(raw)[0].of_image(0)
    found = int((things.scores > 0).sum())
    masks = soft_masks(things.weights[:found], raw["encoding"][0])
    made = EnlargedMasks([masks], network.mask_threshold, steps_to(reference.size))
    areas = [int(mask.inside.sum()) for mask in made]
    ours = _by_class_and_score(things.classes[:found], things.scores[:found], areas, tied)
    theirs = _by_class_and_score(
        fields["inst_classes"], fields["inst_scores"], fields["inst_area"], tied
    )
    assert len(theirs), "nothing to compare"
    np.testing.assert_array_equal(ours[:, 0], theirs[:, 0])
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=0, atol=SCORE_TOLERANCE)
    pixels = fields["panoptic"].size
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=0, atol=0.001 * pixels)


def _by_class_and_score(classes, scores, areas, without):
    rows = zip(np.asarray(classes), np.asarray(scores), np.asarray(areas), strict=True)
    return np.array(sorted(row for row in rows if int(row[0]) not in without), dtype=float)


@torch.inference_mode()
def test_semantic_map(reference):
    network, raw = reference.network, reference.raw
    stuff = network.generate(raw)[1].of_image(0)
    present = stuff.scores > 0
    masks = soft_masks(stuff.weights[present], raw["encoding"][0])
    semantic = best_mask(masks, stuff.classes[present], reference.size)
    expected = torch.from_numpy(reference.fields["sem_seg_argmax"]).long()
    assert_masks_equal("sem_seg_argmax", semantic, expected)


def authors_order(scores):
    """Sort as the authors do: what is empty left out, and not stable."""
    used = scores[0].nonzero().flatten()
    empty = (scores[0] == 0).nonzero().flatten()
    return torch.cat((used[scores[0][used].argsort(descending=True)], empty))[None]


@torch.inference_mode()
def test_panoptic_result(reference, monkeypatch):
    expected = torch.from_numpy(reference.fields["panoptic"]).long()
    results = []
    for order in (best_first, authors_order):
        monkeypatch.setattr("panoptic_ros.networks.panoptic_fcn.network.best_first", order)
        labels, table = reference.labels_and_table()
        # their ids count things by score, then stuff by class: the order of our slots
        ids = torch.zeros_like(labels)
        for number, label in enumerate(table[:, 0].long().tolist(), start=1):
            ids[labels == label] = number
        results.append(((ids == expected).sum(), ids, table))
    _, ids, table = max(results, key=lambda result: result[0])
    assert_masks_equal("panoptic", ids, expected)

    fields, network = reference.fields, reference.network
    class_ids = table[:, 0].long() // LABEL_DIVISOR
    is_thing = torch.isin(class_ids, network.thing_ids)
    category = torch.where(
        is_thing,
        network.class_index(class_ids, network.thing_ids),
        network.class_index(class_ids, network.stuff_ids) + 1,
    )
    np.testing.assert_array_equal(np.arange(len(table)) + 1, fields["seg_id"])
    np.testing.assert_array_equal(is_thing.numpy(), fields["seg_thing"])
    np.testing.assert_array_equal(category.numpy(), fields["seg_cat"])
