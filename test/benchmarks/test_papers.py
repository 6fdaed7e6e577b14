"""The calls that are timed do what they say, and rounds take turns."""

from __future__ import annotations

import pytest
import torch

from benchmarks.papers import frame_calls, make_segmenter
from benchmarks.rounds import medians

pytestmark = pytest.mark.filterwarnings("ignore")


def test_planted_instances_are_those_of_the_label_image():
    segmenter = make_segmenter("panonet_small", (64, 128), "cpu", "eager")
    calls = frame_calls(segmenter, (64, 128), cameras=2, instances=(0, 6))
    assert set(calls) == {"frame", "forward", "2 cameras", "0 instances", "6 instances"}
    for count in (0, 6):
        (encoded,) = calls[f"{count} instances"]()
        labels = encoded.labels.long() & 0xFFFF
        assert len(torch.unique(labels[labels % 256 > 0])) == count
    assert len(calls["2 cameras"]()) == 2


def test_rounds_take_turns_and_the_first_does_not_count():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = medians(calls, 3, torch.device("cpu"))
    assert "".join(order) == "abababab"
    assert set(found) == {"a", "b"} and min(found.values()) >= 0
    order.clear()
    medians(calls, 9, torch.device("cpu"), seconds=0.0)
    assert "".join(order) == "abab"
