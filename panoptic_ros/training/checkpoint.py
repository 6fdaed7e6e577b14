"""Checkpoints that are on the disk either whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that ``path`` always holds a complete one, whatever happens.

    It is written beside ``path`` first, forced to the disk, then renamed onto it.

    Args:
        path: File to write; its folder exists.
        state: Tensors, numbers, strings, None, and dicts and lists of them: what torch.load reads
            with ``weights_only=True``.
    """
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


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


def _sync_folder(folder: Path) -> None:
    """Force the folder's entries to the disk (POSIX; without it a rename may be lost)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
