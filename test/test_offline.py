"""Nothing is fetched at run time: a model works where every connection fails."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import socket, sys

def refuse(*arguments, **named):
    raise AssertionError(f"a connection was opened: {arguments}")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
import numpy as np
from panoptic_ros.segmenter import Segmenter
segmenter = Segmenter.load("fpsnet_small", device="cpu", engine="eager")
prediction = segmenter(np.zeros((64, 96, 3), np.uint8))
assert prediction.labels.shape == (64, 96)
try:
    socket.create_connection(("localhost", 1))
except AssertionError:
    print("blocked")
"""


def test_a_model_works_without_a_network():
    run = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.strip() == "blocked", run.stderr
