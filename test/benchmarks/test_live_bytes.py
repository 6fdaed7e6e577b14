"""Memory of a frame on a GPU, counted without one."""

from __future__ import annotations

import pytest
import torch

from benchmarks.live_bytes import SIZES, Live, needs


def test_what_is_alive_at_once_is_counted():
    with Live() as live:
        first = torch.zeros(1000)
        second = first + 1
        first.add_(1)  # no memory of its own
        assert live.peak == 8000
        del first
        third = second[:10]
        fourth = second.double()
    assert live.peak == 12000
    assert [size for size, _ in live.largest] == [8000, 4000]
    assert len(third) + len(fourth) == 1010


@pytest.mark.parametrize("name", SIZES)
def test_a_frame_needs_less_than_a_gigabyte(name):
    """Half of it is left for libraries and rounding."""
    assert needs(name).total < 600e6
