"""The forms for CPUs against the plain ones, on random and on degenerate input."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import agreement, mean_shift, nearest, segments, slots, upsampling
from panoptic_ros.ops.upsampling import Step


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_slots_and_places():
    used = torch.tensor([[True, True, False], [True, False, False]])
    assert slots.slots_in_use(used) == 2
    assert slots.slots_in_use(torch.zeros(2, 3, dtype=torch.bool)) == 0
    assert slots.slots_in_use(used.to("meta")) == 3
    assert slots.places_in_use(used[1]).tolist() == [0]
    assert slots.places_in_use(torch.zeros(4, dtype=torch.bool), at_least=1).tolist() == [0]
    assert slots.places_in_use(used[0].to("meta")).shape == (3,)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (23, 17)])
def test_extents(generator, shape):
    map_ = torch.randint(0, 9, shape, generator=generator).short()
    plain = segments._extent_by_counts(map_, 8)
    for a, b in zip(plain, segments._extent_by_runs(map_, 8), strict=True):
        present = plain[0] > 0
        torch.testing.assert_close(a[present], b[present], check_dtype=False)


@pytest.mark.parametrize("likely", [0.0, 0.3, 1.0])
def test_agreement(generator, likely):
    corner = 40 * torch.rand(6, 2, generator=generator)
    boxes = torch.cat((corner, corner + 5 + 20 * torch.rand(6, 2, generator=generator)), 1)
    labels = torch.randint(0, 3, (6,), generator=generator)
    dense = boxes[torch.randint(0, 6, (2, 12, 16), generator=generator)]
    dense = dense + torch.randn(dense.shape, generator=generator)
    probability = torch.rand(3, 12, 16, generator=generator)
    probability *= (torch.rand(3, 12, 16, generator=generator) < likely).float()
    plain = torch.cat(list(agreement._everywhere(boxes, labels, dense, probability)))
    ours = torch.cat(list(agreement._where_likely(boxes, labels, dense, probability)))
    above = plain > agreement.BELOW_SIGMA
    assert torch.equal(ours > agreement.BELOW_SIGMA, above)
    torch.testing.assert_close(ours[above], plain[above])
    assert above.any() == (likely > 0)


@pytest.mark.parametrize("groups", [[0], [0, 1, 2], [-1]])
def test_mean_shift(generator, groups):
    spread = torch.randn(120, 4, generator=generator) * 0.1
    points = 4 * torch.randint(0, 3, (120, 4), generator=generator).float() + spread
    of_point = torch.tensor(groups)[torch.randint(0, len(groups), (120,), generator=generator)]
    seeds, of_seed = mean_shift._seeds(points, of_point, 32)
    plain = mean_shift._climb_together(seeds.clone(), of_seed, points, of_point, 30)
    ours = mean_shift._climb_by_group(seeds.clone(), of_seed, points, of_point, 30)
    found = of_seed >= 0
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a[found], b[found], rtol=0, atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_first_of_those_near_each_other(generator, share):
    near = (torch.rand(40, 40, generator=generator) < share).triu(1)
    keep = torch.rand(40, generator=generator) < 0.7
    plain = mean_shift._keep_first(near, keep)
    assert torch.equal(mean_shift._keep_first_on_host(near, keep), plain)


@pytest.mark.parametrize("size", [(1, 1), (30, 61)])
@pytest.mark.parametrize("smooth", [True, False])
def test_upsampled_argmax(generator, size, smooth):
    logits = torch.randn(7, 8, 16, generator=generator)
    if smooth:
        logits = torch.nn.functional.avg_pool2d(logits[None], 5, 1, 2)[0]
    step = Step((4.0, 4.0), size)
    plain = upsampling._argmax_everywhere(logits, [step])
    assert torch.equal(upsampling._argmax_between_cells(logits, step), plain)


def test_nearest_centres_where_a_class_has_none(generator):
    features = torch.randn(4, 50, generator=generator)
    centers, groups = torch.randn(3, 4, generator=generator), torch.tensor([0, -1, 0])
    bandwidths = torch.tensor([1.0, 0.5])
    every = torch.arange(50).repeat(2)
    classes = torch.arange(2).repeat_interleave(50)
    plain = nearest._nearest_everywhere(features, bandwidths, centers, groups)
    assert (plain[1] == -1).all()
    wanted = nearest._nearest_wanted(features, bandwidths, centers, groups, (classes, every))
    assert torch.equal(wanted, plain)
