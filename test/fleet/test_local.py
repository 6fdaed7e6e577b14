"""Workers and whole runs that are killed: nothing is lost, nothing is there twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from panoptic_ros.fleet import local
from panoptic_ros.fleet.command import label_bags
from panoptic_ros.fleet.label import MAX_ATTEMPTS
from panoptic_ros.segmenter import Segmenter
from test.fleet.bags import SECOND, camera_bag, read_labels

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def bags(streets, tmp_path_factory):
    """Two bags of 60 frames."""
    folder = tmp_path_factory.mktemp("bags")
    return [camera_bag(folder / name, streets * 5) for name in ("one", "two")]


def parts(output):
    return list(output.glob(".work/*/[0-9]*/totals.json"))


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def check_output(output, streets, tiny_model):
    """Every frame is there once, in order, with the labels that one process gives it."""
    segmenter = Segmenter.load(tiny_model, "cpu", engine="eager")
    expected = [segmenter(image).labels for image in streets]
    for name in ("one", "two"):
        labels = read_labels(output / name / "labels")
        assert [stamp for stamp, _ in labels] == [SECOND + i * SECOND // 10 for i in range(60)]
        for index, (_, given) in enumerate(labels):
            assert np.array_equal(given, expected[index % len(expected)])
    assert os.listdir(output / ".work") == ["lock"]


def test_a_worker_that_is_killed_loses_and_repeats_nothing(bags, streets, tiny_model, tmp_path):
    output, reports = tmp_path / "out", []
    options = {"model": str(tiny_model), "device": "cpu", "engine": "eager"}

    def run():
        reports.append(label_bags(bags, output, **options, workers=2, span=5))

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: parts(output) or not thread.is_alive())
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, signal.SIGKILL)
    thread.join()
    assert reports[0]["frames"]["labelled"] == reports[0]["frames"]["declared"] == 120
    check_output(output, streets, tiny_model)


def test_a_run_that_is_killed_goes_on(bags, streets, tiny_model, tmp_path, label):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "panoptic_ros.cli", "label", *map(str, bags)]
    command += ["--output", str(output), "--model", str(tiny_model), "--device", "cpu"]
    command += ["--engine", "eager", "--workers", "1", "--span", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(parts(output)) >= 2 or process.poll() is not None)
    with pytest.raises(ValueError, match="another run writes"):
        label(bags, output, span=4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "two").exists()
    assert label(bags, output, span=4)["frames"]["labelled"] == 120
    check_output(output, streets, tiny_model)


class DeadlyPool:
    """Workers that die at some spans, all busy ones at once, until these are given up."""

    exit_code = -9

    def __init__(self, deadly):
        self.busy, self._deaths = [], dict.fromkeys(deadly, 0)

    def give(self, span):
        self.busy.append(span)

    def wait(self):
        spans, self.busy = self.busy, []
        for span in spans:
            if self._deaths.get(span, MAX_ATTEMPTS) < MAX_ATTEMPTS:
                self._deaths[span] += 1
                yield span, None
            else:
                yield span, f"result of {span}"

    def close(self):
        pass


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_spans_that_kill_their_workers_end_no_run(monkeypatch, workers):
    monkeypatch.setattr(local, "_Pool", lambda *_: DeadlyPool(range(8)))
    results = list(local.run_local(list(range(10)), None, workers, ["cpu"]))
    assert sorted(results) == sorted(f"result of {span}" for span in range(10))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_workers_that_always_die_end_it(monkeypatch, workers):
    class Pool(DeadlyPool):
        def wait(self):
            spans, self.busy = self.busy, []
            yield from ((span, None) for span in spans)

    monkeypatch.setattr(local, "_Pool", lambda *_: Pool(()))
    with pytest.raises(RuntimeError, match=rf"exit code -9.*--workers {workers}"):
        list(local.run_local(list(range(10)), None, workers, ["cpu"]))
