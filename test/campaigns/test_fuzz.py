"""What the fuzz campaign ever found is used again, and a little more of each."""

from __future__ import annotations

import importlib.util
import json
import random

import pytest

from campaigns.fuzz import CORPUS, check_good, fuzz, replay
from campaigns.mutation import mutate_bytes, mutate_value
from campaigns.targets import TARGETS, Target, load_target

QUICK = ("messages", "pictures", "bags", "db3", "ros1_bags", "cache", "annotations", "cityscapes")
QUICK += ("recipes", "checkpoints")
MODULES = {"launch": "launch", "parameters": "rclpy", "node": "rclpy"}


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_findings_stay_mended(name, tmp_path):
    assert replay(name, tmp_path) > 0


@pytest.mark.parametrize("name", QUICK)
def test_some_of_each(name, tmp_path):
    report = fuzz(load_target(name, tmp_path), 7, seconds=60, folder=tmp_path, most=101)
    assert report["inputs"] == report["served"] + report["refused"] == 101


def test_every_target_has_a_module_to_use():
    assert set(CORPUS.iterdir()) <= {CORPUS / name for name in TARGETS}
    assert set(MODULES) <= set(TARGETS)


@pytest.mark.skipif(not importlib.util.find_spec("rclpy"), reason="ROS 2 is not installed")
def test_parameters(tmp_path):
    report = fuzz(load_target("parameters", tmp_path), 7, seconds=60, folder=tmp_path, most=101)
    assert report["refused"] > 0


def test_a_seed_gives_the_same_inputs():
    def first(seed):
        rng = random.Random(seed)
        value = {"a": [1, {"b": 2.5}], "c": "text"}
        return mutate_bytes(rng, b"0123456789" * 5), json.dumps(mutate_value(rng, value))

    assert first(3) == first(3)
    assert len({first(seed) for seed in range(50)}) > 40


def test_what_is_not_refused_with_a_reason_is_a_finding(tmp_path):
    def use(data):
        if data != b"good":
            raise ValueError("")

    target = Target("silent", [b"good"], use, (ValueError,))
    check_good(target, random.Random(0))
    with pytest.raises(AssertionError, match="without a reason"):
        fuzz(target, seed=1, seconds=5, folder=tmp_path)
    assert (tmp_path / "current.bin").read_bytes() != b"good"


def test_an_error_that_is_not_promised_is_a_finding(tmp_path):
    def use(data):
        if data != b"good":
            raise KeyError("x")

    with pytest.raises(KeyError):
        fuzz(Target("loud", [b"good"], use, (ValueError,)), 1, 5, tmp_path)


def test_a_good_input_that_is_refused_is_a_finding(tmp_path):
    def use(data):
        raise ValueError("no")

    with pytest.raises(AssertionError, match="good input of deaf is refused"):
        check_good(Target("deaf", [b"good"], use, (ValueError,)), random.Random(0))
