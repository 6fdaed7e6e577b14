"""The demo as users run it: player, node and recorder in processes of their own, over DDS."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from panoptic_ros.demo.demo import run_demo
from panoptic_ros.demo.processes import DemoError
from panoptic_ros.demo.results import RecordedResults
from panoptic_ros.files.bag import BagError

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("panoptic_ros.msg", reason="the messages are not built")

FRAMES = 12
SIZE = (90, 120)
IMAGE = "sensor_msgs/msg/Image"


def write_drive(path):
    """Write a drive of 10 Hz whose last image has too little data."""
    store = get_typestore(Stores.LATEST)
    rng = np.random.default_rng(0)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/front/image", IMAGE, typestore=store)
        for index in range(FRAMES):
            time_ = index * 10**8
            stamp = store.types["builtin_interfaces/msg/Time"](100 + index, 5)
            header = store.types["std_msgs/msg/Header"](stamp, "front_camera")
            data = rng.integers(0, 255, SIZE[0] * SIZE[1] * 3, np.uint8)
            data = data[:-7] if index == FRAMES - 1 else data
            fields = (header, *SIZE, "bgr8", 0, 3 * SIZE[1], data)
            message = store.serialize_cdr(store.types[IMAGE](*fields), IMAGE)
            writer.write(connection, time_, message)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model):
    """The report and the output folder of one demo."""
    folder = tmp_path_factory.mktemp("demo")
    bag = write_drive(folder / "bag")
    settings = {"device": "cpu", "engine": "eager", "tracking": True}
    report = run_demo(bag, "/front/image", str(tiny_model), output=folder / "out", **settings)
    return report, folder / "out"


def test_every_frame_is_accounted_for(run):
    frames = run[0]["frames"]
    assert frames["sent"] == FRAMES
    assert frames["all_accounted_for"]
    fates = ("published", "dropped", "refused", "failed", "rate_limited", "unheard")
    assert sum(frames[fate] for fate in fates) + frames["lost_in_transport"] == FRAMES
    assert frames["published"] >= 1
    assert frames["failed"] == frames["rate_limited"] == frames["unheard"] == 0
    if not frames["lost_in_transport"]:  # the last frame: nothing can take its place
        assert frames["refused"] == 1


def test_every_result_is_stamped_like_its_frame(run):
    report, output = run
    assert report["stamps"]["verified"]
    assert report["stamps"]["results"] == report["frames"]["recorded"]
    with RecordedResults(output / "labels.mcap") as results:
        results = list(results)
    stamps = [(100 + index) * 10**9 + 5 for index in range(FRAMES - 1)]
    assert {result.stamp for result in results} <= set(stamps)
    assert {result.frame_id for result in results} == {"front_camera"}
    assert {result.prediction.labels.shape for result in results} == {SIZE}


def test_latencies_are_measured_per_frame_and_per_stage(run):
    report = run[0]
    latencies = [row["latency_ms"] for row in report["per_frame"] if row["latency_ms"]]
    assert len(report["per_frame"]) == FRAMES
    assert len(latencies) == report["frames"]["recorded"]
    assert min(latencies) > 0
    end_to_end = report["latency_ms"]["end_to_end"]
    assert min(latencies) <= end_to_end["p50"] + 0.1 <= end_to_end["p95"] + 0.2
    assert {"convert", "forward", "track", "publish"} <= set(report["latency_ms"]["node_stages"])


def test_the_report_says_what_ran(run):
    report, output = run
    assert (report["model"], report["device"], report["resolution"]) == ("tiny", "cpu", "96x128")
    assert report["versions"]["rclpy"] and report["cpu"]
    assert report["node_exit_code"] == 0
    assert report["bag"]["topic"] == "/front/image"
    assert json.loads((output / "report.json").read_text()) == report


def test_the_pictures_can_be_seen(run):
    _, output = run
    video = cv2.VideoCapture(str(output / "overlay.mp4"))
    assert video.read()[1].shape == (*SIZE, 3)
    sheet = cv2.imread(str(output / "contact_sheet.png"))
    assert sheet.shape[1] == 4 * 480 and sheet.std() > 5


def test_a_model_that_cannot_be_loaded_is_explained(tmp_path):
    bag = write_drive(tmp_path / "bag")
    with pytest.raises(DemoError, match="cannot configure: no model 'nothing'"):
        run_demo(bag, None, "nothing", output=tmp_path / "out")


def test_a_wrong_topic_is_explained_before_anything_starts(tmp_path):
    bag = write_drive(tmp_path / "bag")
    with pytest.raises(BagError, match="Image topics: /front/image"):
        run_demo(bag, "/rear/image", "nothing", output=tmp_path / "out")
    assert not (tmp_path / "out" / "logs").exists()


def test_a_demo_that_is_ended_leaves_no_process_behind(tmp_path, tiny_model):
    bag = write_drive(tmp_path / "bag")
    code = f"from panoptic_ros.demo.demo import run_demo; run_demo({str(bag)!r}, None, " + (
        f"{str(tiny_model)!r}, engine='eager', output={str(tmp_path / 'out')!r})"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (children := child_processes(demo.pid)) or len(children) < 3:
        assert time.monotonic() < deadline and demo.poll() is None
        time.sleep(0.1)
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(60) == 128 + signal.SIGTERM
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


def child_processes(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return file.read().split()
    except FileNotFoundError:
        pytest.skip("no /proc here to list children")
