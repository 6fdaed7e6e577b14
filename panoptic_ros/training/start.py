"""The network that a stage starts with, and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from panoptic_ros.checkpoints import backbones
from panoptic_ros.checkpoints.importing import misfits, read_state_dict
from panoptic_ros.model_zoo import ModelConfig, load_model, parse_config
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.prediction import MAX_CLASS_ID
from panoptic_ros.training.fields import RecipeError
from panoptic_ros.training.recipe import Stage


def model_config(stage: Stage) -> ModelConfig:
    """Return the model that a stage trains; raises RecipeError where its fields do not fit."""
    try:
        return parse_config(stage.model)
    except KeyError as error:
        raise RecipeError(f"stage {stage.name}: model: field {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise RecipeError(f"stage {stage.name}: model: {error}") from error


def start_network(
    config: ModelConfig, stage: Stage, weights: Mapping[str, Tensor] | None
) -> PanopticNetwork:
    """Build the network of a stage and give it the weights it starts from.

    Args:
        config: The model.
        stage: The stage.
        weights: State of the network of the stage before; None in the first.

    Raises:
        RecipeError: A file or a tensor is missing or does not fit; it is named.
    """
    network, start = config.build(), stage.start
    network.class_weights.copy_(_class_weights(config, stage))
    try:
        if start.backbone:
            load_backbone(network, Path(start.backbone))
        if start.model:
            weights = load_model(start.model)[1].state_dict()
        if weights is not None:
            start_from(network, weights, start.copy, start.fresh)
    except (ValueError, OSError) as error:
        raise RecipeError(f"stage {stage.name}: start: {error}") from error
    return network


def _class_weights(config: ModelConfig, stage: Stage) -> Tensor:
    ids = {category.name: category.id for category in config.categories}
    weights = torch.ones(MAX_CLASS_ID + 1)
    for name, weight in stage.class_weights.items():
        if name not in ids or not weight > 0:
            raise RecipeError(
                f"stage {stage.name}: class_weights: {name!r}: {weight}; expected a weight above "
                f"0 of one of {', '.join(ids)}"
            )
        weights[ids[name]] = weight
    return weights


def has_prefix(name: str, prefixes: Sequence[str]) -> bool:
    """Return whether a parameter or module is one of, or below one of, the dotted prefixes."""
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def check_prefixes(network: nn.Module, prefixes: Sequence[str], setting: str) -> None:
    """Raise ValueError when a prefix names nothing in the network."""
    names = [*network.state_dict(), *(name for name, _ in network.named_parameters())]
    for prefix in prefixes:
        if not any(has_prefix(name, [prefix]) for name in names):
            parts = ", ".join(name for name, _ in network.named_children())
            raise ValueError(
                f"{setting}: {prefix!r} names nothing in {type(network).__name__}; "
                f"its parts are {parts}"
            )


def start_from(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    copy: Mapping[str, str] | None = None,
    fresh: Sequence[str] = (),
) -> None:
    """Initialise a network from the weights of an earlier one.

    A convolution that has more input channels than before gets zeros for the new ones, so that
    the function computed stays the same (PanoNet's coordinate channels).

    Args:
        network: Changed in place.
        weights: State of the earlier network.
        copy: Prefixes filled from elsewhere: {prefix in ``network``: prefix in ``weights``}.
        fresh: Prefixes that keep their fresh initial values.

    Raises:
        ValueError: A tensor is missing in ``weights`` or has another shape; it is named.
    """
    check_prefixes(network, [*fresh, *(copy or {})], "start")
    for name, value in network.state_dict().items():
        if has_prefix(name, fresh):
            continue
        source = _source_name(name, copy or {})
        if source not in weights:
            raise ValueError(f"the weights to start from have no {source}; list it under fresh")
        value.copy_(_widened(name, weights[source], value))


def load_backbone(network: nn.Module, path: Path) -> None:
    """Give the trunk of a network the weights of an ImageNet classifier.

    Args:
        network: Changed in place.
        path: State dict of a ResNet as torchvision publishes it, or of an EfficientNet-Lite; its
            classifier is left out.

    Raises:
        ValueError: The file is not a state dict, or not of that trunk.
    """
    trunk = backbones.part(network)
    weights = backbones.convert(read_state_dict(path))
    if found := misfits(weights, trunk):
        raise ValueError(f"{path} does not fit the backbone: {'; '.join(found[:3])}")
    trunk.load_state_dict(weights, strict=False)  # all but counters, which misfits leaves out


def _source_name(name: str, copy: Mapping[str, str]) -> str:
    for prefix, source in copy.items():
        if has_prefix(name, [prefix]):
            return source + name[len(prefix) :]
    return name


def _widened(name: str, old: Tensor, new: Tensor) -> Tensor:
    """Return ``old`` in the shape of ``new``, with zeros for added input channels."""
    if old.shape == new.shape:
        return old
    added = new.shape[1] - old.shape[1] if old.dim() == new.dim() == 4 else -1
    if added < 0 or (old.shape[0], *old.shape[2:]) != (new.shape[0], *new.shape[2:]):
        raise ValueError(
            f"{name} has the shape {tuple(new.shape)}, the weights to start from have "
            f"{tuple(old.shape)}; list it under fresh"
        )
    return nn.functional.pad(old, (0, 0, 0, 0, 0, added))
