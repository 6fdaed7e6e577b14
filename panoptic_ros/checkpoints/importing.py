"""From a checkpoint of somebody else's code to a model folder.

A format is a module beside its network. It has ``CONFIGURATIONS``, the names of the files in
config/networks that its checkpoints may belong to, and ``convert``, which turns the names of
their tensors into ours. A format may also have ``part``, which returns the part of a network that
its checkpoints hold, ``variants``, which returns the forms of one of these configurations that
they may belong to, and ``adapt``, which changes the configuration to what they expect.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from panoptic_ros.checkpoints import FORMATS
from panoptic_ros.model_zoo import ModelConfig, load_config, save_model
from panoptic_ros.system import share_directory

WRAPPERS = ("model", "state_dict", "model_state_dict")
DEEPEST_WRAPPER = 4
NAMED_IN_ERRORS = 5


class CheckpointError(ValueError):
    """A checkpoint cannot be imported; the message names the file and what does not fit."""


def import_checkpoint(
    format: str, checkpoint: str | Path, output: str | Path, configuration: str = ""
) -> Path:
    """Read a published checkpoint, check every tensor, and write a model folder.

    Args:
        format: One of ``FORMATS``.
        checkpoint: The file of the authors.
        output: Model folder to write; its name becomes the model's.
        configuration: Name of a file in config/networks, or a path, to import into. If not
            given, the one of the format whose shapes are those of the checkpoint.

    Returns:
        The folder.

    Raises:
        CheckpointError: The format is unknown, the file cannot be read, or a tensor is missing,
            unknown or of another shape.
        ModelError: The configuration cannot be read.
    """
    if format not in FORMATS:
        raise CheckpointError(f"unknown format {format!r}; there are {', '.join(FORMATS)}")
    module = import_module(FORMATS[format])
    state = module.convert(read_state_dict(checkpoint))
    config = _fitting_config(module, _candidates(module, configuration), state, checkpoint)
    network = config.build()
    _part(module, network).load_state_dict(state, strict=False)  # checked by _fitting_config
    card = {
        "description": f"{config.name}, imported from {Path(checkpoint).name} ({format})",
        **config.card,
    }
    return save_model(output, replace(config, name=Path(output).name, card=card), network)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file (.safetensors or PyTorch's), however wrapped.

    Nothing but tensors and plain data is unpickled. A state dict may stand in ``model``,
    ``state_dict`` or ``model_state_dict`` beside optimiser state and the like, and its keys may
    have the prefix ``module.`` of DataParallel.

    Raises:
        CheckpointError: The file cannot be read, or holds no state dict.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        _check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except Exception as error:  # torch.load raises many types, by where a file is damaged
        reason = f"{type(error).__name__}: {error}".split(". ")[0].splitlines()[0]
        raise CheckpointError(
            f"cannot read {path}: it is truncated, no PyTorch checkpoint, or holds more than "
            f"tensors and plain data, which is not loaded ({reason})"
        ) from error
    state = _unwrap(content)
    if state is None:
        raise CheckpointError(f"{path} holds no state dict: {_describe(content)}")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _check_stored(path: str | Path) -> None:
    """Raise ValueError if a zip unfolds to more than it is: PyTorch does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > Path(path).stat().st_size:
            raise ValueError(f"its parts unfold to {size} bytes, more than the file has")


def misfits(state: Mapping[str, Tensor], network: nn.Module) -> list[str]:
    """Return what keeps a state dict from being that of a network; empty if it fits.

    ``num_batches_tracked`` of batch norms may be missing or too many: no result depends on it.
    """
    expected = {k: v.shape for k, v in network.state_dict().items() if not _is_counter(k)}
    given = {k: v.shape for k, v in state.items() if not _is_counter(k)}
    wrong_shape = [
        f"{key} is {tuple(given[key])}, expected {tuple(shape)}"
        for key, shape in expected.items()
        if key in given and given[key] != shape
    ]
    unknown = [f"{key} is unknown" for key in given if key not in expected]
    missing = [f"{key} is missing" for key in expected if key not in given]
    return wrong_shape + unknown + missing


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _candidates(module: ModuleType, configuration: str) -> list[ModelConfig]:
    """Return the configuration that the user named, or those that the format tries."""
    if configuration:
        return [load_config(_configuration_path(configuration))]
    configs = [load_config(_configuration_path(name)) for name in module.CONFIGURATIONS]
    if hasattr(module, "variants"):
        return [variant for config in configs for variant in module.variants(config)]
    return configs


def _fitting_config(
    module: ModuleType, configs: list[ModelConfig], state: Mapping[str, Tensor], path: str | Path
) -> ModelConfig:
    """Return the first configuration that the tensors fit, or tell why the nearest does not."""
    nearest: tuple[str, list[str]] | None = None
    for config in configs:
        if hasattr(module, "adapt"):
            config = module.adapt(config)
        with torch.device("meta"):
            found = misfits(state, _part(module, config.build()))
        if not found:
            return config
        if nearest is None or len(found) < len(nearest[1]):
            nearest = (config.name, found)
    name, found = nearest
    more = f" and {len(found) - NAMED_IN_ERRORS} more" if len(found) > NAMED_IN_ERRORS else ""
    raise CheckpointError(
        f"{path} does not fit {name}, which is the nearest. With the names turned into ours: "
        f"{'; '.join(found[:NAMED_IN_ERRORS])}{more}"
    )


def _part(module: ModuleType, network: nn.Module) -> nn.Module:
    return module.part(network) if hasattr(module, "part") else network


def _configuration_path(name: str) -> Path:
    if Path(name).suffix:
        return Path(name)
    return share_directory() / "config" / "networks" / f"{name}.yaml"


def _unwrap(content: Any) -> dict[str, Tensor] | None:
    """Return the state dict in what a file holds, None if there is none."""
    for _ in range(DEEPEST_WRAPPER):
        if not isinstance(content, Mapping):
            return None
        wrapped = [content[w] for w in WRAPPERS if isinstance(content.get(w), Mapping)]
        if not wrapped:
            break
        content = wrapped[0]
    named = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return named or None


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}"
    return f"its first keys are {', '.join(map(str, list(content)[:NAMED_IN_ERRORS])) or 'none'}"
