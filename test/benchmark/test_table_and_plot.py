"""What people see of a report."""

import re

import cv2
import pytest

from panoptic_ros.benchmark.plot import plot_report
from panoptic_ros.benchmark.table import format_report, format_table, milliseconds

from .reports import measurement, peer, report


def whole_report():
    measurements = [
        measurement(head=0.01),
        measurement(size=(1024, 2048), forward=0.4),
        measurement(batch=4, forward=0.3),
        measurement(instances=0),
        measurement(instances=50, predict=0.03),
    ]
    return report(*measurements, peers=[peer()], skipped=[("the rest", "no time left")])


def test_table_is_aligned_markdown():
    assert format_table(("a", "number"), [("long", 1), ("b", 22)]).split("\n") == [
        "| a    | number |",
        "| ---- | -----: |",
        "| long |      1 |",
        "| b    |     22 |",
    ]
    assert format_table(("a",), []) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00004, "0.04"), (0.0123, "12.3"), (0.0999, "99.9"), (0.1, "100"), (12.5, "12500")],
)
def test_milliseconds(seconds, text):
    assert milliseconds(seconds) == text


def test_report_shows_every_comparison():
    text = format_report(whole_report())
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.split("\n")]
    cells = {tuple(row) for row in rows}
    name = ("fpsnet_cityscapes*", "512x1024", "openvino bf16")
    assert (*name, "1.00", "1.00", "1.00", "100", "20.0", "1.00", "1.00") in cells  # the stages
    assert (*name, "125", "125", "8.0", "100", "1.23", "1.12", "0", "0", "3") in cells
    assert ("fpsnet_cityscapes", "512x1024", "openvino bf16", "4", "325", "2.60", "1.00") in cells
    assert "random weights" in text and "an abacus, 2 cores" in text
    assert "- the rest: no time left" in text
    for title in (
        "Cost over pixels",
        "Cost over instances",
        "Cost over batch and cameras",
        "Peers",
    ):
        assert title in text


def test_report_leaves_out_what_it_does_not_have():
    text = format_report(report(measurement()))
    assert not any(word in text for word in ("Cost over", "Peers", "Skipped"))


@pytest.mark.parametrize("contents", [whole_report(), report(measurement(batch=2))])
def test_picture(tmp_path, contents):
    path = tmp_path / "new" / "report.png"
    plot_report(contents, path)
    picture = cv2.imread(str(path))
    assert min(picture.shape[:2]) > 150 and picture.shape[1] > 1000
    assert picture.std() > 10  # there is something on it
    assert [p.name for p in path.parent.iterdir()] == ["report.png"]


def test_no_picture_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_report(report(), tmp_path / "report.png")
