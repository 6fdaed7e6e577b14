"""Keeps glibc from returning the memory of every large tensor to the system."""

from __future__ import annotations

import ctypes
import platform

# Names in malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4


def keep_freed_memory() -> bool:
    """Let malloc reuse freed memory instead of mapping and clearing new pages for each tensor.

    Training on a CPU spends a fifth to a quarter of its time there otherwise. The process keeps
    its largest size. The node gets the like from its launcher (``environment``): its worker
    thread needs what can only be set before a process starts.

    Returns:
        Whether it was done: it is for glibc only.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _M_MMAP_THRESHOLD: 1 << 30,
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: (1 << 31) - 1,
        _M_TOP_PAD: 1 << 26,
    }
    return all([mallopt(option, value) == 1 for option, value in settings.items()])
