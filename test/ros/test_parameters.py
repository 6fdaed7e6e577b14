"""The table of parameters: what it refuses, and that the yaml file says the same."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields, replace

import pytest
import yaml
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter

from panoptic_ros.ros.parameters import Applies, Parameters, as_yaml, describe
from panoptic_ros.system import share_directory

FIELDS = {entry.name: entry for entry in fields(Parameters)}


def test_yaml_file_is_made_from_the_table():
    assert (share_directory() / "config" / "panoptic.yaml").read_text() == as_yaml()


def test_yaml_file_holds_the_defaults():
    values = yaml.safe_load(as_yaml())["/**"]["ros__parameters"]
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    assert values == asdict(Parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "my models/one"),
        ("resolution", "512x1024"),
        ("resolution", ""),
        ("device", "cuda:3"),
        ("precision", "bf16"),
        ("engine", "openvino"),
        ("score_threshold", 0.0),
        ("score_threshold", 1),
        ("score_threshold", -1),
        ("stuff_area_limit", 0),
        ("max_rate", 10),
        ("cameras", ["front", "rig/left_2"]),
        ("cameras", [""]),
        ("mask_classes", ["traffic light", "24"]),
        ("mask_classes", [""]),
        ("lazy", False),
    ],
)
def test_values_that_fit(name, value):
    parameters = Parameters().changed([Parameter(name, value=value)])
    expected = tuple(value) if isinstance(value, list) else value
    assert getattr(parameters, name) == expected
    assert type(getattr(parameters, name)) is type(FIELDS[name].default)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("model", "", "model is ''; expected Name of a model"),
        ("resolution", "512", "resolution is '512'; expected HEIGHTxWIDTH"),
        ("resolution", "512 x 1024", "expected HEIGHTxWIDTH"),
        ("device", "gpu", "device is 'gpu'; expected auto .CUDA where there is one., cpu, cuda"),
        ("device", "cuda:", "expected auto"),
        ("precision", "fp8", "precision is 'fp8'; expected one of auto, fp32, fp16, bf16"),
        ("engine", "warp", "engine is 'warp'; expected one of auto, eager, compiled"),
        ("score_threshold", 1.01, r"expected a number in 0.0..1.0, or -1.0"),
        ("score_threshold", -0.5, r"expected a number in 0.0..1.0, or -1.0"),
        ("score_threshold", "high", "score_threshold is 'high'"),
        ("score_threshold", float("nan"), "score_threshold is nan"),
        ("score_threshold", True, "score_threshold is True"),
        ("overlay_opacity", -1.0, r"overlay_opacity is -1.0; expected a number in 0.0..1.0"),
        ("stuff_area_limit", -2, "stuff_area_limit is -2; expected a whole number"),
        ("stuff_area_limit", 1.5, "stuff_area_limit is 1.5"),
        ("lazy", 1, "lazy is 1; expected true or false"),
        ("reliability", "auto ", "expected one of auto, reliable, best_effort"),
        ("cameras", [], "cameras is .*at least one"),
        ("cameras", ["a", "a"], "cameras is .*different names"),
        ("cameras", ["front camera"], "cameras is"),
        ("cameras", ["/front"], "cameras is"),
        ("mask_classes", [], "expected different names or ids of classes"),
        ("mask_classes", ["car", "car"], "expected different names or ids of classes"),
    ],
)
def test_values_that_do_not_fit(name, value, reason):
    with pytest.raises(ValueError, match=reason):
        replace(Parameters(), **{name: value})


def test_several_are_checked_together_and_strangers_ignored():
    changed = Parameters().changed(
        [Parameter("use_sim_time", value=True), Parameter("lazy", value=False)]
    )
    assert changed == replace(Parameters(), lazy=False)


def test_differences_are_told_by_kind():
    one = Parameters()
    two = replace(one, model="other", lazy=False, cameras=("front",))
    assert one.differs(two, Applies.RELOAD) == ["model"]
    assert one.differs(two, Applies.AT_ONCE) == ["lazy"]
    assert one.differs(two, Applies.UNCONFIGURED) == ["cameras"]


@pytest.mark.parametrize("name", FIELDS)
def test_descriptors(name):
    descriptor = describe(FIELDS[name])
    assert descriptor.name == name
    assert len(descriptor.description) > 30 and descriptor.additional_constraints
    assert descriptor.read_only == (name == "autostart")
    for limits in (*descriptor.floating_point_range, *descriptor.integer_range):
        assert limits.from_value <= FIELDS[name].default <= limits.to_value


@pytest.mark.parametrize("name", FIELDS)
def test_ros_knows_the_type_of_each_default(name):
    default = FIELDS[name].default
    value = Parameter(name, value=list(default) if isinstance(default, tuple) else default)
    assert value.get_parameter_value().type in {
        ParameterType.PARAMETER_BOOL,
        ParameterType.PARAMETER_INTEGER,
        ParameterType.PARAMETER_DOUBLE,
        ParameterType.PARAMETER_STRING,
        ParameterType.PARAMETER_STRING_ARRAY,
    }


def test_tracking_without_scipy_is_refused(monkeypatch):
    assert Parameters(tracking=True).tracking
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ValueError, match="tracking needs SciPy"):
        Parameters(tracking=True)
    assert not Parameters().tracking
