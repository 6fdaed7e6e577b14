"""What the benchmarks load by name: models, and configurations with fresh weights."""

from __future__ import annotations

from pathlib import Path

import torch

from panoptic_ros.model_zoo import (
    MODEL_FILE,
    ModelConfig,
    ModelError,
    find_model,
    load_config,
    load_model,
)
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.system import share_directory

SEED = 0  # of fresh weights


def load_description(model: str) -> ModelConfig:
    """Read the description of a model, or a configuration of config/networks.

    Raises:
        ModelError: There is neither such a model nor such a configuration.
    """
    try:
        return load_config(find_model(model) / MODEL_FILE)
    except ModelError as error:
        path = _configuration(model)
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise ModelError(f"{error} Configurations, for random weights: {known}.") from error
        return load_config(path)


def load_network(model: str) -> tuple[ModelConfig, PanopticNetwork, bool]:
    """Load a model, or build a configuration of config/networks with fresh weights.

    Returns:
        Description, network, and whether its weights are random.

    Raises:
        ModelError: There is neither such a model nor such a configuration.
    """
    try:
        find_model(model)
    except ModelError:
        config = load_description(model)
        torch.manual_seed(SEED)
        return config, config.build().eval(), True
    return *load_model(model), False


def network_resolution(config: ModelConfig, resolution: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) at which a network is measured.

    It is the given one, unless the network stretches every image to its own (EPSNet).
    """
    return config.input.resolution if config.input.resize == "stretch" else resolution


def _configuration(name: str) -> Path:
    return share_directory() / "config/networks" / f"{name}.yaml"
