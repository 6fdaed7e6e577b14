"""The kernels for CUDA against the plain forms, in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import suppression

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def boxes_and_scores(number, seed, spread=60.0, images=2):
    generator = torch.Generator().manual_seed(seed)
    corner = spread * torch.rand(images, number, 2, generator=generator).round(decimals=1)
    size = 10 + 20 * torch.rand(images, number, 2, generator=generator).round(decimals=1)
    scores = torch.rand(images, number, generator=generator).round(decimals=1)  # many ties
    labels = torch.randint(0, 3, (images, number), generator=generator)
    return torch.cat((corner, corner + size), -1), labels, scores


def keep_with_kernels(boxes, labels, scores, threshold):
    arguments = (x.to(DEVICE) for x in (boxes, labels, scores))
    return suppression._keep_on_cuda(*arguments, threshold).cpu()


@pytest.mark.parametrize("number", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_suppression(number, threshold):
    boxes, labels, scores = boxes_and_scores(number, seed=number)
    plain = suppression.keep_greedily(boxes, labels, scores, threshold)
    assert torch.equal(keep_with_kernels(boxes, labels, scores, threshold), plain)
    assert torch.equal(suppression._keep_on_cpu(boxes, labels, scores, threshold), plain)
    assert plain.any() and (number == 1 or not plain.all())


def test_suppression_of_nothing_and_of_all_the_same():
    boxes, labels, scores = boxes_and_scores(40, seed=0)
    nothing = torch.zeros_like(scores)
    assert not keep_with_kernels(boxes, labels, nothing, 0.5).any()
    same = boxes[:, :1].expand(-1, 40, -1)
    one = torch.zeros_like(labels)
    kept = keep_with_kernels(same, one, torch.ones_like(scores), 0.5)
    assert torch.nonzero(kept).tolist() == [[0, 0], [1, 0]]  # of ties the first


def test_the_operation_is_known_to_export():
    from panoptic_ros.ops.suppression_triton import greedy_keep

    boxes, labels, scores = boxes_and_scores(8, seed=1)
    arguments = (boxes.to(DEVICE), labels.to(DEVICE), scores.to(DEVICE) > 0, 0.5)
    torch.library.opcheck(greedy_keep, arguments, test_utils=("test_schema", "test_faketensor"))
