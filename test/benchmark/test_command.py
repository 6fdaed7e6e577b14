"""``panoptic benchmark`` itself, on a tiny network."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import pytest
from typer.testing import CliRunner

from panoptic_ros import cli
from panoptic_ros.benchmark import measure as measuring
from panoptic_ros.benchmark.measure import measure
from panoptic_ros.benchmark.results import STAGES, Measurement, Variant
from panoptic_ros.benchmark.table import format_table, milliseconds
from panoptic_ros.model_zoo import MODEL_FILE, format_config, load_config


@pytest.fixture
def configuration(tiny_model, tmp_path, monkeypatch):
    """A configuration without weights."""
    folder = tmp_path / "share/config/networks"
    folder.mkdir(parents=True)
    config = replace(load_config(tiny_model / MODEL_FILE), sha256=None)
    (folder / "fresh.yaml").write_text(format_config(config))
    monkeypatch.setattr(measuring, "share_directory", lambda: tmp_path / "share")
    return "fresh"


def invoke(*words):
    return CliRunner().invoke(cli.app, ["benchmark", *map(str, words)])


def test_everything_is_measured_with_everything(configuration, tmp_path):
    result = invoke(
        "--model", configuration, "--resolution", "64x128", "--batch", "1,2",
        "--engine", "eager", "--device", "cpu", "--precision", "fp32,int8", "--repeat", 3,
        "--json", tmp_path / "report.json", "--plot", tmp_path / "report.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [m["variant"]["batch"] for m in report["measurements"]] == [1, 2]
    for measured in report["measurements"]:
        assert measured["has_random_weights"]
        seconds = measured["seconds"]
        assert set(seconds) == {*STAGES, "total"}
        assert {len(samples) for samples in seconds.values()} == {3}
        for index, total in enumerate(seconds["total"]):
            assert sum(seconds[stage][index] for stage in STAGES) <= total
    assert [name for name, _ in report["skipped"]] == [
        f"fresh 64x128 batch {batch} eager int8" for batch in (1, 2)
    ]
    assert "fresh*" in result.output and "random weights" in result.output
    assert "int8 is for engine openvino" in result.output
    assert cv2.imread(str(tmp_path / "report.png")).std() > 10


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--model", ","), "no model is given"),
        (("--model", "nobody"), "no model 'nobody'"),
        (("--model", "fpsnet_small", "--batch", "0"), "batch is '0'"),
        (("--model", "fpsnet_small", "--batch", ","), "batch is ','"),
        (("--model", "fpsnet_small", "--resolution", "64"), "expected HEIGHTxWIDTH"),
        (("--model", "fpsnet_small", "--plot", "report.txt"), "ends in .png"),
        (("--model", "fpsnet_small", "--repeat", "0"), "repeat is 0"),
    ],
)
def test_bad_arguments(words, error):
    result = invoke(*words, "--engine", "eager")
    assert result.exit_code != 0 and error in str(result.exception)


def test_what_fails_on_the_way_is_skipped(tiny_model, monkeypatch):
    variant = Variant(str(tiny_model), (64, 128), engine="eager", device="cpu")
    runs = []

    def run(self, is_counted):
        runs.append(is_counted)
        if len(runs) == 2:
            raise RuntimeError("broken")

    monkeypatch.setattr(measuring.Subject, "run", run)
    report = measure([variant], repeat=5)
    assert runs == [False, True]
    assert not report.measurements
    assert [reason for _, reason in report.skipped] == ["broken"]


def test_rates_count_all_images_of_a_call():
    measured = Measurement(Variant("m", batch=4), False, {"total": [0.1, 0.2, 9.0]})
    assert measured.median("total") == 0.2
    assert measured.frames_per_second == 20


def test_a_table_is_markdown():
    table = format_table(("name", "ms"), [("a", milliseconds(0.00123)), ("bb", "12")])
    assert table.splitlines() == [
        "| name |   ms |",
        "| ---- | ---: |",
        "| a    | 1.23 |",
        "| bb   |   12 |",
    ]
    assert [milliseconds(s) for s in (0.0123, 0.2)] == ["12.3", "200"]
