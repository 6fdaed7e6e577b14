"""The kernels for CUDA against the plain forms, in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from panoptic_ros.ops import mean_shift, suppression
from panoptic_ros.ops.deformable import deformable_convolution

from ..shared_data import REPOSITORY

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def boxes_and_scores(number, seed, spread=60.0, images=2):
    generator = torch.Generator().manual_seed(seed)
    corner = spread * torch.rand(images, number, 2, generator=generator).round(decimals=1)
    size = 10 + 20 * torch.rand(images, number, 2, generator=generator).round(decimals=1)
    scores = torch.rand(images, number, generator=generator).round(decimals=1)  # many ties
    labels = torch.randint(0, 3, (images, number), generator=generator)
    return torch.cat((corner, corner + size), -1), labels, scores


def keep_with_kernels(boxes, labels, scores, threshold, most=None):
    arguments = (x.to(DEVICE) for x in (boxes, labels, scores))
    most = scores.shape[1] if most is None else most
    return suppression._keep_on_cuda(*arguments, threshold, most).cpu()


@pytest.mark.parametrize("number", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_suppression(number, threshold):
    boxes, labels, scores = boxes_and_scores(number, seed=number)
    plain = suppression.keep_greedily(boxes, labels, scores, threshold)
    assert torch.equal(keep_with_kernels(boxes, labels, scores, threshold), plain)
    assert torch.equal(suppression._keep_on_cpu(boxes, labels, scores, threshold), plain)
    assert plain.any() and (number == 1 or not plain.all())
    best = scores.masked_fill(~plain, 0).sort(descending=True, stable=True).indices[:, :7]
    some = keep_with_kernels(boxes, labels, scores, threshold, most=7)
    assert torch.equal(some.gather(1, best), plain.gather(1, best)) and not (some & ~plain).any()


def test_suppression_of_nothing_and_of_all_the_same():
    boxes, labels, scores = boxes_and_scores(40, seed=0)
    nothing = torch.zeros_like(scores)
    assert not keep_with_kernels(boxes, labels, nothing, 0.5).any()
    same = boxes[:, :1].expand(-1, 40, -1)
    one = torch.zeros_like(labels)
    kept = keep_with_kernels(same, one, torch.ones_like(scores), 0.5)
    assert torch.nonzero(kept).tolist() == [[0, 0], [1, 0]]  # of ties the first


@pytest.mark.parametrize("number", [1, 32, 70])
def test_first_of_those_near_each_other(number):
    generator = torch.Generator().manual_seed(number)
    near = torch.rand(number, number, generator=generator) < 0.1
    keep = torch.rand(number, generator=generator) < 0.7
    keep[33:64] = False  # nothing in the whole word
    plain = mean_shift._keep_first(near.triu(1), keep)
    assert torch.equal(
        mean_shift._keep_first_on_cuda(near.to(DEVICE), keep.to(DEVICE)).cpu(), plain
    )


@pytest.mark.parametrize("capability", [87, 90])
def test_kernels_compile_for_a_gpu(capability, tmp_path):
    """Orin and Hopper. Nothing is launched, so that neither is needed."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "test.ops.compiling", str(capability)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = {
        name
        for path in (REPOSITORY / "panoptic_ros/ops").glob("*_triton.py")
        for name in re.findall(r"(\w+)\[\(", path.read_text())
    }
    assert len(kernels) > 5 and kernels <= set(done.stdout.split())


# The interpreter takes the bits of bfloat16 for whole numbers when it multiplies matrices.
@pytest.mark.parametrize("dtype", [torch.float16, *[torch.bfloat16][: DEVICE == "cuda"]])
@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "size"),
    [(2, 5, 8, (6, 9)), (1, 66, 24, (9, 8)), (1, 16, 300, (1, 3))],
)
def test_deformable_convolution(dtype, batch, channels, outputs, size):
    from panoptic_ros.ops.deformable_triton import convolve_half

    generator = torch.Generator().manual_seed(channels)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    x, bias = normal(batch, channels, *size), normal(outputs)
    weight = normal(outputs, channels, 3, 3)
    offsets = 2 * normal(batch, 27, *size)
    offsets[:, :6, 0, 0] = torch.tensor([-1e4, 0, 1e4, 0.5, -1, float(size[0])], dtype=dtype)
    for item, constant in ((x, bias), (x.to(memory_format=torch.channels_last), None)):
        wide = None if constant is None else constant.float()
        plain = deformable_convolution(item.float(), offsets.float(), weight.float(), wide)
        given = (item, offsets, weight, constant)
        found = convolve_half(*(v if v is None else v.to(DEVICE) for v in given)).cpu()
        assert found.dtype == dtype
        # The interpolated inputs and the result are rounded.
        rounding = 2 * torch.finfo(dtype).eps * plain.abs().max()
        torch.testing.assert_close(found.float(), plain, rtol=0, atol=float(rounding))


def test_the_operation_is_known_to_export():
    from panoptic_ros.ops.suppression_triton import greedy_keep

    boxes, labels, scores = boxes_and_scores(8, seed=1)
    arguments = (boxes.to(DEVICE), labels.to(DEVICE), scores.to(DEVICE), 0.5, 8)
    torch.library.opcheck(greedy_keep, arguments, test_utils=("test_schema", "test_faketensor"))
