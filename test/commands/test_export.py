"""``panoptic export``: files that other programs can use, and what is refused."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from panoptic_ros.cli import main
from panoptic_ros.commands.export import export_model
from panoptic_ros.engines.base import EngineError
from panoptic_ros.model_zoo import load_model

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(tiny_model):
    _, network = load_model(tiny_model)
    with torch.inference_mode():
        return network(IMAGES)


def test_exported_program(tiny_model, expected, tmp_path, capsys):
    file = tmp_path / "new" / "tiny.pt2"
    words = ["export", "--model", str(tiny_model), "--format", "exported-program"]
    with pytest.raises(SystemExit) as done:
        main([*words, "--output", str(file), "--resolution", "60x96", "--batch", "2"])
    assert done.value.code == 0
    assert capsys.readouterr().out.strip() == f"wrote {file}"
    with torch.inference_mode():
        results = torch.export.load(file).module()(IMAGES)
    assert list(results) == list(expected)
    torch.testing.assert_close(results, dict(expected), rtol=1e-3, atol=1e-4)
    described = json.loads(file.with_suffix(".json").read_text())
    assert described["input"]["shape"] == [2, 3, 64, 96]
    assert described["input"]["resolution"] == [60, 96]
    assert described["input"]["mean"] == [123.675, 116.28, 103.53]
    assert described["outputs"] == {
        name: {"shape": list(value.shape), "type": "float32"} for name, value in expected.items()
    }
    assert sorted(path.name for path in file.parent.iterdir()) == ["tiny.json", "tiny.pt2"]


def test_openvino(tiny_model, expected, tmp_path):
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    file = export_model(tiny_model, "openvino", tmp_path / "tiny.xml", "64x96", 2)
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(IMAGES.numpy())
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-3, atol=1e-4)


def test_onnx_in_half_precision(tiny_model, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    file = export_model(tiny_model, "onnx", tmp_path / "tiny.onnx", "64x96", precision="fp16")
    model = onnx.load(file)
    onnx.checker.check_model(model)
    half = onnx.TensorProto.FLOAT16
    assert model.graph.input[0].type.tensor_type.elem_type == half
    assert model.graph.output[0].type.tensor_type.elem_type == half
    assert json.loads(file.with_suffix(".json").read_text())["precision"] == "fp16"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="is installed")
def test_what_is_missing_is_named(tiny_model, tmp_path):
    with pytest.raises(EngineError, match="tensorrt needs tensorrt: python3 -m pip install"):
        export_model(tiny_model, "tensorrt", tmp_path / "tiny.plan")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tiny.json").write_text("of an older export")
    with pytest.raises(EngineError, match="needs tensorrt"):
        export_model(tiny_model, "tensorrt", tmp_path / "tiny.plan")
    assert (tmp_path / "tiny.json").read_text() == "of an older export"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"format": "torchscript"}, "expected onnx, openvino, tensorrt, exported-program"),
        ({"precision": "auto"}, "expected fp32, fp16, bf16"),
        ({"batch": 0}, "batch is 0"),
        ({"resolution": "small"}, "expected HEIGHTxWIDTH"),
        ({"output": "x.json"}, "is the description"),
        ({"format": "openvino"}, "OpenVINO's format is a .xml"),
    ],
)
def test_wrong_arguments_are_refused(tiny_model, tmp_path, arguments, reason):
    (tmp_path / "x.json").write_text("of an older export")
    with pytest.raises(ValueError, match=reason):
        export_model(tiny_model, **{"format": "onnx", "output": tmp_path / "x.onnx", **arguments})
    assert (tmp_path / "x.json").read_text() == "of an older export"
