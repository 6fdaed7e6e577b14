#!/usr/bin/env python3
"""Choose a model's thresholds on images that its figures do not come from.

One option after the other is tried at several values, and the best PQ so far kept; every image
goes through the network once. Prints all that was tried, and what to write into model.yaml.

    scripts/choose_thresholds.py --model runs/fpsnet_small/last --annotations panoptic_train.json \
        --images train --only '^0006R0' --write runs/fpsnet_small/last

--try OPTION VALUE... tries these instead of the usual ones; an option of the network, like
PanoNet's bandwidth, is written network.bandwidth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.data.coco_panoptic import CocoPanoptic
from panoptic_ros.evaluation.evaluate import as_segment_table, coco_truth
from panoptic_ros.evaluation.panoptic_quality import PanopticQuality
from panoptic_ros.model_zoo import ModelConfig, load_model, save_model
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.ops.tables import describe_segments
from panoptic_ros.prediction import PanopticPrediction
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.transfer import download
from panoptic_ros.truth import FrameSize, PredictionOptions

NETWORK = "network."
USUAL = {
    "score_threshold": [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    "overlap_threshold": [0.3, 0.4, 0.5, 0.6, 0.7],
    "stuff_area_limit": [0, 64, 256, 512, 1024],
}
Values = Mapping[str, Any]


class Images:
    """What a network says of some images, with their truth.

    Args:
        config: The model.
        network: With its weights.
        data: The images.
        device: As the Segmenter takes it.
    """

    def __init__(
        self, config: ModelConfig, network: PanopticNetwork, data: CocoPanoptic, device: str
    ) -> None:
        self._data, self._truth = data, list(coco_truth(data))
        segmenter = Segmenter(config, network, device, engine="eager")
        self._raw: list[tuple[dict[str, Tensor], list[FrameSize]]] = []
        with torch.inference_mode():
            for item in self._truth:
                pixels = torch.from_numpy(np.ascontiguousarray(item.image)).to(segmenter.device)
                batch, sizes = segmenter.prepare([pixels])
                raw = {k: v.clone() for k, v in segmenter.forward(batch).items()}
                self._raw.append((raw, sizes))

    def quality(self, segmenter: Segmenter) -> dict[str, Any]:
        """Return the metrics of what a segmenter makes of the maps."""
        quality = PanopticQuality(self._data.categories)
        for item, (raw, sizes) in zip(self._truth, self._raw, strict=True):
            prediction = _predict(segmenter, raw, sizes)
            quality.add(item.id_map, item.segments, *as_segment_table(prediction))
        return quality.result()


def _predict(
    segmenter: Segmenter, raw: dict[str, Tensor], sizes: list[FrameSize]
) -> PanopticPrediction:
    (arrays,) = download(segmenter.predict(raw, sizes))
    return describe_segments(*arrays, segmenter.categories, {})


def choose(
    start: Values, tried: Mapping[str, list[Any]], score: Callable[[Values], dict[str, Any]]
) -> dict[str, Any]:
    """Return the best values found by changing one option after the other, or the start's."""

    def pq(values: Values, what: str) -> float:
        metrics = score(values)
        total, things, stuff = (100 * metrics[g]["pq"] for g in ("All", "Things", "Stuff"))
        text = f"PQ {total:.2f}, things {things:.2f}, stuff {stuff:.2f}"
        print(f"{what}: {text}, mIoU {100 * metrics['miou']:.2f}", flush=True)
        return total

    values = dict(start)
    best = pq(values, "as it is")
    for name, candidates in tried.items():
        for trial in [{**values, name: candidate} for candidate in candidates]:
            found = pq(trial, f"{name} {trial[name]}")
            if found > best:
                best, values = found, trial
    return values


def with_values(config: ModelConfig, values: Values) -> ModelConfig:
    """Return a model with other options, of prediction and of the network."""
    settings, options = dict(config.settings), vars(config.options).copy()
    for name, value in values.items():
        if name.startswith(NETWORK):
            settings[name.removeprefix(NETWORK)] = value
        else:
            options[name] = value
    return replace(config, settings=settings, options=PredictionOptions(**options))


def main() -> None:
    """Choose."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO panoptic JSON")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--only", default="", help="regular expression of file names")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--write", type=Path, nargs="*", default=[], metavar="MODEL", help="into these models"
    )
    parser.add_argument(
        "--try", dest="tried", nargs="+", action="append", metavar=("OPTION", "VALUE"), default=[]
    )
    options = parser.parse_args()
    tried = {
        name: [float(v) if "." in v else int(v) for v in values] for name, *values in options.tried
    } or USUAL
    known = [f.name for f in fields(PredictionOptions)]
    if unknown := [n for n in tried if n not in known and not n.startswith(NETWORK)]:
        parser.error(f"--try {unknown[0]}: expected {', '.join(known)} or {NETWORK}OPTION")
    config, network = load_model(options.model)
    weights = network.state_dict()
    data = CocoPanoptic(options.annotations, options.images, only=options.only)
    images = Images(config, load_model(options.model)[1], data, options.device)

    def score(values: Values) -> dict[str, Any]:
        changed = with_values(config, values)
        built = changed.build()
        built.load_state_dict(weights)
        return images.quality(Segmenter(changed, built, options.device, engine="eager"))

    chosen = choose({}, tried, score)
    print("chosen:", ", ".join(f"{name} {value}" for name, value in chosen.items()) or "as it is")
    for folder in options.write:
        config, network = load_model(folder)
        save_model(folder, with_values(config, chosen), network)


if __name__ == "__main__":
    main()
