"""The processes of a training run: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from panoptic_ros.devices import resolve_device

# The others wait while the first one evaluates.
_TIMEOUT = timedelta(hours=6)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        device: What it computes on.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def process_group(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did; leave them at the end.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Under torchrun, ``auto`` and ``cuda``
            give each process of a machine a GPU of its own.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    resolved = resolve_device(device)
    if world == 1:
        yield Processes(0, 1, resolved)
        return
    if resolved.type == "cuda":
        resolved = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(resolved)
    backend = "nccl" if resolved.type == "cuda" else "gloo"
    if backend == "gloo" and os.environ.get("MASTER_ADDR") in _LOOPBACK:
        # Gloo would take the interface of the host name, where a firewall may drop everything.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        processes = Processes(dist.get_rank(), dist.get_world_size(), resolved)
        yield processes
        processes.wait()  # the first one keeps what they meet by: it must not leave before others
    finally:
        dist.destroy_process_group()
