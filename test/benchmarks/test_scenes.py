"""Scenes with a given number of instances: the networks' own predict must find just those."""

import numpy as np
import pytest
import torch

from benchmarks.planting import plant
from benchmarks.scenes import Layout
from panoptic_ros.benchmark.pictures import street_images
from panoptic_ros.model_zoo import load_config
from panoptic_ros.system import share_directory
from panoptic_ros.truth import FrameSize

SIZES = {
    "fpsnet": (128, 256),
    "dense_detection": (128, 256),
    "panonet": (128, 256),
    "epsnet": (264, 264),
    "panoptic_fcn": (128, 256),
}


@pytest.mark.parametrize("count", [0, 1, 7, 50, 200])
def test_boxes_of_a_layout_do_not_touch(count):
    layout = Layout.of(count, 3, (120, 250))
    assert layout.boxes.shape == (count, 4)
    taken = np.zeros((1200, 2500), int)
    for x1, y1, x2, y2 in (layout.boxes * 10).round().int().tolist():
        assert 0 <= x1 < x2 <= 2500 and 0 <= y1 < y2 <= 1200
        taken[y1:y2, x1:x2] += 1
    assert taken.max(initial=0) <= 1
    assert layout.classes.tolist() == [i % 3 for i in range(count)]


def test_owners_are_the_boxes_that_cover_the_cells():
    layout = Layout.of(2, 1, (40, 80))  # side by side, 28 pixels each: 6..34 and 46..74
    owner = layout.owners((5, 10), 8)  # centres at 4, 12, 20, 28, 36, ...
    row = [-1, 0, 0, 0, -1, -1, 1, 1, 1, -1]
    assert owner.tolist() == [[-1] * 10, row, row, row, [-1] * 10]


@pytest.fixture(scope="module", params=SIZES)
def network(request):
    torch.manual_seed(0)
    path = share_directory() / "config/networks" / f"{request.param}_small.yaml"
    config = load_config(path)
    network, size = config.build().eval(), SIZES[request.param]
    with torch.inference_mode():
        return network, network(torch.randn(1, 3, *size)), size, config.options


def things(network, raw, size, options):
    """Slots in use, and those with a pixel, by class."""
    segments = network.predict(raw, [FrameSize(size, size)], options)[0]
    number = len(segments.class_ids) - len(network.stuff_ids)
    used = (segments.class_ids[:number] > 0).nonzero().flatten()
    seen = [int(i) for i in used if (segments.slots == i + 1).any()]
    return segments.class_ids[used].tolist(), segments.class_ids[seen].tolist()


@pytest.mark.parametrize("count", [0, 12])
def test_network_finds_what_is_planted(network, count):
    network, raw, size, options = network
    before = {name: value.clone() for name, value in raw.items()}
    layout = Layout.of(count, len(network.thing_ids), size)
    with torch.inference_mode():
        planted = plant(network, raw, layout)
        used, seen = things(network, planted, size, options)
    expected = sorted(network.thing_ids[layout.classes].tolist())
    assert sorted(used) == expected
    if type(network).__name__ != "FPSNet":  # whose fresh head draws them as it likes
        assert sorted(seen) == expected
    assert all(torch.equal(raw[name], value) for name, value in before.items())
    assert {n: (v.shape, v.dtype) for n, v in planted.items()} == {
        n: (v.shape, v.dtype) for n, v in raw.items()
    }


def test_other_networks_are_refused():
    with pytest.raises(TypeError, match="Linear"):
        plant(torch.nn.Linear(1, 1), {}, Layout.of(1, 1, (64, 64)))


def test_streets_differ():
    first, second = street_images(2, (60, 100))
    assert first.shape == second.shape == (60, 100, 3)
    assert first.dtype == np.uint8 and (first != second).mean() > 0.3
