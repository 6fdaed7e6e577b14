"""Cameras of one node do each other no harm, and each is counted on its own."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image

from panoptic_ros.ros.frame_statistics import CameraStatistics
from test.ros.blobs import BLOB
from test.ros.peers import image_message, picture, pixels, stamp_of

NAMES = ("steady", "fast", "rubbish", "dying")
ENDS = [name for name in CameraStatistics.COUNTERS if name != "received"]


def numbered(number: int) -> Image:
    """An image whose blob stands at a place that depends on its stamp."""
    return image_message(picture(at=number % 30), stamp=100.0 + number)


def rubbish(number: int) -> Image:
    """An image that lacks its last row."""
    message = numbered(number)
    message.data = message.data[: -message.step]
    return message


def check_places(labels: list[Image]) -> None:
    """Check that every result is of the image whose stamp it has, and that none comes twice."""
    stamps = [stamp_of(message) for message in labels]
    assert stamps == sorted(set(stamps))
    for message in labels:
        at = int(stamp_of(message) - 100.0) % 30
        expected = np.zeros((48, 64), bool)
        expected[at : at + 8, at : at + 12] = True
        np.testing.assert_array_equal(pixels(message) == BLOB.id * 256 + 1, expected)


def test_one_that_dies_one_of_rubbish_and_one_at_60_hz_leave_the_others_alone(start_node, peer):
    node = start_node(parameters={"model": "blobs slow=0.1", "cameras": f"[{', '.join(NAMES)}]"})
    labels = {name: peer.listen(Image, f"{name}/labels") for name in NAMES}
    cameras = {name: peer.camera(topic=f"/{name}/image") for name in NAMES}
    sent = dict.fromkeys(NAMES, 0)

    def publish(name: str, make=numbered) -> None:
        cameras[name].publish(make(sent[name]))
        sent[name] += 1

    def sixtieths(count: int) -> None:
        """Let time pass in which the fast camera sends every sixtieth of a second."""
        for _ in range(count):
            publish("fast")
            peer.spin_for(1 / 60)

    def rounds_until(done, alive: bool) -> None:
        for _ in range(200):
            publish("steady")
            publish("rubbish", rubbish)
            if alive:
                publish("dying")
            sixtieths(12)
            if done():
                return
        raise AssertionError(f"{sent} sent; labels: { {n: len(labels[n]) for n in NAMES} }")

    rounds_until(lambda: min(len(labels[n]) for n in ("steady", "fast", "dying")) >= 3, True)
    assert peer.node.destroy_publisher(cameras["dying"])
    before = len(labels["steady"])
    rounds_until(lambda: len(labels["steady"]) >= before + 5, False)

    def all_ended(report) -> bool:
        """Whether what the node has received has ended, and what it published has come."""
        counts = {name: report[f"panoptic: {name}"] for name in NAMES}
        return all(
            sum(int(counts[name][end]) for end in ENDS) == int(counts[name]["received"]) > 0
            and int(counts[name]["published"]) == len(labels[name])
            for name in NAMES
        )

    report = peer.wait_for_diagnostics(all_ended)
    received = {name: int(report[f"panoptic: {name}"]["received"]) for name in NAMES}
    assert all(received[name] <= sent[name] for name in NAMES)
    counts = {name: {end: int(report[f"panoptic: {name}"][end]) for end in ENDS} for name in NAMES}
    assert counts["rubbish"] == {**dict.fromkeys(ENDS, 0), "refused": received["rubbish"]}
    assert report["panoptic: rubbish"]["level"] == DiagnosticStatus.WARN
    assert "refused an image" in report["panoptic: rubbish"]["message"]
    assert report["panoptic: dying"]["publishers"] == "none"
    for name in ("steady", "fast", "dying"):
        others = {end: count for end, count in counts[name].items() if count}
        assert others.keys() <= {"published", "dropped"}, name
        check_places(labels[name])
    assert counts["fast"]["dropped"] > counts["steady"]["dropped"]
    assert not labels["rubbish"]

    # It comes back, and nobody has noticed.
    cameras["dying"] = peer.camera(topic="/dying/image")
    labels["dying"].clear()
    rounds_until(lambda: labels["dying"], True)
    assert "Traceback" not in node.log()
