"""Cost of post-processing on the CPU: ``predict`` and the label image, relative to ``forward``.

``python benchmarks/postprocessing.py [NAME ...]`` runs every configuration on one thread, batch
norm folded, in bf16 and channels-last as it is deployed, and prints CPU time (median), which other
processes disturb less than the clock on the wall. What the network says is drawn: scenes with 0,
20 and as many instances as there are slots, boxes of all sizes over each other, classes and
stuff to match, so that instances come out of ``predict`` (their number is printed); and a fresh
network's own outputs for a picture. FPSNet's panoptic head runs within ``predict``; its
convolutions are counted as ``forward``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scenes import Scene
from torch import Tensor, nn

from panoptic_ros.devices import PRECISIONS
from panoptic_ros.input_format import parse_resolution
from panoptic_ros.model_zoo import load_config
from panoptic_ros.networks.base import FrameSize, PanopticNetwork, PredictionOptions
from panoptic_ros.networks.folding import fold_batch_norm
from panoptic_ros.networks.segments import encode_segments

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "config/networks"
NAMES = (
    "fpsnet_cityscapes",
    "dense_detection_cityscapes",
    "panonet_cityscapes",
    "epsnet_coco",
    "panoptic_fcn_cityscapes",
)
OPTIONS = PredictionOptions(score_threshold=0.2, stuff_area_limit=512)


class Clock:
    """CPU time in milliseconds of a network's ``forward``, ``predict`` and encoding."""

    def __init__(self, network: PanopticNetwork, size: FrameSize) -> None:
        self.network, self.size = network, size
        self.head = 0.0
        if hasattr(network, "panoptic_head"):
            network.panoptic_head.register_forward_pre_hook(self._head_starts)
            network.panoptic_head.register_forward_hook(self._head_ends)

    def _head_starts(self, *_: Any) -> None:
        self.head -= time.process_time()

    def _head_ends(self, *_: Any) -> None:
        self.head += time.process_time()

    def forward(self, images: Tensor, repetitions: int) -> float:
        """Return the time of ``forward``."""
        return _median(lambda: self.network(images), repetitions)

    def post_process(self, raw: dict[str, Tensor], repetitions: int) -> dict[str, float]:
        """Return the times of the panoptic head, the rest of ``predict``, and the encoding."""
        (segments,) = self.network.predict(raw, [self.size], OPTIONS)
        self.head = 0.0
        predict = _median(
            lambda: self.network.predict(raw, [self.size], OPTIONS), repetitions, warm_up=False
        )
        head = 1e3 * self.head / repetitions
        ids, limit = self.network.thing_ids, OPTIONS.stuff_area_limit
        encode = _median(lambda: encode_segments(segments, ids, limit), repetitions)
        table = encode_segments(segments, ids, limit).table
        things = torch.isin(segments.class_ids, ids) & (table[:, 1] > 0)
        return {
            "instances": int(things.sum()),
            "head": head,
            "predict": predict - head,
            "encode": encode,
        }


def _median(run: Callable[[], Any], repetitions: int, warm_up: bool = True) -> float:
    if warm_up:
        run()
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


@torch.inference_mode()
def measure(
    name: str, resolution: tuple[int, int], precision: str, repetitions: int, forward: bool
) -> list[dict[str, Any]]:
    """Measure one configuration: a row for each scene."""
    torch.manual_seed(0)
    config = load_config(CONFIGURATIONS / f"{name}.yaml")
    network = fold_batch_norm(config.build().eval().requires_grad_(False))
    network = network.to(PRECISIONS[precision], memory_format=torch.channels_last)
    valid = config.input.resolution if config.input.resize == "stretch" else resolution
    clock = Clock(network, FrameSize(tuple(valid), resolution))
    picture = nn.functional.interpolate(torch.randn(1, 3, 9, 17), tuple(valid), mode="bicubic")
    picture = picture.to(PRECISIONS[precision], memory_format=torch.channels_last)
    own = network(picture)
    milliseconds = clock.forward(picture, 3) if forward else float("nan")
    rows = []
    for scene in (0, 20, 200, "own"):
        raw = own if scene == "own" else Scene(tuple(valid), scene).raw(config, network, own)
        row = {"name": name, "scene": scene, **clock.post_process(raw, repetitions)}
        row["forward"] = milliseconds + row.pop("head")
        row["ratio"] = (row["predict"] + row["encode"]) / row["forward"]
        rows.append(row)
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help="configurations")
    parser.add_argument("--resolution", type=parse_resolution, default=(512, 1024))
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-forward", action="store_true", help="post-processing alone")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| configuration | scene | instances | forward (ms) | predict | encode | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    rows = []
    for name in arguments.names:
        for row in measure(
            name,
            arguments.resolution,
            arguments.precision,
            arguments.repetitions,
            not arguments.no_forward,
        ):
            rows.append(row)
            print(
                "| {name} | {scene} | {instances} | {forward:.0f} | {predict:.1f} | "
                "{encode:.1f} | {ratio:.3f} |".format(**row),
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
