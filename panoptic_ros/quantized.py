"""Networks in int8, as files of their model: ``panoptic quantize`` writes them.

They lie in the model's folder, one for each resolution: ``int8/HEIGHTxWIDTH.xml`` and ``.bin`` are
an OpenVINO model with the ranges of the calibration; ``HEIGHTxWIDTH.yaml`` says what it was made
from and holds the checksums of both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from panoptic_ros.engines.base import QuantizedNetwork
from panoptic_ros.model_zoo import ModelConfig, ModelError
from panoptic_ros.system import file_sha256, read_yaml, write_file

FOLDER = "int8"


def read_quantized(config: ModelConfig, resolution: tuple[int, int]) -> QuantizedNetwork:
    """Read the network of a model in int8 and check that it is whole and the model's.

    Raises:
        ModelError: There is none for the resolution, it is damaged, or the model has changed
            since; the message has the command that makes it.
    """
    description = _description_file(config, resolution)
    command = (
        f"panoptic quantize --model {config.folder} --resolution {_name(resolution)} "
        "--images FOLDER"
    )
    try:
        fields = read_yaml(description)
        made_from, checksums = fields["model_sha256"], dict(fields["sha256"])
    except FileNotFoundError:
        others = sorted(path.stem for path in description.parent.glob("*.yaml"))
        raise ModelError(
            f"model {config.name} has no int8 network for {_name(resolution)}, but for "
            f"{', '.join(others) or 'no resolution at all'} ({description} is missing); make it "
            f"with {command}, or use another precision"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read {description}: {error.strerror}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{description} is damaged; make it again with {command}") from error
    if made_from != model_sha256(config):
        raise ModelError(
            f"{description} was made from other weights, network or input format than model "
            f"{config.name} has now; make it again with {command}"
        )
    contents = []
    for suffix in (".xml", ".bin"):
        file = description.with_suffix(suffix)
        content = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(content).hexdigest() != checksums.get(suffix[1:]):
            raise ModelError(f"{file} is missing or damaged; make it again with {command}")
        contents.append(content)
    return QuantizedNetwork(*contents)


def write_quantized(
    config: ModelConfig,
    resolution: tuple[int, int],
    network: QuantizedNetwork,
    facts: Mapping[str, Any],
) -> Path:
    """Write the network of a model in int8 into the model's folder.

    Each file is replaced whole or not at all, the description with the checksums last.

    Args:
        config: The model, read from its folder.
        resolution: (height, width) that the network sees.
        network: What to write.
        facts: What else the description is to say.

    Returns:
        The description.

    Raises:
        ModelError: The folder cannot be written.
    """
    description = _description_file(config, resolution)
    fields = {
        "model": config.name,
        "model_sha256": model_sha256(config),
        "resolution": list(resolution),
        **facts,
        "sha256": {
            "xml": hashlib.sha256(network.graph).hexdigest(),
            "bin": hashlib.sha256(network.weights).hexdigest(),
        },
    }
    make_folder(config)
    write_file(description.with_suffix(".xml"), network.graph)
    write_file(description.with_suffix(".bin"), network.weights)
    write_file(description, yaml.safe_dump(fields, sort_keys=False).encode())
    return description


def make_folder(config: ModelConfig) -> None:
    """Make the folder that ``write_quantized`` writes to; raises ModelError when that fails."""
    folder = _folder(config) / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot make {folder} ({error.strerror}): copy the folder of model {config.name} to "
            "where you may write, and give the path of the copy"
        ) from error


def model_sha256(config: ModelConfig) -> str:
    """Return the hash of what decides what ``forward`` computes and what it is given.

    That is weights, network with settings, and input format, but not thresholds or the card.
    """
    weights = config.sha256 or file_sha256(_folder(config) / config.weights)
    settings = {"name": config.network, **config.settings}
    facts = [weights, settings, {**vars(config.input), "resolution": None}]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _description_file(config: ModelConfig, resolution: tuple[int, int]) -> Path:
    return _folder(config) / FOLDER / f"{_name(resolution)}.yaml"


def _folder(config: ModelConfig) -> Path:
    if config.folder is None:
        raise ModelError(f"precision int8 needs the folder of model {config.name}; it has none")
    return config.folder


def _name(resolution: tuple[int, int]) -> str:
    height, width = resolution
    return f"{height}x{width}"
