from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from panoptic_ros.data.categories import load_categories
from panoptic_ros.data.synthetic import StreetScene, SyntheticStreets, drive
from panoptic_ros.streets.scenery import Lens

SIZE = (96, 160)


def test_a_seed_gives_the_same_frames():
    first, again, other = StreetScene(3, SIZE), StreetScene(3, SIZE), StreetScene(4, SIZE)
    again.frame(0)  # what was rendered before must not matter
    for left, right in zip(first.frame(7), again.frame(7), strict=True):
        assert np.array_equal(left, right)
    assert not np.array_equal(first.frame(7)[0], other.frame(7)[0])


def test_an_item_depends_on_seed_and_index_alone():
    short, long = SyntheticStreets(2, SIZE, seed=9), SyntheticStreets(50, SIZE, seed=9)
    long[0]
    image, target = short[1]
    same_image, same_target = long[1]
    assert torch.equal(image, same_image)
    assert torch.equal(target.slots, same_target.slots)
    assert not torch.equal(image, SyntheticStreets(2, SIZE, seed=10)[1][0])
    with pytest.raises(IndexError):
        short[2]


@pytest.mark.parametrize("seed", range(4))
def test_ids_and_segments_agree_in_every_pixel(seed):
    image, ids, segments = StreetScene(seed, SIZE).frame(seed)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    assert ids.dtype == np.int32
    assert sorted(s["id"] for s in segments) == sorted(set(np.unique(ids).tolist()) - {0})
    is_thing = {c.id: c.is_thing for c in load_categories("camvid")}
    stuff = [s["category_id"] for s in segments if not is_thing[s["category_id"]]]
    assert len(stuff) == len(set(stuff))
    for segment in segments:
        rows, columns = np.nonzero(ids == segment["id"])
        assert segment["area"] == len(rows)
        x, y, width, height = segment["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert segment["id"] < 1 << 24


def test_frame_and_sample_are_the_same_truth():
    scene = StreetScene(6, SIZE)
    image, ids, segments = scene.frame(5)
    tensor, target = scene.sample(5)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), image)
    category_of = {0: 0, **{s["id"]: s["category_id"] for s in segments}}
    semantic = np.vectorize(category_of.__getitem__)(ids)
    assert np.array_equal(target.semantic().numpy(), semantic)
    pairs = np.unique(np.stack((ids.ravel(), target.slots.numpy().ravel())), axis=1)
    assert pairs.shape[1] == len(np.unique(ids)) == len(target.slots.unique())


def test_every_class_occurs():
    seen = set()
    for _, target in (SyntheticStreets(12, SIZE, seed=1)[i] for i in range(12)):
        seen |= set(target.class_ids.tolist())
    assert seen == {c.id for c in load_categories("camvid")}


def test_instances_keep_their_ids_and_move_smoothly():
    frames = list(drive(2, SIZE, 6))
    followed = 0
    for (_, before, old), (_, after, new) in itertools.pairwise(frames):
        old_class = {s["id"]: s["category_id"] for s in old if s["area"] > 100}
        new_class = {s["id"]: s["category_id"] for s in new}
        things = {i for i in set(old_class) & set(new_class) if old_class[i] >= 9}
        for segment_id in things:
            assert old_class[segment_id] == new_class[segment_id]
            overlap = ((before == segment_id) & (after == segment_id)).sum()
            assert overlap > 0.4 * min((m == segment_id).sum() for m in (before, after))
        followed += len(things)
    assert followed >= 10
    assert not np.array_equal(frames[0][1], frames[1][1])


def test_occlusion_is_exact(monkeypatch):
    """Without one vehicle, the canvas changes only where that vehicle was to be seen."""
    scene = StreetScene(8, SIZE)
    with_all = scene._render(0)
    movers = scene.traffic.at(0, scene.s)

    def owners(canvas):
        table = np.zeros(256, int)
        for slot, (segment_id, _) in canvas.owners.items():
            table[slot] = segment_id
        return table[canvas.pixels[..., 3]]

    before = owners(with_all)
    checked = 0
    for mover in movers:
        own = np.isin(before & 0xFFFF, [mover.number]) & (before > 255)
        if not own.any():
            continue
        others = [m for m in movers if m is not mover]
        monkeypatch.setattr(scene.traffic, "at", lambda *_, others=others: others)
        without = scene._render(0)
        assert np.array_equal(owners(without)[~own], before[~own])
        assert np.array_equal(without.pixels[~own][:, :3], with_all.pixels[~own][:, :3])
        assert (owners(without)[own] != before[own]).all()
        checked += 1
    assert checked >= 3


@pytest.mark.parametrize("size", [(64, 64), (90, 201), (240, 426)])
def test_any_size_is_filled(size):
    for seed in range(3):
        image, ids, _ = StreetScene(seed, size).frame(0)
        assert image.shape[:2] == ids.shape == size
        assert (ids[: size[0] // 2] > 0).all()  # void is but the bonnet at the lower edge


def test_grain_covers_every_size_and_frame():
    """1920 columns and their shift do not fit into 2048."""
    lens = Lens(random.Random(0))
    lens.noise, lens.seed = 0.5, 256
    for columns in (100, 1920):
        grey = np.full((64, columns, 3), 128, np.uint8)
        assert len(np.unique(lens.develop(grey, 0)[:, -10:])) > 3


def test_long_drive_stays_a_street():
    scene = StreetScene(5, SIZE)
    for t in (0, 500, 5000):
        _, ids, segments = scene.frame(t)
        road = next(s for s in segments if s["category_id"] == 4)
        assert road["area"] > 0.05 * ids.size
