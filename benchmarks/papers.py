"""What is asked of each paper's network, and the calls that tell whether it is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.planting import plant
from benchmarks.scenes import Layout
from panoptic_ros.benchmark.measure import load_any
from panoptic_ros.benchmark.pictures import street_images
from panoptic_ros.segmenter import Segmenter

INSTANCES = (0, 50, 200)
CAMERAS = 4

Size = tuple[int, int]
Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Paper:
    """A network as its paper has it.

    Attributes:
        config: Name in config/networks.
        size: (height, width) at which the paper's frame rate was measured.
        frames_per_second: Of the paper.
    """

    config: str
    size: Size
    frames_per_second: float


PAPERS = (
    Paper("fpsnet_cityscapes", (1024, 2048), 8.8),
    Paper("dense_detection_cityscapes", (1024, 2048), 10.1),
    Paper("panonet_cityscapes", (1024, 2048), 20.0),
    Paper("epsnet_coco", (550, 550), 19.6),
    Paper("panoptic_fcn_coco_star", (800, 1344), 9.2),
)


def frame_calls(
    segmenter: Segmenter, size: Size, cameras: int = 1, instances: Sequence[int] = INSTANCES
) -> Calls:
    """Return what is timed of a network, by name.

    ``frame``: images to labels; ``forward``: the engine alone; ``N cameras``: as many images in
    one call; ``N instances``: all behind the forward, in a scene that holds so many.

    Args:
        segmenter: With the network.
        size: (height, width) of the images.
        cameras: Also time so many, if more than 1.
        instances: Of the scenes.
    """
    images = street_images(max(1, cameras), size)
    segmenter.warm_up(size)
    calls: Calls = {"frame": lambda: segmenter(images[0])}
    with torch.inference_mode():
        batch, sizes = segmenter.prepare([torch.from_numpy(images[0]).to(segmenter.device)])
        raw = {name: value.clone() for name, value in segmenter.forward(batch).items()}
        calls["forward"] = lambda: segmenter.forward(batch)
        for count in instances:
            layout = Layout.of(count, len(segmenter.network.thing_ids), sizes[0].valid)
            planted = plant(segmenter.network, raw, layout)
            calls[f"{count} instances"] = lambda p=planted: segmenter.predict(p, sizes)
    if cameras > 1:
        segmenter.warm_up(size, cameras)
        calls[f"{cameras} cameras"] = lambda: segmenter(images)
    return calls


def make_segmenter(config: str, size: Size, device: str, engine: str = "auto") -> Segmenter:
    """Build a network of config/networks with random weights."""
    description, network, _ = load_any(config)
    return Segmenter(description, network, device, "auto", size, engine)
