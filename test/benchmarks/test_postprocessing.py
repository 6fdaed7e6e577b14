"""The cost of post-processing: that it is measured on scenes which the network sees."""

from __future__ import annotations

import json
import subprocess
import sys

from ..shared_data import REPOSITORY


def test_scenes_are_found(tmp_path):
    script, rows = REPOSITORY / "benchmarks/postprocessing.py", tmp_path / "rows.json"
    command = [sys.executable, str(script), "panonet_cityscapes", "--resolution", "128x256"]
    command += ["--repetitions", "1", "--no-forward", "--json", str(rows)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {row["scene"]: row["found"] for row in json.loads(rows.read_text())}
    assert (found[0], found[20], found[200]) == (0, 20, 128)  # it has 128 slots
    assert len(output.splitlines()) == 2 + len(found)
