"""The node under load: results stay fresh, memory stays flat."""

from __future__ import annotations

import statistics
import time

from sensor_msgs.msg import Image

from test.ros.peers import image_message, picture, stamp_of


def test_results_stay_fresh_when_images_come_too_fast(start_node, peer):
    """A queue of images would make each result older than the one before it."""
    inference, period, number = 0.2, 0.2 / 3, 60
    start_node(parameters={"model": f"blobs slow={inference}"})
    ages = []
    labels = peer.listen(Image, "labels")
    camera = peer.camera()
    for _ in range(number):
        camera.publish(image_message(picture(), stamp=time.time()))
        end = time.monotonic() + period
        while time.monotonic() < end:
            peer.spin_for(0.01)
            ages += [time.time() - stamp_of(message) for message in labels]
            labels.clear()
    assert len(ages) >= 10
    late = ages[len(ages) // 2 :]
    assert statistics.median(late) < 2.5 * inference  # at most inference + one period, ideally
    assert max(late) < 5 * inference


def test_memory_is_flat_over_a_thousand_frames(start_node, peer):
    node = start_node(parameters={"model": "blobs"})
    labels = peer.listen(Image, "labels")
    camera = peer.camera()
    message = image_message(picture(240, 320))
    done = 0

    def segment(number: int) -> None:
        nonlocal done
        target = done + number
        while done < target:
            labels.clear()
            camera.publish(message)
            peer.spin_until(lambda: labels, "a label image")
            done += len(labels)

    peer.feed(camera, lambda _: message, lambda: labels)
    peer.wait_for_diagnostics(lambda s: s["panoptic: camera"]["reliability"] == "reliable")
    segment(200)
    before = node.resident_kib()
    segment(1000)
    # Keeping the images or the labels would cost 150 to 225 MiB.
    assert node.resident_kib() - before < 20 * 1024
