"""Runs of ``panoptic label`` in this process, where processes are not what is tested."""

from __future__ import annotations

from dataclasses import replace

import cv2
import pytest
import torch

from panoptic_ros.data.synthetic import drive
from panoptic_ros.fleet.command import label_bags
from panoptic_ros.fleet.label import Labeller


@pytest.fixture(autouse=True)
def threads():
    """A worker takes as few threads as it is given; other tests get theirs back."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="session")
def streets():
    """Twelve frames of a synthetic street: uint8, (48, 64, 3), RGB."""
    return [image for image, _, _ in drive(7, (48, 64), 12)]


@pytest.fixture
def label(tiny_model, monkeypatch):
    """Label bags with the tiny model, one span after the other."""

    def run(spans, settings, workers, devices):
        yield from map(Labeller(replace(settings, device="cpu")), spans)

    monkeypatch.setattr("panoptic_ros.fleet.command.run_local", run)

    def label(bags, output, **options):
        options = {"model": str(tiny_model), "device": "cpu", "engine": "eager", **options}
        return label_bags(bags, output, **options)

    return label
