"""Every engine computes what ``forward`` does, or says plainly why it cannot."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch

from panoptic_ros.engines import ENGINES, make_engine, resolve_engine
from panoptic_ros.engines.base import EngineError, EngineInput

from .two_maps import TwoMaps, make_network

CPU = torch.device("cpu")
SIZE = (24, 40)
NEEDS = {"openvino": ("openvino", "onnxscript"), "onnxruntime": ("onnxruntime", "onnxscript")}
INSTALLED = [
    name
    for name in ("eager", "compiled", "onnxruntime", "openvino")
    if all(importlib.util.find_spec(package) for package in NEEDS.get(name, ()))
]


def source(precision: str = "fp32", network: TwoMaps | None = None) -> EngineInput:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    served = copy.deepcopy(network or make_network()).to(dtype)
    return EngineInput(served, CPU, precision, SIZE)


def images(number: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(number, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=INSTALLED)
def engine(request):
    return make_engine(request.param, source())


@pytest.mark.parametrize("number", [1, 3])
def test_outputs_are_those_of_forward(engine, number):
    """Also of a batch that it was not compiled for, and in any layout."""
    batch = images(number)
    expected = make_network()(batch)
    for layout in (torch.contiguous_format, torch.channels_last):
        results = engine(batch.to(memory_format=layout))
        assert list(results) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(results[name], value, rtol=1e-5, atol=1e-6)


def test_compiling_for_a_batch_changes_no_result(engine):
    engine.compile(2)
    for number in (1, 2, 5):
        batch = images(number, seed=7)
        expected = make_network()(batch)
        torch.testing.assert_close(engine(batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", INSTALLED)
def test_outputs_keep_the_types_of_a_bf16_network(name):
    engine = make_engine(name, source("bf16"))
    results = engine(images(1))
    assert {name: value.dtype for name, value in results.items()} == {
        "features": torch.bfloat16,
        "scores": torch.float32,
    }
    for name, value in make_network()(images(1)).items():
        torch.testing.assert_close(results[name].float(), value, rtol=0.03, atol=0.03)


@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
def test_openvino_pins_no_thread_to_a_core():
    """Pinned, two workers on two cores were as fast as one: both computed on the first."""
    runner, _ = make_engine("openvino", source())._compiled[1]
    compiled = runner._request.get_compiled_model()
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


class OnlyPyTorch(TwoMaps):
    """Uses an operation that no other engine can know."""

    def forward(self, images):
        return {"twice": twice(images)}


@torch.library.custom_op("panoptic_ros_test::twice", mutates_args=())
def twice(images: torch.Tensor) -> torch.Tensor:
    return 2 * images


@twice.register_fake
def _(images):
    return torch.empty_like(images)


def test_auto_goes_on_when_an_engine_fails_and_says_why(caplog):
    engine = make_engine("auto", source(network=OnlyPyTorch()))
    assert engine.name == "eager"
    torch.testing.assert_close(engine(images(1))["twice"], 2 * images(1))
    if "openvino" in INSTALLED:
        assert "engine openvino, fp32, 24x40, batch 1:" in caplog.text
        assert "panoptic_ros_test.twice" in caplog.text


@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
def test_an_engine_that_was_asked_for_is_not_replaced():
    with pytest.raises(EngineError, match=r"engine openvino, fp32.*panoptic_ros_test\.twice"):
        make_engine("openvino", source(network=OnlyPyTorch()))


def test_auto_ends_with_eager():
    for precision in ("fp32", "bf16"):
        names = resolve_engine("auto", CPU, precision)
        assert names[-1] == "eager" and set(names) <= set(INSTALLED)
    assert resolve_engine("auto", torch.device("cuda"), "bf16") == ["compiled", "eager"]
    assert resolve_engine("eager", CPU, "fp32") == ["eager"]


def test_unknown_engines_are_refused():
    with pytest.raises(ValueError, match=f"engine is 'warp'; expected auto, {', '.join(ENGINES)}"):
        resolve_engine("warp", CPU, "fp32")


def test_engines_for_other_devices_are_refused():
    with pytest.raises(EngineError, match="tensorrt runs on cuda, not on cpu; use engine auto"):
        resolve_engine("tensorrt", CPU, "fp32")
    with pytest.raises(EngineError, match="openvino runs on cpu, not on cuda:1"):
        resolve_engine("openvino", torch.device("cuda:1"), "fp16")


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="is installed")
def test_what_is_not_installed_is_named():
    with pytest.raises(EngineError, match="python3 -m pip install tensorrt"):
        resolve_engine("tensorrt", torch.device("cuda"), "fp16")
