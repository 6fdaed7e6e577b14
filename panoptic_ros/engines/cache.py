"""Compiled engines on disk, so that only the first start of a model is slow.

Every entry is one file, named by a hash of all that the engine depends on: checksum, then data. It
is replaced whole or not at all, so processes can share the folder; it may be deleted at any time.
A compiled engine is code: a folder of another user, or one that others may write to, is not used.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import stat
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from panoptic_ros import __version__
from panoptic_ros.devices import device_name
from panoptic_ros.engines.base import EngineInput, logger
from panoptic_ros.system import write_file

CACHE_VARIABLE = "PANOPTIC_ROS_CACHE_DIR"
CHECKSUM_SIZE = hashlib.sha256().digest_size

T = TypeVar("T")


def cache_directory() -> Path:
    """Return the folder: $PANOPTIC_ROS_CACHE_DIR, or ~/.cache/panoptic_ros/engines."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "panoptic_ros" / "engines"


def cached(key: str, build: Callable[[], tuple[bytes, T]], load: Callable[[bytes], T]) -> T:
    """Return what ``load`` makes of an entry; where there is none or it is damaged, build it.

    Args:
        key: From ``engine_key``.
        build: Makes the entry's data and the result that ``load`` would make of it.
        load: May raise anything for data that it cannot use.
    """
    if data := _read(key):
        try:
            result = load(data)
            logger.info("loaded from %s", _path(key))
            return result
        except Exception as error:
            logger.warning("cannot use %s (%s); building it again", _path(key), error)
    data, result = build()
    _write(key, data)
    return result


def engine_key(engine: str, source: EngineInput, batch: int, packages: Iterable[str]) -> str:
    """Return the hash of all that a compiled engine depends on.

    Args:
        engine: Name of the engine.
        source: Network, device, precision and size.
        batch: Number of images.
        packages: Names of the packages whose versions count, beside torch and torchvision.
    """
    facts = {
        "engine": engine,
        "network": type(source.network).__qualname__,
        "settings": source.settings,
        "weights": _weights_sha256(source.network),
        "shape": [batch, 3, *source.size],
        "precision": source.precision,
        "device": device_name(source.device),
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "torchvision", *packages)
        },
        "package": [__version__, _code_sha256()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _weights_sha256(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    buffers = dict(network.named_buffers())  # those that are not saved count, too
    for name, tensor in sorted({**network.state_dict(), **buffers}.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


@cache
def _code_sha256() -> str:
    """Return the hash of the code that makes graphs, for those who change it."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for folder in ("networks", "ops", "engines"):
        for file in sorted((package / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _path(key: str) -> Path:
    return cache_directory() / f"{key}.engine"


def private_directory() -> Path | None:
    """Return the folder, made for this user alone where there is none.

    None, with a warning, if it cannot be made, belongs to another user, or others may write to it.
    """
    folder = cache_directory()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        logger.warning("cannot write to the cache %s: %s", folder, error.strerror)
        return None
    if status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return folder
    logger.warning(
        "the cache %s is not used: it belongs to another user, or others may write to it "
        "(chmod go-w, or set %s)",
        folder,
        CACHE_VARIABLE,
    )
    return None


def _read(key: str) -> bytes | None:
    if not private_directory():
        return None
    path = _path(key)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("cannot read %s: %s", path, error.strerror)
        return None
    checksum, data = content[:CHECKSUM_SIZE], content[CHECKSUM_SIZE:]
    if hashlib.sha256(data).digest() != checksum:
        logger.warning("%s is damaged; building it again", path)
        return None
    return data


def _write(key: str, data: bytes) -> None:
    """Write an entry; a disk that cannot take it costs the next start time, not this one."""
    if not private_directory():
        return
    path = _path(key)
    try:
        write_file(path, hashlib.sha256(data).digest() + data)
    except OSError as error:
        logger.warning("cannot write %s: %s", path, error.strerror)
