"""Peaks, regions and scores of masks on CUDA against the plain forms."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import dynamic_kernels

triton_form = pytest.importorskip("panoptic_ros.ops.dynamic_kernels_triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def maps(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(shape[-1])
    return (2 * torch.randn(shape, generator=generator)).to(dtype)


def channels_last(values):
    return values.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (16, 33)])
@pytest.mark.parametrize("window", [3, 5])
def test_peaks(shape, window):
    centers = maps(2, 3, *shape)
    plain = dynamic_kernels._center_peaks(centers, window)
    ours = triton_form.center_peaks(centers.to(DEVICE), window).cpu()
    assert torch.equal(ours > 0, plain > 0)
    torch.testing.assert_close(ours, plain)
    assert (plain > 0).any()


def test_peaks_that_are_equal_all_count():
    centers = torch.full((1, 1, 5, 5), -9.0)
    centers[0, 0, 2, 2] = centers[0, 0, 2, 3] = 3.0
    plain = dynamic_kernels._center_peaks(centers, 3)
    ours = triton_form.center_peaks(channels_last(centers).to(DEVICE), 3).cpu()
    assert torch.equal(ours > 0.1, plain > 0.1) and (ours > 0.1).sum() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 70])
def test_regions(channels, dtype):
    sizes = ((9, 14), (5, 7), (1, 1))
    regions = [maps(2, 11, *size, dtype=dtype) for size in sizes]
    kernels = [channels_last(maps(2, channels, *size, dtype=dtype)) for size in sizes]
    plain = dynamic_kernels._pool_regions(regions, kernels)
    ours = triton_form.pool_regions(*([x.to(DEVICE) for x in y] for y in (regions, kernels)))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-5)
    assert (plain.cells[2] == 0).any()


@pytest.mark.parametrize("number", [1, 70])
def test_scores_of_masks(number):
    kernels, encoding = maps(2, number, 40) / 3, channels_last(maps(2, 40, 9, 15))
    kernels[:, 0] = 0  # a mask of 0.5 everywhere
    for threshold in (0.4, 0.6):
        plain = dynamic_kernels._mask_scores(kernels, encoding, threshold)
        ours = triton_form.mask_scores(kernels.to(DEVICE), encoding.to(DEVICE), threshold)
        torch.testing.assert_close(ours.cpu(), plain)
        assert plain[0, 0] == (0 if threshold > 0.5 else pytest.approx(0.5))


def test_the_operations_are_known_to_export():
    centers, kernels = maps(1, 4, 6, 7).to(DEVICE), maps(1, 5, 4).to(DEVICE)
    calls = (
        (triton_form.center_peaks, (centers, 3)),
        (triton_form.mask_scores, (kernels, centers, 0.5)),
        (triton_form.pool_regions, ([centers], [centers])),
    )
    for operation, arguments in calls:
        tests = ("test_schema", "test_faketensor")
        torch.library.opcheck(operation, arguments, test_utils=tests)
