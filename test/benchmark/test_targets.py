"""What is to be reached, with measurements just on one side of it or the other."""

import pytest

from panoptic_ros.benchmark.parts import format_targets
from panoptic_ros.benchmark.peers import MASK_RCNN
from panoptic_ros.benchmark.targets import cpu_targets, gpu_targets

from .reports import measurement, peer, report


def verdict(lines, words):
    (line,) = [line for line in lines if line.what.startswith(words)]
    return line


def test_nothing_measured_is_neither_reached_nor_missed():
    for lines in (cpu_targets(report()), gpu_targets(report())):
        assert lines and all(line.reached is None for line in lines)
        assert format_targets(lines).count("not measured") == len(lines)


@pytest.mark.parametrize(("predict", "reached"), [(0.0119, True), (0.0121, False)])
def test_overhead(predict, reached):
    lines = cpu_targets(report(measurement(forward=0.1, predict=predict)))  # 100 + predict + 3
    assert verdict(lines, "fpsnet_cityscapes, 512x1024: whole").reached is reached


@pytest.mark.parametrize(("total", "reached"), [(0.370, True), (0.368, False)])
def test_peers(total, reached):
    ours = measurement(forward=0.1, predict=0.02, run="a")  # 123 ms
    other = peer(MASK_RCNN, total=total, run="a")
    quicker = measurement(forward=0.05, run="b")  # in a run without peers
    lines = cpu_targets(report(quicker, ours, peers=[other]))
    words = "fpsnet_cityscapes, 512x1024: times as fast as torchvision"
    assert verdict(lines, words).reached is reached
    unrelated = cpu_targets(report(ours, peers=[peer(MASK_RCNN, run="c")]))
    assert verdict(unrelated, words).reached is None


def test_small_models():
    ours = [
        measurement("quick", (256, 512), forward=0.07, predict=0.01),  # 85 ms
        measurement("slow", (256, 512), forward=0.2),
        measurement("epsnet_small", (264, 512), forward=0.1),  # it cannot take 256 pixels
    ]
    lines = cpu_targets(report(*ours), ["quick", "slow", "epsnet_small"])
    words = "frames/s from messages to messages, without transport, of"
    assert verdict(lines, f"{words} the fastest, quick, 256x512").reached
    assert verdict(lines, f"{words} quick, 256x512").reached
    assert verdict(lines, f"{words} slow, 256x512").reached is False
    assert verdict(lines, f"{words} epsnet_small, 264x512").reached


def test_instances_and_slope():
    sizes = ((256, 512), (512, 1024))
    ours = [measurement(size=s, forward=f) for s, f in zip(sizes, (0.1, 0.9), strict=True)]
    ours += [
        measurement(size=sizes[1], instances=number, predict=seconds)
        for number, seconds in ((0, 0.09), (200, 0.2))
    ]
    lines = gpu_targets(report(*ours))
    words = "fpsnet_cityscapes: dearest"
    assert verdict(lines, words).measured.startswith("1.11 (0: 1.00, 200: 1.11")
    assert verdict(lines, words).reached is False
    assert verdict(lines, "fpsnet_cityscapes: exponent").reached is False


def test_gpu_time_memory_and_cameras():
    full = (1024, 2048)
    one = measurement(size=full, forward=0.004, predict=0.002, memory=(2**30, 2**30))
    four = measurement(size=full, batch=4, forward=0.02, predict=0.01, memory=(2**30, 2**32))
    lines = gpu_targets(report(one, four))
    assert verdict(lines, "fpsnet_cityscapes, 1024x2048: ms").measured == "9.00 (openvino bf16)"
    assert verdict(lines, "fpsnet_cityscapes, 1024x2048: ms").reached  # 9 of 9.5 ms
    assert verdict(lines, "fpsnet_cityscapes, 1024x2048: memory").reached
    assert verdict(lines, "fpsnet_cityscapes: 4 cameras / one, time").reached is True  # 35 / 11
    assert verdict(lines, "fpsnet_cityscapes: 4 cameras / one, memory").reached is False
