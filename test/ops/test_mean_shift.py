"""Mean shift against scikit-learn's on small embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panoptic_ros.ops.mean_shift import _step, mean_shift

sklearn_cluster = pytest.importorskip("sklearn.cluster")


def blobs(seed, clusters, dimensions, spread):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-6, 6, (clusters, dimensions))
    sizes = rng.integers(30, 90, clusters)
    points = [
        c + spread * rng.standard_normal((n, dimensions))
        for c, n in zip(centers, sizes, strict=True)
    ]
    return np.concatenate(points).astype(np.float32)


def labels_of(points, centers, groups):
    return torch.cdist(points, centers[groups >= 0]).argmin(1).numpy()


def same_partition(a, b):
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("clusters", "dimensions", "spread"), [(5, 12, 0.08), (3, 2, 0.15)])
def test_equals_scikit_learn(seed, clusters, dimensions, spread):
    points = blobs(seed, clusters, dimensions, spread)
    theirs = sklearn_cluster.MeanShift(bandwidth=1.0, bin_seeding=True).fit(points)
    ours, groups = mean_shift(
        torch.from_numpy(points), torch.zeros(len(points), dtype=torch.long), iterations=100
    )
    found = ours[groups >= 0].numpy()
    assert len(found) == len(theirs.cluster_centers_)
    distance = np.linalg.norm(found[:, None] - theirs.cluster_centers_[None], axis=2)
    assert distance.min(1).max() < 1e-3
    assert same_partition(labels_of(torch.from_numpy(points), ours, groups), theirs.labels_)


def test_groups_never_meet():
    points = torch.from_numpy(blobs(1, 3, 4, 0.1))
    twice = torch.cat((points, points))
    groups = torch.arange(2).repeat_interleave(len(points))
    centers, center_groups = mean_shift(twice, groups)
    alone, alone_groups = mean_shift(points, torch.zeros(len(points), dtype=torch.long))
    for group in (0, 1):
        own = centers[center_groups == group]
        expected = alone[alone_groups == 0]
        assert len(own) == len(expected)
        assert torch.cdist(own, expected).min(1).values.max() < 1e-4


def test_points_without_a_group_take_no_part():
    points = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    centers, groups = mean_shift(points, torch.tensor([0, 0, 0, 0, -1]), max_centers=4)
    assert sorted(centers[groups >= 0].flatten().tolist()) == pytest.approx([0.05, 5.05])


def test_small_clusters_can_be_left_out():
    points = torch.tensor([[0.0], [0.1], [0.2], [5.0]])
    centers, groups = mean_shift(points, torch.zeros(4).long(), max_centers=4, min_size=2)
    assert centers[groups >= 0].tolist() == [[pytest.approx(0.1)]]


def test_nothing_to_cluster():
    points = torch.rand(6, 12)
    centers, groups = mean_shift(points, torch.full((6,), -1), max_centers=4)
    assert (groups == -1).all()
    centers, groups = mean_shift(points[:0], groups[:0], max_centers=4)
    assert centers.shape == (4, 12) and groups.tolist() == [-1] * 4


def one_by_one(points, groups, seeds=64, iterations=50):
    """Every seed on its own until it stands still, in float64: occupied cells, fullest first."""
    found = []
    for group in groups.unique().tolist():
        own = points[groups == group].double()
        cells, count = own.round().unique(dim=0, return_counts=True)
        for center in cells[count.argsort(descending=True)][:seeds]:
            for _ in range(iterations):
                center = own[(own - center).norm(dim=1) <= 1].mean(0)
            found.append((int(((own - center).norm(dim=1) <= 1).sum()), group, center))
    kept = []
    for _, group, center in sorted(found, key=lambda item: -item[0]):
        if all(group != g or (center - c).norm() >= 1 for g, c in kept):
            kept.append((group, center))
    return kept


@pytest.mark.parametrize("seed", range(3))
def test_seeds_that_arrive_early_or_meet_change_nothing(seed):
    points = torch.from_numpy(blobs(seed, 6, 3, 0.2))
    groups = torch.arange(len(points)) % 2
    centers, found = mean_shift(points, groups, max_centers=64, iterations=50)
    expected = one_by_one(points, groups)
    assert int((found >= 0).sum()) == len(expected) > 6
    for group, center in expected:
        distance = (centers[found == group].double() - center).norm(dim=1)
        assert distance.min() < 1e-3


def test_masked_steps_equal_those_of_each_group():
    """What is computed on CUDA: all groups at once."""
    points = torch.from_numpy(blobs(5, 4, 3, 0.2))
    groups = torch.arange(len(points)) % 3
    centers = points[:9]
    same = groups[:9, None] == groups
    together = _step(centers, points, same)
    for group in range(3):
        own = groups[:9] == group
        alone = _step(centers[own], points[groups == group])
        torch.testing.assert_close(together[own], alone)
