"""Panoptic FCN: its counts, its prediction against a plain reference, official bugs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from panoptic_ros.model_zoo import load_config
from panoptic_ros.networks.panoptic_fcn.heads import ModulatedDeformConv
from panoptic_ros.networks.panoptic_fcn.kernels import LEVELS
from panoptic_ros.networks.panoptic_fcn.network import PanopticFCN
from panoptic_ros.system import share_directory
from panoptic_ros.truth import FrameSize, PredictionOptions

THINGS, STUFF = [11, 12], [1, 2, 3]
SMALL = {
    "backbone": "resnet18_half",
    "norm": "batch",
    "channels": 64,
    "head_depth": 1,
    "deformable_position": False,
    "encoder_channels": 8,
}


def config(name):
    return load_config(share_directory() / "config" / "networks" / f"panoptic_fcn_{name}.yaml")


def network(**settings) -> PanopticFCN:
    torch.manual_seed(0)
    net = PanopticFCN(THINGS, STUFF, **{**SMALL, **settings}).eval()
    for embedding in (net.thing_embedding, net.stuff_embedding):
        nn.init.normal_(embedding.weight, std=0.3)  # masks of all kinds
    nn.init.constant_(net.thing_embedding.bias[:1], -5.0)  # that do not cover everything
    return net


def random_raw(net, seed, batch=1, size=(64, 96)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(channels, stride):
        cells = (-(-size[0] // stride), -(-size[1] // stride))
        return torch.randn(batch, channels, *cells, generator=generator)

    blobs = draw(net.thing_embedding.out_features, 16)
    raw = {"encoding": F.interpolate(blobs, size=(size[0] // 4, size[1] // 4), mode="bicubic")}
    raw["encoding"][:, 0] = 1
    for i, level in enumerate(LEVELS):
        raw[f"centers_{level}"] = draw(len(THINGS), 8 << i) * 2 - 1
        raw[f"regions_{level}"] = draw(net.regions, 8 << i)
        raw[f"kernels_{level}"] = draw(SMALL["channels"], 8 << i)
    return raw


def test_shapes():
    net = config("small").build().eval()
    raw = net(torch.zeros(2, 3, 64, 96))
    assert raw["encoding"].shape == (2, 32, 16, 24)
    assert (raw["encoding"] >= 0).all()
    for level, size in zip(LEVELS, [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)], strict=True):
        assert raw[f"centers_{level}"].shape == (2, 3, *size)
        assert raw[f"regions_{level}"].shape == (2, 9, *size)
        assert raw[f"kernels_{level}"].shape == (2, 64, *size)


def test_deformable_convolution_without_offsets_is_a_convolution():
    layer = ModulatedDeformConv(4, 6, bias=True)
    nn.init.zeros_(layer.offset_mask.weight)
    nn.init.zeros_(layer.offset_mask.bias)  # modulation: sigmoid(0) = 0.5
    x = torch.randn(2, 4, 5, 7)
    expected = 0.5 * F.conv2d(x, layer.conv.weight, padding=1) + layer.conv.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)


# Prediction


def reference_slots(net, raw, size, options):
    """Predict one image in the plainest way: lists, loops, everything at full size."""
    encoding = raw["encoding"][0]
    things, stuff = [], {}
    for level, window in zip(LEVELS, (3, 3, 3, 5, 5), strict=True):
        scores = raw[f"centers_{level}"][0].sigmoid()
        smooth = (scores + F.avg_pool2d(scores, window, 1, window // 2)) / 2
        weights = raw[f"kernels_{level}"][0]
        _, height, width = smooth.shape
        found = []
        for c in range(len(THINGS)):
            for y in range(height):
                for x in range(width):
                    around = smooth[c, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                    if smooth[c, y, x] == around.max():
                        found.append((float(smooth[c, y, x]), c, weights[:, y, x]))
        found.sort(key=lambda item: -item[0])
        found = found[: min(height * width, net.max_instances // 2)]
        things += [item for item in found if item[0] > net.center_threshold]

        regions = raw[f"regions_{level}"][0].sigmoid()
        winner = regions.argmax(0)
        for c in winner.unique().tolist():
            score = regions[c][winner == c].mean()
            if score > net.region_threshold:
                pooled = weights[:, winner == c].sum(1) / (height * width)
                stuff.setdefault(c, []).append(net.stuff_embedding(pooled))

    things.sort(key=lambda item: -item[0])
    embedded = [net.thing_embedding(w) for *_, w in things]
    groups = {}
    for j, (_, c, _) in enumerate(things):
        equal = [
            i
            for i in range(j)
            if things[i][1] == c
            and F.cosine_similarity(embedded[i], embedded[j], 0) >= net.similarity_threshold
        ]
        if not equal:
            groups[j] = [embedded[j]]
        elif equal[0] in groups:
            groups[equal[0]].append(embedded[j])

    def at_full_size(kernel):
        mask = torch.einsum("c,chw->hw", kernel, encoding).sigmoid()
        mask = F.interpolate(mask[None, None], scale_factor=4, mode="bilinear")
        mask = mask[..., : size.valid[0], : size.valid[1]]
        return F.interpolate(mask, size=size.output, mode="bilinear")[0, 0]

    rescored = []
    for j, members in groups.items():
        kernel = torch.stack(members).mean(0)
        mask = torch.einsum("c,chw->hw", kernel, encoding).sigmoid()
        inside = mask > net.mask_threshold
        score = things[j][0] * float((mask * inside).sum() / (inside.sum() + 1e-6))
        if score >= 0.05:
            rescored.append((score, things[j][1], kernel))
    rescored.sort(key=lambda item: -item[0])
    rescored = rescored[: net.max_instances]

    slots = torch.zeros(size.output, dtype=torch.long)
    classes = []
    for number, (score, c, kernel) in enumerate(rescored, start=1):
        if score < options.score_threshold:
            break
        classes.append(THINGS[c])
        mask = at_full_size(kernel) > net.mask_threshold
        if mask.sum() == 0 or (mask & (slots > 0)).sum() / mask.sum() > options.overlap_threshold:
            continue
        slots[mask & (slots == 0)] = number

    semantic = torch.zeros(net.regions, *size.output)
    for c, members in stuff.items():
        semantic[c] = at_full_size(torch.stack(members).mean(0))
    semantic = semantic.argmax(0)
    stuff_map = torch.zeros(size.output, dtype=torch.long)
    first = 1 if net.merged else 0
    for c in range(first, first + len(STUFF)):
        stuff_map[(semantic == c) & (slots == 0)] = c - first + 1
    return slots, classes, stuff_map


@pytest.mark.parametrize("things_in_stuff", ["merged", "separate"])
@pytest.mark.parametrize("output", [(60, 90), (33, 47), (120, 200)])
@torch.no_grad()
def test_prediction_is_that_of_a_plain_reference(things_in_stuff, output):
    net = network(things_in_stuff=things_in_stuff, similarity_threshold=0.7, max_instances=40)
    options = PredictionOptions(score_threshold=0.3, overlap_threshold=0.4)
    size = FrameSize((60, 90), output)
    seen = []
    for seed in range(3):
        raw = random_raw(net, seed)
        things, classes, stuff = reference_slots(net, raw, size, options)
        (segments,) = net.predict(raw, [size], options)
        number = len(segments.class_ids) - len(STUFF)
        is_thing = (segments.slots > 0) & (segments.slots <= number)
        ours = torch.where(is_thing, segments.slots, 0)
        assert (ours == things).float().mean() > 0.999
        ours = torch.where(is_thing, 0, (segments.slots - number).clamp(min=0))
        assert (ours == stuff).float().mean() > 0.999
        assert segments.class_ids[: len(classes)].tolist() == classes
        assert (segments.class_ids[len(classes) : number] == 0).all()
        assert segments.class_ids[number:].tolist() == STUFF
        seen.append((things.unique().numel(), stuff.unique().numel()))
    assert min(max(numbers) for numbers in zip(*seen, strict=True)) > 2, "too easy"


def test_no_stuff_on_any_level_gives_void():
    """The official code puts an empty list through a convolution there and crashes."""
    net = network(region_threshold=1.0)
    raw = random_raw(net, 0)
    (segments,) = net.predict(raw, [FrameSize((64, 96), (64, 96))], PredictionOptions(0.3))
    number = len(segments.class_ids) - len(STUFF)
    assert (segments.slots <= number).all()
    assert (segments.slots > 0).any()
    assert (segments.scores[number:] == 0).all()


def test_no_thing_on_any_level_leaves_stuff():
    net = network(center_threshold=1.0)
    raw = random_raw(net, 0)
    (segments,) = net.predict(raw, [FrameSize((64, 96), (64, 96))], PredictionOptions(0.0))
    assert (segments.class_ids[: -len(STUFF)] == 0).all()
    assert torch.isin(
        segments.class_ids[segments.slots[segments.slots > 0] - 1], net.stuff_ids
    ).all()


def test_neither_things_nor_stuff_is_void():
    net = network(center_threshold=1.0, region_threshold=1.0)
    (segments,) = net.predict(
        random_raw(net, 0), [FrameSize((64, 96), (30, 40))], PredictionOptions()
    )
    assert segments.slots.shape == (30, 40)
    assert not segments.slots.any()


@torch.no_grad()
def test_every_image_of_a_batch_is_segmented_as_if_alone():
    """The official loop overwrites its lists with those of the first image."""
    net = network()
    images = torch.randn(3, 3, 64, 96)
    raw = net(images)
    for level in LEVELS:  # an untrained network finds nothing
        raw[f"centers_{level}"] = random_raw(net, 3, batch=3)[f"centers_{level}"]
    sizes = [
        FrameSize((64, 96), (64, 96)),
        FrameSize((40, 96), (80, 192)),
        FrameSize((64, 50), (64, 50)),
    ]
    options = PredictionOptions(score_threshold=0.2)
    together = net.predict(raw, sizes, options)
    assert together[0].slots.unique().numel() > 2
    for i, size in enumerate(sizes):
        alone_raw = net(images[i : i + 1])
        for level in LEVELS:
            alone_raw[f"centers_{level}"] = raw[f"centers_{level}"][i : i + 1]
        (alone,) = net.predict(alone_raw, [size], options)
        assert (alone.slots == together[i].slots).float().mean() > 0.999
        assert torch.equal(alone.class_ids, together[i].class_ids)
        torch.testing.assert_close(alone.scores, together[i].scores, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_post_processing_is_float32_whatever_the_network_is_cast_to():
    half = network().bfloat16()
    full = copy.deepcopy(half).float()
    raw = {name: maps.bfloat16() for name, maps in random_raw(half, 0).items()}
    sizes = [FrameSize((64, 96), (64, 96))]
    options = PredictionOptions(score_threshold=0.2)
    (ours,) = half.predict(raw, sizes, options)
    (expected,) = full.predict({name: maps.float() for name, maps in raw.items()}, sizes, options)
    assert ours.scores.dtype == torch.float32
    assert torch.equal(ours.slots, expected.slots)
    assert torch.equal(ours.scores, expected.scores)


@torch.no_grad()
def test_deformable_network_runs_in_bfloat16():
    net = network(deformable_position=True, deformable_encoder=True)
    images = torch.randn(1, 3, 64, 96)
    expected = net(images)
    raw = net.bfloat16()(images.bfloat16())
    for name, maps in raw.items():
        assert maps.dtype == torch.bfloat16
        difference = (maps.float() - expected[name]).norm() / expected[name].norm()
        assert difference < 0.1, name


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="merged or separate"):
        network(things_in_stuff="each")
    with pytest.raises(ValueError, match="has 1 pairs; expected 5"):
        network(scale_ranges=[(1, 64)])
