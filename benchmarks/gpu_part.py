"""One network on a GPU, in a process of its own: built, then, when it is told to, measured.

Every line of its output is a JSON object with facts; the first says that it is built. It then
waits for a line of input, so that several can be built at once and are measured alone.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.papers import CAMERAS
from benchmarks.planting import plant
from benchmarks.rounds import medians
from benchmarks.scenes import Layout
from panoptic_ros.benchmark.measure import load_any
from panoptic_ros.benchmark.pictures import street_images
from panoptic_ros.ops.segments import EncodedSegments
from panoptic_ros.segmenter import Segmenter

MOST_KERNELS = 8  # that are named
SECONDS = 4  # for one set of timings

Call = Callable[[], object]
logger = logging.getLogger("panoptic_ros.engines")


def say(**facts: Any) -> None:
    """Print facts at once."""
    print(json.dumps(facts), flush=True)


def build(model: str, size: tuple[int, int] | None, device: str) -> Segmenter:
    """Load a network and compile its forward; nothing is timed on the device here."""
    start = time.monotonic()
    description, network, _ = load_any(model)
    engine = "eager" if device == "cpu" else "compiled"
    segmenter = Segmenter(description, network, device, "auto", size, engine)
    loaded = time.monotonic() - start
    if segmenter.graphs:
        torch.set_float32_matmul_precision("high")  # as the graphs do: it is part of what compiles
        size = segmenter.resolution
        segmenter.segment_eagerly([np.zeros((*size, 3), np.uint8)], [size])
        while segmenter.graphs.ways:
            try:
                segmenter.graphs.compile(size)
                break
            except Exception:  # the next way is then measured, and this one is in the log
                name = segmenter.graphs.ways.pop(0).name
                logger.exception("a frame does not compile with %s", name)
    say(**{"loaded, s": loaded, "compiled, s": time.monotonic() - start - loaded})
    return segmenter


def measure(segmenter: Segmenter, quick: bool) -> None:
    """Print the facts, the most important first."""
    device, size = segmenter.device, segmenter.resolution
    images = street_images(CAMERAS, size)
    start = time.monotonic()
    segmenter.warm_up(size)
    way = next(iter(segmenter.graphs.ways), None) if segmenter.graphs else None
    say(**{"graph with": way and way.name, "captured, s": time.monotonic() - start})
    repeat = 1 if quick else 50

    def times(**calls: Call) -> dict[str, float]:
        found = medians(calls, repeat, device, SECONDS)
        return {name.replace("_", " ") + ", ms": 1e3 * value for name, value in found.items()}

    frame = times(frame=lambda: segmenter(images[0]))
    say(**frame)
    say(**_agreement(segmenter, images))
    with torch.inference_mode():
        memory = _reserved(device)
        say(**{"memory, MB": memory / 1e6, **_memory(segmenter)})
        pixels = torch.from_numpy(images[0]).to(device)
        batch, sizes = segmenter.prepare([pixels])
        forward, predict = segmenter.forward, segmenter.predict
        if way:
            thresholds = segmenter.graphs.thresholds
            forward, predict = way.forward, lambda raw, sizes: way.encode(raw, sizes, thresholds)
        bare = times(forward=captured(lambda: forward(batch), device))
        ratio = frame["frame, ms"] / bare["forward, ms"]
        say(**bare, **{"frame / forward": ratio})
        say(**_profile(lambda: segmenter(images[0]), device))
        raw = {name: value.clone() for name, value in forward(batch).items()}
        split = bare | times(**_other_steps(segmenter, pixels, partial(predict, raw, sizes)))
        say(**{"split": {name: round(ms, 4) for name, ms in split.items()}})
        calls = {}
        for count in (0, 200):
            layout = Layout.of(count, len(segmenter.network.thing_ids), sizes[0].valid)
            planted = plant(segmenter.network, raw, layout)
            planted = {k: torch.empty_like(raw[k]).copy_(v) for k, v in planted.items()}  # strides
            call = captured(lambda p=planted: predict(p, sizes), device)
            calls[f"predict_{count}"] = call
        planted_ms = times(**calls)
    more = planted_ms["predict 200, ms"] - planted_ms["predict 0, ms"]
    say(**planted_ms, **{"200 instances / 0": 1 + more / frame["frame, ms"]})
    del calls, call, planted, raw
    before = _reserved(device)
    segmenter.warm_up(size, CAMERAS)
    cameras = times(cameras=lambda: segmenter(images))["cameras, ms"]
    say(
        **{
            f"{CAMERAS} cameras, ms": cameras,
            f"{CAMERAS} cameras: time of one": cameras / frame["frame, ms"],
            f"{CAMERAS} cameras: memory of one": (memory + _reserved(device) - before)
            / max(1, memory),
        }
    )
    one = [images[0].shape[:2]]
    say(**times(eager_frame=lambda: segmenter.segment_eagerly(images[:1], one)))


def _other_steps(
    segmenter: Segmenter, pixels: Tensor, predict: Callable[[], list[EncodedSegments]]
) -> dict[str, Call]:
    """Return what a frame does beside its forward, one by one: each waits on its own."""
    device = segmenter.device
    image, pinned = pixels.cpu(), torch.empty_like(pixels, device="cpu")
    pinned = pinned.pin_memory() if device.type == "cuda" else pinned
    labels = predict()[0].labels
    host = torch.empty_like(labels, device="cpu", pin_memory=device.type == "cuda")
    return {
        "copy_in": lambda: np.copyto(pinned.numpy(), image.numpy()),
        "upload": captured(lambda: pixels.copy_(pinned, non_blocking=True), device),
        "prepare": captured(lambda: segmenter.prepare([pixels]), device),
        "predict": captured(predict, device),
        "download": captured(lambda: host.copy_(labels, non_blocking=True), device),
        "copy_out": lambda: host.numpy().copy(),
        "whole_frame": lambda: segmenter(image.numpy()),
    }


def _memory(segmenter: Segmenter) -> dict[str, Any]:
    """Return what the network's weights take, and what is reserved and in use, by pool."""
    weights = {t.data_ptr(): t for t in (*segmenter.network.parameters(),)}
    facts: dict[str, Any] = {"weights, MB": sum(t.nbytes for t in weights.values()) / 1e6}
    if segmenter.device.type != "cuda":
        return facts
    pools: dict[str, list[int]] = {}
    for segment in torch.cuda.memory_snapshot():
        name = f"pool {segment['segment_pool_id']} stream {segment['stream']}"
        pool = pools.setdefault(name, [0, 0, 0])
        pool[0] += segment["total_size"] // 2**20
        pool[1] += segment["allocated_size"] // 2**20
        pool[2] = max(pool[2], segment["total_size"] // 2**20)
    return {**facts, "MiB reserved, in use, largest segment": pools}


def captured(call: Call, device: torch.device) -> Call:
    """Return a call as a CUDA graph; on CPUs the call."""
    if device.type != "cuda":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    with torch.cuda.graph(graph, stream=stream):
        outputs = call()

    def replay(_keep: object = outputs) -> None:
        graph.replay()

    return replay


def _agreement(segmenter: Segmenter, images: list[np.ndarray]) -> dict[str, float]:
    """Compare labels of the graph with eager ones."""
    same, found = [], 0
    for image in images[:2]:
        (eager,) = segmenter.segment_eagerly([image], [image.shape[:2]])
        graph = segmenter(image)
        same.append(float((eager.labels == graph.labels).mean()))
        found += len(eager.segments)
    return {"labels as eager": min(same), "segments": found / 2}


def _profile(call: Call, device: torch.device) -> dict[str, Any]:
    """Count the kernels of a frame, name the longest, and find the share of its time at work."""
    if device.type != "cuda":
        return {}
    frames = 5
    call()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        for _ in range(frames):
            call()
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    kernels = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    spent: Counter[str] = Counter()
    calls = Counter(e.name for e in kernels)
    for event in kernels:
        spent[event.name] += event.time_range.elapsed_us()
    return {
        "kernels": len(kernels) / frames,
        "kernels' time, ms": sum(spent.values()) / frames / 1e3,
        "GPU busy": sum(spent.values()) / 1e6 / seconds,
        "longest (us, calls)": {
            name[:70]: [round(us / frames), calls[name] / frames]
            for name, us in spent.most_common(MOST_KERNELS)
        },
    }


def _reserved(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def run(model: str, size: tuple[int, int] | None, device: str, quick: bool) -> None:
    """Build, wait for a line of input, measure."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    logger.setLevel(logging.DEBUG)
    segmenter = build(model, size, device)
    if sys.stdin.readline():
        measure(segmenter, quick)
