"""The command itself, on a tiny network with random weights."""

from dataclasses import replace

import cv2
import pytest
from typer.testing import CliRunner

from panoptic_ros import cli
from panoptic_ros.benchmark import loading
from panoptic_ros.benchmark.command import make_variants, numbers, peer_list
from panoptic_ros.benchmark.peers import PEERS
from panoptic_ros.benchmark.results import read_json
from panoptic_ros.model_zoo import MODEL_FILE, format_config, load_config


@pytest.fixture
def configuration(tiny_model, tmp_path, monkeypatch):
    """A configuration without weights."""
    folder = tmp_path / "share/config/networks"
    folder.mkdir(parents=True)
    config = replace(load_config(tiny_model / MODEL_FILE), sha256=None)
    (folder / "fresh.yaml").write_text(format_config(config))
    monkeypatch.setattr(loading, "share_directory", lambda: tmp_path / "share")
    return "fresh"


def invoke(*words):
    return CliRunner().invoke(cli.app, ["benchmark", *map(str, words)])


def test_command(configuration, tmp_path):
    result = invoke(
        "--model", configuration, "--resolution", "64x128", "--cameras", "1,2",
        "--engine", "eager", "--device", "cpu", "--instances", "0,3", "--repeat", 2,
        "--json", tmp_path / "report.json", "--plot", tmp_path / "report.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = read_json(tmp_path / "report.json")
    assert len(report.measurements) == 4 and not report.skipped
    assert all(m.random_weights for m in report.measurements)
    assert "fresh*" in result.output and "random weights" in result.output
    for title in ("Stages", "Cost over instances", "Cost over batch and cameras"):
        assert title in result.output
    assert cv2.imread(str(tmp_path / "report.png")) is not None


def test_precisions_are_measured_beside_each_other(configuration, tmp_path):
    words = ["--model", configuration, "--resolution", "64x128", "--engine", "eager"]
    file = tmp_path / "report.json"
    result = invoke(
        *words, "--device", "cpu", "--precision", "fp32,bf16,int8", "--repeat", 1, "--json", file
    )
    assert result.exit_code == 0, result.output
    report = read_json(file)
    assert [m.precision for m in report.measurements] == ["fp32", "bf16"]
    ((name, reason),) = report.skipped
    assert "int8" in name and "int8 is for engine openvino" in reason


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--model", ","), "no model is given"),
        (("--model", "nobody"), "no model 'nobody'"),
        (("--model", "fpsnet_small", "--batch", "0"), "batch is '0'"),
        (("--model", "fpsnet_small", "--cameras", "two"), "cameras is 'two'"),
        (("--model", "fpsnet_small", "--resolution", "64"), "expected HEIGHTxWIDTH"),
        (("--model", "fpsnet_small", "--plot", "report.txt"), "ends in .png"),
        (("--model", "fpsnet_small", "--repeat", "0"), "repeat is 0"),
    ],
)
def test_bad_arguments(words, error):
    result = invoke(*words, "--engine", "eager")
    assert result.exit_code != 0 and error in str(result.exception)


def test_everything_is_combined_with_everything():
    variants = make_variants(["a", "b"], [(1, 2), None], [1, 4], ["x", "y"], instances=[0, 5])
    assert len(set(variants)) == len(variants) == 2 * 2 * 2 * (2 + 2)
    assert {v.batch for v in variants if v.instances is not None} == {1}
    assert numbers("batch", " 4,1 ", 1) == [4, 1] and numbers("instances", "0", 0) == [0]


def test_peers_come_at_every_size_once():
    variants = make_variants(["fpsnet_cityscapes", "nobody"], [None, (64, 128)])
    assert peer_list(variants) == [(n, s) for n in PEERS for s in ((1024, 2048), (64, 128))]
