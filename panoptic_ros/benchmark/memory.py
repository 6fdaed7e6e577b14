"""How much memory a model holds, and how much more a call takes at most."""

from __future__ import annotations

import ctypes
import gc
import platform
import re
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def held_memory(device: torch.device) -> int | None:
    """Return the bytes that this process holds now; None where it cannot be told.

    On CUDA that is what torch's allocator reserved from the driver: memory pools of CUDA graphs
    are in it, engines that allocate on their own are not. Elsewhere it is the resident memory
    (Linux) after free blocks were given back, so that what malloc keeps does not count.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(device)
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Return the bytes by which memory rises at most while ``call`` runs; see ``held_memory``.

    None where it cannot be told: not Linux, or a container that forbids to reset the peak.
    """
    before = held_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_reserved(device) - before
    try:
        CLEAR.write_text("5")  # the peak starts anew
    except OSError:
        before = None
    call()
    peak = _status("VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def _status(field: str) -> int | None:
    try:
        status = STATUS.read_text()
    except OSError:
        return None
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE).group(1))
