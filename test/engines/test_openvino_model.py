"""Importing OpenVINO tells nobody."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest


def test_telemetry_is_off(tmp_path):
    """Its telemetry begins with a file in ~/intel."""
    if not importlib.metadata.packages_distributions().get("openvino_telemetry"):
        pytest.skip("openvino_telemetry is not installed")
    code = (
        "import sys; from panoptic_ros.engines.openvino_model import import_openvino\n"
        "import_openvino().Core()\n"
        "import openvino.tools.ovc.telemetry_utils as utils\n"
        "assert utils.tm.__name__.endswith('telemetry_stub'), utils.tm\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not (tmp_path / "intel").exists()
