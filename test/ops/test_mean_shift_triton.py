"""The steps of mean shift in one kernel each against the plain form."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import mean_shift

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def clusters(number, groups, seed=0, dimensions=5):
    """Points around some of a grid of centres, and the seeds that mean shift starts from."""
    generator = torch.Generator().manual_seed(seed)
    middle = 3 * torch.randint(-2, 3, (number, dimensions), generator=generator).float()
    points = middle + 0.15 * torch.randn(number, dimensions, generator=generator)
    of_point = torch.tensor(groups)[torch.randint(0, len(groups), (number,), generator=generator)]
    return points, of_point, *mean_shift._seeds(points, of_point, 20)


def assert_as_plain(points, groups, seeds, of_seed, iterations):
    plain = mean_shift._climb_together(seeds, of_seed, points, groups, iterations)
    on_gpu = (x.to(DEVICE) for x in (seeds, of_seed, points, groups))
    ours = mean_shift._climb_on_cuda(*on_gpu, iterations)
    found = of_seed >= 0
    torch.testing.assert_close(ours[0].cpu()[found], plain[0][found], rtol=0, atol=1e-5)
    assert torch.equal(ours[1].cpu()[found], plain[1][found])
    return ours


@pytest.mark.parametrize("groups", [[0], [0, 1, -1], [-1]])
@pytest.mark.parametrize("iterations", [0, 1, 6])
def test_clusters(groups, iterations):
    centers, _ = assert_as_plain(*clusters(150, groups), iterations)
    assert centers.shape == (20, 5)


def test_centres_that_see_nothing_stay():
    points, groups, seeds, of_seed = clusters(70, [0])
    seeds[3] = 100.0
    centers, count = assert_as_plain(points, groups, seeds, of_seed, 3)
    assert (centers[3] == 100).all() and count[3] == 0


def test_what_has_arrived_is_the_same_after_any_number_of_steps_and_order():
    points, groups, seeds, of_seed = clusters(100, [0, 1])
    few = assert_as_plain(points, groups, seeds, of_seed, 4)
    more = assert_as_plain(points, groups, seeds, of_seed, 9)
    assert torch.equal(few[0], more[0]) and torch.equal(few[1], more[1])


def test_half_precision_points_and_all_of_mean_shift():
    """The public function takes any precision; its centres on CUDA are those of the CPU."""
    points, groups, *_ = clusters(120, [0, 2], seed=4)
    cpu = mean_shift.mean_shift(points.half(), groups, 20, 8)
    seeds = mean_shift._seeds(points.half().float(), groups, 20)
    centers, count = mean_shift._climb_on_cuda(
        *(x.to(DEVICE) for x in (*seeds, points.half().float(), groups)), 8
    )
    of_center = seeds[1].where(count.cpu() >= 1, -1)
    kept = mean_shift._drop_duplicates(centers.cpu(), of_center, count.cpu())
    torch.testing.assert_close(kept[0][kept[1] >= 0], cpu[0][cpu[1] >= 0], rtol=0, atol=1e-3)
    assert sorted(kept[1].tolist()) == sorted(cpu[1].tolist())


def test_the_operation_is_known_to_export():
    from panoptic_ros.ops.mean_shift_triton import climb

    points, groups, seeds, of_seed = (x.to(DEVICE) for x in clusters(20, [0]))
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(climb, (seeds, of_seed, points, groups, 2), test_utils=tests)
