"""What ``panoptic quantize`` does: calibrate a model's network in int8, for engine openvino."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from panoptic_ros import __version__
from panoptic_ros.engines.base import EngineError, EngineInput, QuantizedNetwork
from panoptic_ros.engines.onnx_graph import to_onnx
from panoptic_ros.engines.openvino_model import import_openvino, to_openvino
from panoptic_ros.files.sources import open_source
from panoptic_ros.input_format import check_resolution, parse_resolution
from panoptic_ros.model_zoo import load_model
from panoptic_ros.networks.layers.folding import fold_batch_norm
from panoptic_ros.quantized import make_folder, write_quantized

NEEDS = ("nncf", "openvino", "onnx", "onnxscript")


def quantize_model(
    model: str | Path, images: str | Path, number: int = 200, resolution: str = ""
) -> Path:
    """Write a model's network in int8 into the model's folder, for ``precision`` int8.

    NNCF quantises weights by channel, and what is between the layers by the ranges that camera
    images give; it decides which operations stay in floating point.

    Args:
        model: Name of a model or path of its folder, where the result goes.
        images: Folder of images, video or ROS bag; like those that the model will see. They need
            no truth.
        number: How many of them to take, evenly spaced.
        resolution: ``HEIGHTxWIDTH`` that the network sees; the model's own if empty.

    Returns:
        The description (.yaml) of what was written; see ``panoptic_ros.quantized``.

    Raises:
        EngineError: A package is missing.
        ModelError: The model is missing or damaged, or its folder cannot be written.
        OSError: An image cannot be read.
        ValueError: An argument is none of the above.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(
            f"panoptic quantize needs {' and '.join(missing)}: "
            f"python3 -m pip install {' '.join(missing)}"
        )
    if number < 1:
        raise ValueError(f"number is {number}; expected 1 or more images")
    camera = _CameraImages(Path(images), number)
    config, network = load_model(model)
    make_folder(config)
    size = parse_resolution(resolution) or check_resolution(config.input.resolution)
    padded = network.padded_size(size)

    def prepare(image: np.ndarray) -> np.ndarray:
        tensors = [torch.from_numpy(np.array(image))]
        return config.input.prepare(tensors, size, padded)[0].contiguous().numpy()

    network = fold_batch_norm(network.requires_grad_(False))
    source = EngineInput(network, torch.device("cpu"), "fp32", padded)
    quantized = _quantize(source, camera, prepare)
    facts = {
        "images": camera.number,
        "made_with": {
            "panoptic_ros": __version__,
            **{name: importlib.metadata.version(name) for name in ("nncf", "openvino", "torch")},
        },
    }
    return write_quantized(config, size, quantized, facts)


def _quantize(
    source: EngineInput, camera: _CameraImages, prepare: Callable[[np.ndarray], np.ndarray]
) -> QuantizedNetwork:
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers
    openvino = import_openvino()
    import nncf

    nncf.set_log_level(logging.WARNING)
    batch = torch.zeros((1, 3, *source.size))
    graph = to_onnx(source.portable(), [batch], list(source.outputs(1)))
    dataset = nncf.Dataset(camera, prepare)
    quantized = nncf.quantize(to_openvino(graph), dataset, subset_size=camera.number)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.xml"
        openvino.save_model(quantized, file)
        return QuantizedNetwork(file.read_bytes(), file.with_suffix(".bin").read_bytes())


class _CameraImages:
    """Evenly spaced images of a source, read anew in every walk.

    Args:
        path: Image, folder of images, video or bag.
        number: How many at most.
    """

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        count = open_source(path).count
        self.number = min(number, count)
        self._chosen = set(np.linspace(0, count - 1, self.number).astype(int).tolist())

    def __iter__(self) -> Iterator[np.ndarray]:
        for index, frame in enumerate(open_source(self._path).frames):
            if index not in self._chosen:
                continue
            try:
                yield frame.load()
            except ValueError as error:
                raise ValueError(f"{frame.file_name} ({frame.name}): {error}") from error
