"""Checkpoints that are on the disk either whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from panoptic_ros.system import whole_file


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
