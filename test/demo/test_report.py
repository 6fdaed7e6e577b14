"""The numbers of report.json, against sums done by hand."""

import numpy as np
import pytest

from panoptic_ros.demo import report
from panoptic_ros.demo.report import StampCheck, account_for_frames
from panoptic_ros.demo.results import Result
from panoptic_ros.demo.session import Log
from panoptic_ros.prediction import PanopticPrediction


def counters(received, **fates):
    return {"received": received, **dict.fromkeys(report.FATES, 0), **fates}


def test_every_frame_is_accounted_for():
    frames = account_for_frames(
        sent=20, recorded=11, counters=counters(18, published=12, dropped=4, refused=1, failed=1)
    )
    assert frames["lost_in_transport"] == 2
    assert frames["results_lost"] == 1
    assert frames["all_accounted_for"]
    parts = ("published", "dropped", "refused", "failed", "lost_in_transport")
    assert sum(frames[part] for part in parts) == frames["sent"] == 20


@pytest.mark.parametrize(
    ("sent", "recorded", "counts"),
    [
        (20, 12, counters(20, published=12, dropped=7)),  # one frame vanished in the node
        (20, 12, counters(21, published=12, dropped=9)),  # the node received more than was sent
        (20, 13, counters(20, published=12, dropped=8)),  # more results than the node published
    ],
)
def test_what_does_not_add_up_is_said(sent, recorded, counts):
    assert not account_for_frames(sent, recorded, counts)["all_accounted_for"]


def result(stamp, frame_id="camera", size=(4, 6), has_instances=True):
    prediction = PanopticPrediction(np.zeros(size, np.uint16), (), ())
    return Result(stamp, 0, frame_id, prediction, 0.0, has_instances)


def check(*results):
    stamps = StampCheck(frozenset({1, 2, 3}))
    for item in results:
        stamps.add_result(item)
        stamps.add_pair("camera", (4, 6), item)
    return stamps.summary()


def test_right_stamps_are_verified():
    summary = check(result(1), result(3))
    assert summary["verified"] and summary["results"] == 2


@pytest.mark.parametrize(
    ("fault", "results"),
    [
        ("repeated", (result(1), result(1))),
        ("of_unknown_frames", (result(1), result(4))),
        ("with_other_frame_id", (result(1, frame_id="map"),)),
        ("with_other_size", (result(1, size=(4, 5)),)),
        ("without_instances", (result(1, has_instances=False),)),
    ],
)
def test_wrong_stamps_are_found(fault, results):
    summary = check(*results)
    assert not summary["verified"]
    assert summary[fault] == 1


def test_no_result_verifies_nothing():
    assert not check()["verified"]


def test_percentiles_are_values_that_occurred():
    assert report.rounded_percentiles([float(i) for i in range(1, 21)]) == {
        "p50": 10.0,
        "p95": 19.0,
    }
    assert report.rounded_percentiles([]) == {}


def test_stages_are_read_from_diagnostics():
    diagnostics = {
        "state": "active",
        "forward p50 (ms)": "12.5",
        "forward p95 (ms)": "20.0",
        "age p50 (ms)": "1e9",
    }
    assert report.stage_latencies(diagnostics) == {"forward": {"p50": 12.5, "p95": 20.0}}


def test_the_frame_table_lists_frames_with_and_without_result():
    table = report.frame_table({7: 1_000_000, 8: 2_000_000}, {8: (5_500_000, 3)})
    assert table == [
        {"stamp": 7, "latency_ms": None, "instances": None},
        {"stamp": 8, "latency_ms": 3.5, "instances": 3},
    ]


def test_rates_and_instances():
    assert report.rate([0, 10**8, 4 * 10**8]) == 5.0
    assert report.rate([3]) == 0.0
    assert report.instance_summary([2, 0, 5]) == {"min": 0, "mean": 2.33, "max": 5}


def test_versions_are_named():
    versions = report.versions()
    assert versions["numpy"] == np.__version__
    assert versions["torch"] != "unknown"


def log_of(counts, received, seconds_later):
    log = Log(sent={1: 10**9, 2: 2 * 10**9})
    log.diagnostics = {name: str(count) for name, count in counts.items()}
    log.received = dict.fromkeys(range(received), 0)
    log.diagnosed = 2 * 10**9 + int(seconds_later * 1e9)
    return log


def test_a_run_is_settled_when_late_counts_add_up_and_all_results_are_there():
    final = counters(2, published=1, dropped=1)
    assert log_of(final, received=1, seconds_later=2).settled()
    assert not log_of(final, received=1, seconds_later=1).settled()
    assert not log_of(final, received=0, seconds_later=2).settled()
    assert not log_of(counters(2, published=1), received=1, seconds_later=2).settled()
