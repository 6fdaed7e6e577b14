"""PanoNet: counts, the loss against loops and hand-made cases, clusters as segments."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.engines.onnx_graph import to_onnx
from panoptic_ros.networks.layers.folding import fold_batch_norm
from panoptic_ros.networks.panonet.network import PanoNet
from panoptic_ros.networks.panonet.training import discriminative_loss
from panoptic_ros.ops.nearest import cluster_scores
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import FrameSize, PanopticTarget, PredictionOptions

OPTIONS = PredictionOptions(score_threshold=0.0)


def small(**settings):
    torch.manual_seed(0)
    return PanoNet([9, 10], [1, 2, 3], width=0.25, max_instances=16, **settings)


def test_parameters():
    with torch.device("meta"):
        network = PanoNet(range(11, 19), range(11))
    assert sum(p.numel() for p in network.parameters()) == 13_412_189


def discriminative_loss_by_loops(points, clusters):
    names = sorted({int(c) for c in clusters if c >= 0})
    members = [points[clusters == c] for c in names]
    means = [m.mean(0) for m in members]
    var = dist = reg = torch.zeros(())
    for mean, member in zip(means, members, strict=True):
        inner = torch.zeros(())
        for x in member:
            inner = inner + torch.relu((mean - x).norm() - 0.25) ** 2
        var = var + inner / len(member) / len(names)
        reg = reg + torch.relu(mean.norm() - 6.0) ** 2 / len(names)
    for a, first in enumerate(means):
        for b, second in enumerate(means):
            if a != b:
                push = torch.relu(2.0 - (first - second).norm()) ** 2
                dist = dist + push / (len(names) * (len(names) - 1))
    return var, dist, reg


@pytest.mark.parametrize("scale", [0.3, 1.0, 6.0])
def test_discriminative_loss_and_its_gradient_equal_loops(scale):
    torch.manual_seed(2)
    points = (scale * torch.randn(60, 12)).requires_grad_()
    clusters = torch.randint(-1, 4, (60,))
    clusters[clusters == 2] = -1  # a cluster without points does not count
    ours = discriminative_loss(points, clusters, torch.zeros(5, dtype=torch.long), 1)
    loops = discriminative_loss_by_loops(points, clusters)
    for a, b in zip(ours, loops, strict=True):
        torch.testing.assert_close(a, b)
    assert any(value > 0 for value in ours)
    (gradient,) = torch.autograd.grad(sum(ours), points)
    (expected,) = torch.autograd.grad(sum(loops), points)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_discriminative_loss_of_images_is_the_mean_of_theirs():
    """Three images of 40 points, the last without a cluster."""
    torch.manual_seed(3)
    points = torch.randn(120, 12)
    clusters = torch.cat(
        (torch.randint(-1, 3, (40,)), torch.randint(3, 5, (40,)), torch.full((40,), -1))
    )
    images = torch.tensor([0, 0, 0, 1, 1])
    ours = discriminative_loss(points, clusters, images, 3)
    alone = [
        discriminative_loss_by_loops(p, c)
        for p, c in zip(points.split(40)[:2], clusters.split(40)[:2], strict=True)
    ]
    for value, first, second in zip(ours, *alone, strict=True):
        torch.testing.assert_close(value, (first + second) / 3)


def test_discriminative_loss_is_zero_within_the_margins():
    points = torch.tensor([[0.0, 0.0], [0.2, 0.0], [3.0, 0.0], [3.2, 0.0]])
    assert (
        sum(discriminative_loss(points, torch.tensor([0, 0, 1, 1]), torch.zeros(2).long(), 1)) == 0
    )


@pytest.mark.parametrize("clusters", [[-1, -1, -1], [0, 0, 0]])
def test_discriminative_loss_without_pairs_has_a_finite_gradient(clusters):
    points = torch.zeros(3, 12, requires_grad=True)
    sum(discriminative_loss(points, torch.tensor(clusters), torch.zeros(1).long(), 1)).backward()
    assert torch.isfinite(points.grad).all()


def test_no_thing_at_all_gives_a_finite_loss():
    network = small()
    target = PanopticTarget(
        slots=torch.ones(64, 64, dtype=torch.long),
        class_ids=torch.tensor([1]),
        is_thing=torch.tensor([False]),
        is_crowd=torch.tensor([False]),
        boxes=torch.tensor([[0.0, 0.0, 64.0, 64.0]]),
    )
    terms = network.loss(torch.rand(2, 3, 64, 64), [target, target])
    assert set(terms) == {"semantic", "var", "dist", "reg"}
    assert all(torch.isfinite(v) for v in terms.values())
    sum(terms.values()).backward()


def scene(centers=((0.0, 0.0), (2.0, 0.0), (0.0, 0.0))):
    """Raw tensors at 1/4: two of class 9 apart in embedding, one of class 10, class 2 around."""
    semantic = torch.full((1, 5, 16, 24), -5.0)
    semantic[:, 3] = 5.0  # things come first: index 3 is stuff class 2
    embedding = torch.zeros(1, 12, 16, 24)
    boxes = ((2, 2, 8, 8, 0), (2, 12, 8, 18, 0), (10, 4, 14, 20, 1))
    for (y1, x1, y2, x2, index), (a, b) in zip(boxes, centers, strict=True):
        semantic[:, :, y1:y2, x1:x2] = -5.0
        semantic[:, index, y1:y2, x1:x2] = 5.0
        embedding[:, 0, y1:y2, x1:x2], embedding[:, 1, y1:y2, x1:x2] = a, b
    return {"semantic": semantic, "embedding": embedding}


def predict(raw, valid=(64, 96), output=(64, 96), **settings):
    return small(**settings).eval().predict(raw, [FrameSize(valid, output)], OPTIONS)[0]


def test_clusters_of_a_class_become_instances():
    segments = predict(scene())
    encoded = encode_segments(segments, torch.tensor([9, 10]))
    labels = encoded.labels.long() & 0xFFFF
    assert labels[20, 20] // 256 == 9 and labels[20, 60] // 256 == 9
    assert labels[20, 20] != labels[20, 60]
    assert labels[48, 40] == 10 * 256 + 1  # same embedding as the first, another class
    assert labels[0, 0] == 2 * 256
    assert (labels != 0).all()  # nothing is void
    assert sorted(set(labels.unique().tolist())) == [512, 2305, 2306, 2561]


def test_embeddings_within_a_bandwidth_are_one_instance():
    segments = predict(scene(((0.0, 0.0), (0.1, 0.0), (0.0, 0.0))))
    assert (segments.class_ids == 9).sum() == 1


def test_output_has_the_size_of_the_image_and_padding_is_left_out():
    segments = predict(scene(), valid=(40, 72), output=(100, 180))
    assert segments.slots.shape == (100, 180)
    assert (segments.class_ids == 10).sum() == 0  # its rows lie below the valid part


def test_batch_equals_images_alone():
    network = small().eval()
    images = torch.rand(3, 3, 64, 96)
    sizes = [
        FrameSize((64, 96), (64, 96)),
        FrameSize((50, 96), (25, 48)),
        FrameSize((64, 80), (64, 80)),
    ]
    with torch.inference_mode():
        raw = network(images)
        together = network.predict(raw, sizes, OPTIONS)
        for index, size in enumerate(sizes):
            alone = network(images[index : index + 1])
            one = {name: value[index : index + 1] for name, value in raw.items()}
            for name, value in alone.items():
                torch.testing.assert_close(value, one[name], rtol=1e-4, atol=1e-4)
            (segments,) = network.predict(one, [size], OPTIONS)
            assert (segments.slots == together[index].slots).all()


def test_coordinates_change_the_instance_branch_only():
    with_maps, without = small(), small(coordinates=False)
    assert with_maps.instance.stem[0][0].in_channels == 5
    assert without.instance.stem[0][0].in_channels == 3
    assert with_maps.semantic.stem[0][0].in_channels == 3


def test_coordinates_stand_beside_every_map_of_a_shared_trunk():
    network = small(backbone="efficientnet_lite0")
    without = small(backbone="efficientnet_lite0", coordinates=False)
    cascade, plain = network.instance, without.instance
    for name in ("reduce", "fuse16.fine", "fuse8.fine", "fuse4.fine"):
        added = [c.get_submodule(name)[0].in_channels for c in (cascade, plain, network.semantic)]
        assert added == [added[1] + 2, added[1], added[1]]
    seen = network.seen(torch.rand(1, 3, 64, 96))
    beside = network.instance_input(seen)
    assert [m.shape[1] for m in beside] == [26, 42, 114, 322]
    assert beside[0][0, -2, 0, 0] == -1 and beside[0][0, -1, 0, -1] == 1


def test_both_branches_train_the_shared_trunk():
    network = small(backbone="efficientnet_lite0")
    target = two_cars()
    terms = network.loss(torch.rand(2, 3, 64, 64), [target] * 2)
    first = network.backbone.stem[0].weight
    for names in (("semantic",), ("var", "dist", "reg")):
        (gradient,) = torch.autograd.grad(
            sum(terms[name] for name in names), first, retain_graph=True
        )
        assert float(gradient.abs().sum()) > 0


@pytest.mark.filterwarnings("ignore")
def test_a_folded_network_on_a_trunk_exports_to_onnx():
    onnxruntime = pytest.importorskip("onnxruntime")
    network = small(backbone="efficientnet_lite0").eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = network(images)
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    graph = to_onnx(folded, [images], list(expected))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    outputs = session.run(list(expected), {"images": images.numpy()})
    for output, value in zip(outputs, expected.values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(output), value, rtol=1e-3, atol=1e-3)


def test_bandwidths_have_to_fit_the_classes():
    small(bandwidth=[0.3, 0.4])
    with pytest.raises(ValueError, match="one per thing class"):
        small(bandwidth=[0.3, 0.4, 0.5])


def two_cars():
    slots = torch.ones(64, 64, dtype=torch.long)
    slots[16:48, 8:28], slots[16:48, 36:56] = 2, 3
    return PanopticTarget(
        slots,
        torch.tensor([1, 9, 9]),
        torch.tensor([False, True, True]),
        torch.tensor([False] * 3),
        torch.tensor([[0.0, 0, 64, 64], [8, 16, 28, 48], [36, 16, 56, 48]]),
    )


@pytest.mark.parametrize("backbone", ["", "efficientnet_lite0"])
def test_learns_two_cars_side_by_side(backbone):
    """A few steps on one image: two things of one class end as two instances."""
    torch.manual_seed(0)
    network = PanoNet([9], [1], width=0.25, max_instances=16, bandwidth=0.8, backbone=backbone)
    target = two_cars()
    slots = target.slots
    image = torch.randn(1, 3, 64, 64) * 0.3
    image[:, :, 16:48, 8:28] += 1
    image[:, :, 16:48, 36:56] += 1
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        sum(network.loss(image.repeat(2, 1, 1, 1), [target] * 2).values()).backward()
        optimiser.step()
    with torch.inference_mode():
        raw = network(image.repeat(2, 1, 1, 1))  # with the statistics it was trained with
        raw = {name: value[:1] for name, value in raw.items()}
        (segments,) = network.predict(raw, [FrameSize((64, 64), (64, 64))], OPTIONS)
    first, second = segments.slots[32, 18], segments.slots[32, 46]
    assert first != second
    for found, truth in ((first, slots == 2), (second, slots == 3)):
        mask = segments.slots == found
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7


def test_score_is_the_mean_probability_of_the_cells():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    groups = torch.tensor([0, 0, 1, 1, -1, 1])
    clusters = torch.tensor([0, 0, 2, 2, 0, -1])
    best = logits.softmax(0).amax(0)
    expected = [float(best[:2].mean()), 0.0, float(best[2:4].mean())]
    assert cluster_scores(logits, groups, clusters, 3).tolist() == pytest.approx(expected)
