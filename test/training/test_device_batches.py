"""Training from images that stay on the device."""

from __future__ import annotations

import json
import time

import pytest
import torch

from panoptic_ros.data.categories import parse_categories
from panoptic_ros.input_format import InputFormat
from panoptic_ros.training import device_batches
from panoptic_ros.training.checkpoint import load_checkpoint
from panoptic_ros.training.device_batches import Store, device_mix
from panoptic_ros.training.fields import RecipeError
from panoptic_ros.training.recipe import load_recipe
from panoptic_ros.training.trainer import train
from panoptic_ros.truth import PanopticTarget
from test.training.test_trainer import assert_same_weights
from test.training.tiny import CATEGORIES

CPU = torch.device("cpu")


def mix(recipe, **augmentation):
    settings = {"scale": [0.8, 1.2], "crop_size": [60, 64], "paste": 2, **augmentation}
    (stage,) = load_recipe(recipe | {"augmentation": settings}).stages
    return device_mix(stage, parse_categories(CATEGORIES), 3, CPU)


def test_a_sample_is_the_same_in_any_batch(recipe):
    batches = mix(recipe)
    whole, part = batches.batch(range(40)), batches.batch(range(30, 34))
    assert whole.names[30:34] == part.names
    torch.testing.assert_close(whole.images[30:34], part.images)
    for one, other in zip(whole.targets[30:34], part.targets, strict=True):
        assert all(torch.equal(vars(one)[name], value) for name, value in vars(other).items())
    counts = [int(target.is_thing.sum()) for target in whole.targets]
    assert max(counts) > 2  # an image has one or two cars: more are pasted
    for target in whole.targets:
        assert len(target.boxes) == len(target.class_ids) == int(target.slots.max())
    assert len({float(image.mean()) for image in whole.images}) == 40


def test_padded_and_normalised(recipe):
    batch = mix(recipe).batch([0, 1])
    before = batch.images.clone()
    form = InputFormat(resolution=(64, 80), mean=(10, 20, 30), std=(2, 2, 2))
    images, targets = batch.to_network(form, 32, CPU)
    assert images.shape == (2, 3, 64, 64) and images.is_contiguous(
        memory_format=torch.channels_last
    )
    torch.testing.assert_close(images[:, 1, :60], (before[:, 1] - 20) / 2)
    assert (images[:, :, 60:] == 0).all()
    assert all(t.slots.shape == (64, 64) and not t.slots[60:].any() for t in targets)


def test_what_does_not_fit_is_refused(recipe, monkeypatch):
    with pytest.raises(RecipeError, match="square"):
        mix(recipe, short_sides=[32], square=True)
    monkeypatch.setattr(device_batches, "MOST_BYTES", 100_000)
    with pytest.raises(RecipeError, match="6 images of up to 64x80"):
        mix(recipe)


def test_what_does_not_fit_is_not_decoded_first(monkeypatch):
    decoded = []

    class Images:
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            decoded.append(index)
            time.sleep(0.001)
            slots, none = torch.zeros((64, 80), dtype=torch.long), torch.zeros(0)
            image = torch.zeros((3, 64, 80), dtype=torch.uint8)
            return image, PanopticTarget(slots, none, none, none, none)

    monkeypatch.setattr(device_batches, "MOST_BYTES", 100_000)
    with pytest.raises(RecipeError, match="1000 images of up to 64x80"):
        Store([Images()], CPU)
    assert len(decoded) < 100


def test_an_interrupted_run_comes_to_the_same_end(recipe, tmp_path):
    recipe = {**recipe, "on_device": True}
    train(recipe, tmp_path / "whole", device="cpu")
    train(recipe, tmp_path / "parts", device="cpu", changes={"iterations": 4})
    train(recipe, tmp_path / "parts", device="cpu")
    with pytest.raises(AssertionError):  # its schedule was another one at first
        assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    constant = {**recipe, "schedule": {"name": "constant"}}
    train(constant, tmp_path / "constant", device="cpu")
    train(constant, tmp_path / "resumed", device="cpu", changes={"iterations": 4})
    train(constant, tmp_path / "resumed", device="cpu")
    assert_same_weights(tmp_path / "constant", tmp_path / "resumed")


def test_minutes_that_are_over_change_nothing(recipe, tmp_path):
    recipe = {**recipe, "on_device": True, "schedule": {"name": "constant"}}
    train(recipe, tmp_path, device="cpu", minutes=1e-6)
    before = load_checkpoint(tmp_path / "checkpoint.pt")
    train(recipe, tmp_path, device="cpu", minutes=1e-6)
    after = load_checkpoint(tmp_path / "checkpoint.pt")
    assert before["trainer"]["step"] == after["trainer"]["step"] == 1
    assert before["seconds"] == after["seconds"] and 0 < after["begin"] < after["seconds"]


def test_minutes_end_a_run(recipe, tmp_path):
    stages = [{"name": "one", "iterations": 300}, {"name": "two", "iterations": 100}]
    recipe = {**recipe, "on_device": True, "stages": stages}
    train(recipe, tmp_path, device="cpu", minutes=1e-6)  # a stage makes one step at least
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [(row["stage"], row["step"]) for row in rows if "lr" in row]
    assert steps == [("one", 1), ("two", 1)]
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(ValueError, match="minutes is -1; expected more than 0"):
        train(recipe, tmp_path, resume=False, device="cpu", minutes=-1)
    assert (tmp_path / "log.jsonl").read_bytes() == before
    assert all((tmp_path / folder / "model.yaml").exists() for folder in ("one", "last"))
