"""Measurements, the file they go through, and what is read out of them."""

import json
from dataclasses import replace

import pytest

from panoptic_ros.benchmark.comparisons import (
    instance_costs,
    peer_ratios,
    relative_costs,
    resolution_slopes,
)
from panoptic_ros.benchmark.results import Report, Variant, read_json, write_json

from .reports import MACHINE, measurement, peer, report


def test_overhead_is_pipeline_over_bare_forward():
    m = measurement(forward=0.1, predict=0.02, head=0.01)
    assert m.overhead() == pytest.approx(1.23)  # 100 + 20 + three stages of 1 ms
    assert m.overhead(with_head=True) == pytest.approx(123 / 110)
    assert m.frames_per_second == pytest.approx(1 / 0.125)
    assert measurement(batch=4).frames_per_second == pytest.approx(4 / 0.125)
    assert measurement(instances=5).overhead() is None


def test_report_survives_its_file(tmp_path):
    written = report(
        measurement(), measurement(instances=50), peers=[peer()], skipped=[("x", "why")]
    )
    path = tmp_path / "new" / "report.json"
    write_json(written, path)
    assert read_json(path) == written
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]  # nothing half-written
    summary = json.loads(path.read_text())["measurements"][0]["summary"]
    assert summary["overhead"] == pytest.approx(1.23)
    assert summary["seconds"]["forward"] == {"median": 0.1, "p95": 0.1, "number": 3}


@pytest.mark.parametrize("text", ["", "[]", '{"machine": {}}'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a report"):
        read_json(path)


def test_slope_needs_two_sizes_of_the_same_run():
    sizes = ((256, 512), (512, 1024), (1024, 2048))
    # 97 times the pixels in units of 256x512, and 3 ms: a pipeline of exactly 100, 391, 1555.
    ms = [
        measurement(size=s, forward=0.0485 * f, predict=0.0485 * f)
        for s, f in zip(sizes, (1, 4, 16), strict=True)
    ]
    (slope,) = resolution_slopes([*ms, measurement(model="other")])
    assert slope.megapixels == pytest.approx((0.131072, 0.524288, 2.097152))
    assert slope.seconds == pytest.approx((0.1, 0.391, 1.555))
    assert 0.98 < slope.slope < 1
    assert not resolution_slopes([replace(m, run=str(i)) for i, m in enumerate(ms)])


def test_instances_are_weighed_with_the_bare_forward():
    empty, crowd = (
        measurement(instances=number, forward=0.0, predict=seconds, found=number)
        for number, seconds in ((0, 0.018), (50, 0.038))
    )
    costs = instance_costs([crowd, measurement(forward=0.1), empty])
    assert [c.instances for c in costs] == [0, 50]
    assert [c.behind for c in costs] == pytest.approx([0.020, 0.040])  # download and publish: 2 ms
    assert [c.whole for c in costs] == pytest.approx([1, 140 / 120])
    assert costs[0].per_instance == pytest.approx(0.020 / 50)
    assert [c.whole for c in instance_costs([empty, crowd])] == [None, None]


def test_cameras_are_compared_with_one():
    four = measurement(batch=4, forward=0.3, predict=0.02, memory=(100, 125))
    costs = relative_costs([four, measurement(memory=(100, 50)), measurement(model="other")])
    assert [(c.batch, c.memory) for c in costs] == [(1, 1.0), (4, 1.5)]
    assert costs[1].time == pytest.approx(325 / 125)
    unknown = replace(four, held_bytes=None)
    assert relative_costs([measurement(), unknown])[1].memory is None


def test_peers_are_compared_at_their_size_in_their_run():
    ours = [
        measurement(),
        measurement(size=(256, 512)),
        measurement(batch=4),
        measurement(instances=0),
        measurement(run="another"),
    ]
    (ratio,) = peer_ratios(report(*ours, peers=[peer(total=0.615)]))
    assert (ratio.size, ratio.detections, ratio.model) == ("512x1024", 20, "fpsnet_cityscapes")
    assert ratio.ratio == pytest.approx(5)


def test_runs_are_told_apart_when_joined():
    joined = Report(dict(MACHINE))
    joined.add(report(measurement(), peers=[peer()], skipped=[("x", "why")]), "first")
    assert joined.measurements[0].run == joined.peers[0].run == "first"
    assert joined.skipped == [("first: x", "why")]


def test_a_variant_says_what_it_is():
    variant = Variant("net", (64, 128), 2, "eager", "fp32", instances=5)
    assert str(variant) == "net 64x128 batch 2 eager fp32, 5 instances"
