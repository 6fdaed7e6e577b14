"""The argmax of up-sampled logits in one kernel against the plain form."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import upsampling
from panoptic_ros.ops.upsampling import Step

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WHOLE = [Step((4.0, 4.0), (24, 40))]
CUT = [Step((8.0, 8.0), (45, 70))]
ODD = [Step.to((13, 23), (6, 10))]
TWO = [Step((4.0, 4.0), (21, 37)), Step.to((17, 41), (21, 37))]


def logits(channels=7, size=(6, 10)):
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(channels, *size, generator=generator)


def argmax_on_cuda(values, steps, covered=None):
    covered = covered if covered is None else covered.to(DEVICE)
    return upsampling._argmax_on_cuda(values.to(DEVICE), steps, covered).cpu()


@pytest.mark.parametrize("steps", [WHOLE, CUT, ODD, TWO])
@pytest.mark.parametrize("channels", [1, 7])
def test_random_logits(steps, channels):
    values = logits(channels)
    index = argmax_on_cuda(values, steps)
    assert index.dtype == torch.int16
    assert torch.equal(index, upsampling._argmax_everywhere(values, steps))


def test_where_covered_the_first_channel_loses_1():
    values = logits()
    covered = torch.rand(24, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    index = argmax_on_cuda(values, WHOLE, covered)
    assert torch.equal(index, upsampling._argmax_everywhere(values, WHOLE, covered))
    assert not torch.equal(index, argmax_on_cuda(values, WHOLE))


def test_of_equal_ones_the_first_and_any_layout_and_precision():
    same = torch.zeros(5, 6, 10)
    assert not argmax_on_cuda(same, WHOLE).any()
    half = logits().to(torch.bfloat16).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    expected = upsampling._argmax_everywhere(half.float(), CUT)
    assert torch.equal(argmax_on_cuda(half, CUT), expected)


def test_the_operation_is_known_to_export():
    from panoptic_ros.ops.upsampling_triton import upsampled_argmax

    arguments = (logits().to(DEVICE), None, [0.25, 0.25], [24, 40], [24, 40])
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(upsampled_argmax, arguments, test_utils=tests)
