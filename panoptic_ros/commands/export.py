"""What ``panoptic export`` does: write a network's ``forward`` for other inference engines."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panoptic_ros import __version__
from panoptic_ros.devices import PRECISIONS
from panoptic_ros.engines.base import EngineError, EngineInput
from panoptic_ros.engines.onnx_graph import INPUT_NAME, to_onnx
from panoptic_ros.input_format import check_resolution, parse_resolution
from panoptic_ros.model_zoo import ModelConfig, load_model
from panoptic_ros.networks.layers.folding import fold_batch_norm
from panoptic_ros.prediction import category_fields
from panoptic_ros.system import write_file


def export_model(
    model: str | Path,
    format: str,
    output: str | Path,
    resolution: str = "",
    batch: int = 1,
    precision: str = "fp32",
) -> Path:
    """Write a model's network in a format, and a .json beside it that describes it.

    The input is the normalised batch that ``forward`` takes, (batch, 3, H, W); H and W are those
    of the resolution, rounded up to multiples of the network's ``size_divisor``. The outputs are
    the dense maps of ``forward``; turning them into segments is ``predict``, and not exported.

    Args:
        model: Name of a model or path of its folder.
        format: A key of ``FORMATS``.
        output: File to write; OpenVINO writes its weights to a .bin beside it.
        resolution: ``HEIGHTxWIDTH``; the model's own if empty.
        batch: Number of images.
        precision: ``fp32``, ``fp16`` or ``bf16``: of the weights, the input and the outputs.

    Returns:
        The file.

    Raises:
        EngineError: A package is missing, or the format cannot hold the network.
        ModelError: The model is missing or damaged.
        OSError: The file cannot be written.
        ValueError: An argument is none of the above.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; expected {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected {', '.join(PRECISIONS)}")
    if batch < 1:
        raise ValueError(f"batch is {batch}; expected 1 or more")
    output = Path(output)
    if output.suffix == ".json" or (format == "openvino" and output.suffix != ".xml"):
        raise ValueError(
            f"output is {output}; OpenVINO's format is a .xml with a .bin beside it, and a .json "
            "is the description of any"
        )
    config, network = load_model(model)
    size = parse_resolution(resolution) or check_resolution(config.input.resolution)
    padded = network.padded_size(size)
    dtype = PRECISIONS[precision]
    network = fold_batch_norm(network.requires_grad_(False)).to(dtype)
    outputs = EngineInput(network, torch.device("cpu"), precision, padded).outputs(batch)
    output.parent.mkdir(parents=True, exist_ok=True)
    images = torch.zeros((batch, 3, *padded), dtype=dtype)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        try:
            FORMATS[format](network, images, outputs, Path(folder) / output.name)
        except ImportError as error:
            raise EngineError(
                f"format {format} needs {error.name}: python3 -m pip install {error.name}"
            ) from error
        _replace(output, Path(folder))
    description = _describe(config, format, precision, size, tuple(images.shape), outputs)
    text = json.dumps(description, indent=2) + "\n"
    write_file(output.with_suffix(".json"), text.encode())
    return output


def _replace(output: Path, folder: Path) -> None:
    """Put the files in a folder in the place of an older export.

    An old description must not stand beside a new network, nor that beside new weights.
    """
    for old in (output.with_suffix(".json"), output):
        old.unlink(missing_ok=True)
    for part in sorted(folder.iterdir(), key=lambda part: part.name == output.name):
        part.replace(output.with_name(part.name))


def _describe(
    config: ModelConfig,
    format: str,
    precision: str,
    resolution: tuple[int, int],
    shape: tuple[int, ...],
    outputs: dict[str, Tensor],
) -> dict[str, Any]:
    return {
        "model": config.name,
        "network": {"name": config.network, **config.settings},
        "weights_sha256": config.sha256,
        "format": format,
        "precision": precision,
        "input": {
            "name": INPUT_NAME,
            "shape": list(shape),
            "resolution": list(resolution),
            **{key: value for key, value in vars(config.input).items() if key != "resolution"},
            "normalisation": "(scale * value - mean) / std per channel, values 0..255; padding 0",
        },
        "outputs": {
            name: {"shape": list(value.shape), "type": str(value.dtype).removeprefix("torch.")}
            for name, value in outputs.items()
        },
        "categories": category_fields(config.categories),
        "versions": {"panoptic_ros": __version__, "torch": torch.__version__},
    }


def _write_onnx(
    network: nn.Module, images: Tensor, outputs: dict[str, Tensor], file: Path
) -> None:
    file.write_bytes(to_onnx(network, [images], list(outputs)).SerializeToString())


def _write_openvino(
    network: nn.Module, images: Tensor, outputs: dict[str, Tensor], file: Path
) -> None:
    from panoptic_ros.engines.openvino_model import import_openvino, to_openvino

    openvino = import_openvino()
    openvino.serialize(to_openvino(to_onnx(network, [images], list(outputs))), str(file))


def _write_tensorrt(
    network: nn.Module, images: Tensor, outputs: dict[str, Tensor], file: Path
) -> None:
    import tensorrt  # noqa: F401  (before the minutes that the graph takes)

    from panoptic_ros.engines.tensorrt_plan import to_tensorrt

    file.write_bytes(to_tensorrt(to_onnx(network, [images], list(outputs))))


def _write_exported_program(
    network: nn.Module, images: Tensor, outputs: dict[str, Tensor], file: Path
) -> None:
    with torch.no_grad():
        program = torch.export.export(network, (images,))
    torch.export.save(program, file)


FORMATS = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "tensorrt": _write_tensorrt,
    "exported-program": _write_exported_program,
}
