"""Fixtures that several folders of tests use."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest

# All DDS traffic of tests stays on this machine.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

# Small tensors gain nothing from two threads, which wait for each other where cores are few; and
# a process that a test starts computes the same bits only with as many as this one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton reads it when it is imported: without a GPU its kernels run in the interpreter.
if not os.path.exists("/dev/nvidiactl"):
    os.environ["TRITON_INTERPRET"] = "1"

# Tests that import OpenVINO themselves tell its makers nothing, either.
sys.modules.setdefault("openvino_telemetry", None)

# Compiled engines are shared by the tests of a session, and not with the user's.
_ENGINES = tempfile.TemporaryDirectory(prefix="panoptic_ros_engines_")
os.environ["PANOPTIC_ROS_CACHE_DIR"] = _ENGINES.name


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a small FPSNet with random weights: fast, and as real as any other model."""
    import torch

    from panoptic_ros.model_zoo import parse_config, save_model

    torch.manual_seed(0)
    config = parse_config(
        {
            "name": "tiny",
            "network": {
                "name": "fpsnet",
                "backbone": "resnet18_half",
                "fpn_channels": 16,
                "head_channels": 16,
                "head_depth": 1,
                "feature_channels": 16,
                "panoptic_channels": 16,
                "panoptic_depth": 1,
                "num_attention": 8,
            },
            "categories": "camvid",
            "input": {"resolution": [96, 128]},
            "prediction": {"score_threshold": 0.0},
        }
    )
    return save_model(tmp_path_factory.mktemp("models") / "tiny", config, config.build())
