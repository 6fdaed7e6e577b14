"""PyTorch's compiler, inductor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from panoptic_ros.engines.base import Engine, EngineError, Forward, T
from panoptic_ros.engines.cache import private_directory

INDUCTOR_CACHE = "TORCHINDUCTOR_CACHE_DIR"
MOST_COMPILED = 1024  # forms of one function in a process


class CompiledEngine(Engine):
    """``torch.compile``, for single images; what it made is kept in inductor's cache on disk.

    On CPUs with frozen weights, before the first image. On CUDA for the graph of the whole
    frame, which is made in the background; a call of its own runs the network as it is.
    """

    name = "compiled"
    batches = False  # one image keeps a device busy, and several take as much more memory

    def capturable(self) -> list[tuple[str, Forward]]:
        """Return the compiled network, and the network as it is where compiling fails."""
        if self.source.device.type != "cuda":
            return []
        network = self.source.network
        return [("inductor", _compiled(network)), ("PyTorch's kernels", network)]

    def compiler(self) -> Callable[[Callable[..., T]], Callable[..., T]] | None:
        """Return inductor, for what is one graph."""
        return partial(_compiled, fullgraph=True) if self.source.device.type == "cuda" else None

    def _compile(self, batch: int) -> Forward:
        if self.source.device.type == "cuda":
            return self.source.network
        if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
            raise EngineError("engine compiled needs a C++ compiler on CPUs: install g++")
        compiled = _compiled(self.source.network, options={"freezing": True})
        with torch.inference_mode():
            compiled(self.source.zeros(batch, self.dtype))
        return compiled

    def _run(self, compiled: Forward, batch: Tensor) -> dict[str, Tensor]:
        return compiled(batch)


def _compiled(function: Callable[..., T], **settings: object) -> Callable[..., T]:
    if INDUCTOR_CACHE not in os.environ and (folder := private_directory()):
        os.environ[INDUCTOR_CACHE] = str(folder / "inductor")
    compiled = torch.compile(function, dynamic=False, **settings)

    def run(*arguments: object) -> T:
        _allow_many_sizes()
        return compiled(*arguments)

    return run


def _allow_many_sizes() -> None:
    """Raise dynamo's limits, which it keeps for each thread.

    It counts by code, over all image sizes and models of a process, and stops at eight.
    """
    from torch._dynamo import config  # takes a second

    for name in ("recompile_limit", "cache_size_limit"):  # the latter's name up to torch 2.6
        for limit in (name, f"accumulated_{name}"):
            if hasattr(config, limit):
                setattr(config, limit, max(getattr(config, limit), MOST_COMPILED))
