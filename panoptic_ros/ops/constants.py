"""Small tensors of known values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constant(
    values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return values as a tensor (N,), without a copy from the host, which no graph can hold."""
    if device.type == "cpu":
        return torch.tensor(values, dtype=dtype)
    filled = [torch.full((1,), value, device=device, dtype=dtype) for value in values]
    return torch.cat(filled)


def scalar(
    value: float | Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a number, or a tensor of one, as a 0-dimensional tensor, without such a copy."""
    if isinstance(value, Tensor):
        return value.to(dtype)
    return torch.full((), value, device=device, dtype=dtype)
