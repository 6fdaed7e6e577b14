"""Cost of post-processing on the CPU: ``predict`` and the label image, relative to ``forward``.

``python benchmarks/postprocessing.py [NAME ...]`` runs every configuration on one thread, batch
norm folded, in bf16 and channels-last as it is deployed, and prints CPU time (median), which other
processes disturb less than the clock on the wall. Scenes of 0, 20 and 200 instances are planted in
the network's outputs (``panoptic_ros.benchmark.planting``); the scene ``own`` is what the fresh
network itself says of a synthetic street. FPSNet's panoptic head runs within ``predict``; its
convolutions are counted as ``forward``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from panoptic_ros.benchmark.cpu_time import median_cpu_seconds
from panoptic_ros.benchmark.loading import load_network, network_resolution
from panoptic_ros.benchmark.planting import plant
from panoptic_ros.benchmark.scenes import Layout, street_images
from panoptic_ros.benchmark.targets import PAPERS
from panoptic_ros.devices import PRECISIONS
from panoptic_ros.input_format import parse_resolution
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.layers.folding import fold_batch_norm
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import FrameSize, PredictionOptions

INSTANCES = (0, 20, 200)
COLUMNS = ("configuration", "scene", "found", "forward (ms)", "predict", "encode", "ratio")


class PostProcessing:
    """What is measured behind ``forward``, for one image; FPSNet's panoptic head by itself.

    Args:
        network: Any of the five.
        size: Of the image.
        options: Thresholds.
    """

    def __init__(
        self, network: PanopticNetwork, size: FrameSize, options: PredictionOptions
    ) -> None:
        self._network, self._size, self._options = network, size, options
        self._head_seconds = 0.0
        if hasattr(network, "panoptic_head"):
            network.panoptic_head.register_forward_pre_hook(self._head_starts)
            network.panoptic_head.register_forward_hook(self._head_ends)

    def measure(self, raw: dict[str, Tensor], repetitions: int) -> dict[str, Any]:
        """Return CPU times in ms, and how many instances own a pixel of the label image."""

        def predict():
            return self._network.predict(raw, [self._size], self._options)[0]

        def encode():
            return encode_segments(segments, thing_ids, self._options.stuff_area_limit)

        segments, thing_ids = predict(), self._network.thing_ids
        is_seen = encode().table[:, 1] > 0
        self._head_seconds = 0.0
        both = 1e3 * median_cpu_seconds(predict, repetitions)
        head = 1e3 * self._head_seconds / repetitions
        return {
            "found": int((torch.isin(segments.class_ids, thing_ids) & is_seen).sum()),
            "head": head,
            "predict": both - head,
            "encode": 1e3 * median_cpu_seconds(encode, repetitions),
        }

    def _head_starts(self, *_: Any) -> None:
        self._head_seconds -= time.process_time()

    def _head_ends(self, *_: Any) -> None:
        self._head_seconds += time.process_time()


@torch.inference_mode()
def measure(
    name: str, resolution: tuple[int, int], precision: str, repetitions: int, forward: bool
) -> Iterator[dict[str, Any]]:
    """Measure one configuration: a row for each scene."""
    config, network, _ = load_network(name)
    valid, dtype = network_resolution(config, resolution), PRECISIONS[precision]
    network = fold_batch_norm(network.requires_grad_(False))
    network = network.to(dtype, memory_format=torch.channels_last)
    street = torch.from_numpy(street_images(1, resolution)[0])
    padded = network.padded_size(valid)
    images, (size,) = config.input.prepare([street], valid, padded, dtype)
    own = network(images)
    milliseconds = float("nan")
    if forward:
        milliseconds = 1e3 * median_cpu_seconds(lambda: network(images), 3)
    post_processing = PostProcessing(network, size, config.options)
    things = len(network.thing_ids)
    scenes = {count: plant(network, own, Layout.of(count, things, valid)) for count in INSTANCES}
    for scene, raw in {**scenes, "own": own}.items():
        row = {"name": name, "scene": scene, **post_processing.measure(raw, repetitions)}
        row["forward"] = milliseconds + row.pop("head")
        row["ratio"] = (row["predict"] + row["encode"]) / row["forward"]
        yield row


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=PAPERS, help="configurations")
    parser.add_argument("--resolution", type=parse_resolution, default=(512, 1024))
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-forward", action="store_true", help="post-processing alone")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| {' | '.join(COLUMNS)} |\n|---|{'---:|' * (len(COLUMNS) - 1)}")
    rows = []
    for name in options.names:
        for row in measure(
            name,
            options.resolution,
            options.precision,
            options.repetitions,
            forward=not options.no_forward,
        ):
            rows.append(row)
            print(
                "| {name} | {scene} | {found} | {forward:.0f} | {predict:.1f} | {encode:.1f} "
                "| {ratio:.3f} |".format(**row),
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
