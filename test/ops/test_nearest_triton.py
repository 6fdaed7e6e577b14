"""Clusters of cells and pixels, and their scores, on CUDA against the plain forms."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import nearest

triton_form = pytest.importorskip("panoptic_ros.ops.nearest_triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def on_gpu(*tensors):
    return [tensor.to(DEVICE) for tensor in tensors]


def embedding(number=150):
    generator = torch.Generator().manual_seed(number)
    features = torch.randn(5, number, generator=generator)
    centers = torch.randn(9, 5, generator=generator)
    groups = torch.tensor([0, 0, 2, 2, 2, -1, 0, 2, -1])
    return features, torch.tensor([0.5, 1.0, 2.0]), centers, groups


@pytest.mark.parametrize("number", [1, 64, 150])
def test_nearest_centres(number):
    arguments = embedding(number)
    plain = nearest._nearest_everywhere(*arguments)
    ours = triton_form.nearest_of_class(*on_gpu(*arguments))
    assert torch.equal(ours.cpu(), plain)
    assert (plain[1] == -1).all() and (plain[0] >= 0).all()


def test_nearest_centres_of_half_precision_in_another_layout():
    features, *others = embedding()
    half = features.T.contiguous().to(torch.bfloat16).T
    plain = nearest._nearest_everywhere(half.float(), *others)
    assert torch.equal(triton_form.nearest_of_class(*on_gpu(half, *others)).cpu(), plain)


def test_slots_of_pixels():
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(0, 5, (8, 20), generator=generator).short()
    pixels = torch.randint(0, 5, (29, 78), generator=generator).short()
    classes = nearest.Classes.of(pixels, cells, 4)
    of_class = torch.randint(-1, 9, (3, 160), generator=generator)
    of_cluster = torch.tensor([1, 0, 3, 4, 5, 0, 7, 8, 9])
    ours = triton_form.paint_clusters(*on_gpu(pixels, of_class, of_cluster), 4)
    assert torch.equal(ours.cpu(), nearest.paint_clusters(classes, of_class, of_cluster).int())


@pytest.mark.parametrize("number", [1, 9, 100])
def test_scores(number):
    generator = torch.Generator().manual_seed(number)
    logits = 3 * torch.randn(7, 200, generator=generator)
    groups = torch.randint(-1, 3, (200,), generator=generator)
    clusters = torch.randint(-1, number, (200,), generator=generator)
    plain = nearest._mean_probability(logits, groups, clusters, number)
    ours = triton_form.cluster_scores(*on_gpu(logits, groups, clusters), number)
    torch.testing.assert_close(ours.cpu(), plain)
    assert number < 100 or (plain == 0).any()


def test_the_operations_are_known_to_export():
    features, bandwidths, centers, groups = on_gpu(*embedding())
    logits, of_cell = torch.randn(4, 150, device=DEVICE), torch.zeros(150, device=DEVICE).long()
    pixels = torch.zeros(40, 60, dtype=torch.int16, device=DEVICE)
    calls = (
        (triton_form.nearest_of_class, (features, bandwidths, centers, groups)),
        (triton_form.cluster_scores, (logits, of_cell, of_cell, 9)),
        (triton_form.paint_clusters, (pixels, of_cell[None], of_cell[:9], 4)),
    )
    for operation, arguments in calls:
        tests = ("test_schema", "test_faketensor")
        torch.library.opcheck(operation, arguments, test_utils=tests)
