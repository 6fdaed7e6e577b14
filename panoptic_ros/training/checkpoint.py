"""Checkpoints that are on the disk either whole or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from panoptic_ros.system import whole_file
from panoptic_ros.training.fields import RecipeError, differences
from panoptic_ros.training.recipe import Recipe

logger = logging.getLogger(__name__)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that ``path`` always holds a complete one, whatever happens.

    Args:
        path: File to write; its folder exists.
        state: Tensors, numbers, strings, None, and dicts and lists of them: what torch.load reads
            with ``weights_only=True``.
    """
    with whole_file(path) as temporary:
        torch.save(dict(state), temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; nothing but plain data is unpickled.

    Raises:
        ValueError: The file is damaged, or holds more than tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is not a file of tensors that can be read: {error}") from error
    return state


def find_checkpoint(path: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the checkpoint to resume from, if there is one; tell what the recipe changed.

    Raises:
        RecipeError: It belongs to another network, or to other stages.
    """
    if not path.exists():
        return None
    try:
        checkpoint = load_checkpoint(path)
    except ValueError as error:
        raise RecipeError(
            f"{error}; delete it or turn resume off to start anew, or choose another folder"
        ) from error
    before, now = json.loads(checkpoint["recipe"]), plain(recipe)
    if _networks(before) != _networks(now):
        raise RecipeError(
            f"{path} belongs to a recipe with another network or other stages; choose "
            "another output folder, or start anew with resume off"
        )
    if changed := sorted(differences(before, now)):
        logger.warning("resuming with changed settings: %s", ", ".join(changed))
    return checkpoint


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as what JSON and YAML can hold."""
    return json.loads(json.dumps(asdict(recipe)))


def _networks(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [stage["model"]["network"] for stage in recipe["stages"]]
