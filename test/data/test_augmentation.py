from __future__ import annotations

import itertools

import pytest
import torch
from torchvision.ops import masks_to_boxes

from panoptic_ros.data.augmentation import Augmentation, centered, crop, flip, relit, resize
from panoptic_ros.data.synthetic import SyntheticStreets
from panoptic_ros.data.targets import compact_target
from panoptic_ros.truth import PanopticTarget

LAST = 5


@pytest.fixture
def sample():
    """An image whose red is 20 times the slot that is painted there: 12x16, five segments."""
    slots = torch.ones(12, 16, dtype=torch.int64)
    slots[0:3] = 0
    slots[2:6, 3:7] = 2
    slots[4:9, 6:10] = 3
    slots[9:12, 12:16] = 4
    slots[8, 1] = LAST
    target = compact_target(
        slots,
        torch.tensor([8, 5, 5, 6, 5]),
        torch.tensor([False, True, True, True, True]),
        torch.tensor([False, False, False, True, False]),
    )
    image = torch.zeros(3, 12, 16, dtype=torch.uint8)
    image[0] = 20 * target.slots
    return image, target


def check_in_step(image: torch.Tensor, target: PanopticTarget) -> None:
    """Check that boxes, numbers and crowds fit the slot map (and crowds their class)."""
    count = len(target.class_ids)
    assert target.slots.shape == image.shape[1:]
    assert target.slots.unique().tolist() in ([*range(count + 1)], [*range(1, count + 1)])
    masks = target.masks(torch.arange(count))
    if count:
        expected = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
        assert torch.equal(target.boxes, expected)
    assert len(target.is_thing) == len(target.is_crowd) == len(target.boxes) == count


def test_flip_mirrors_all(sample):
    image, target = sample
    flipped, mirrored = flip(image, target)
    check_in_step(flipped, mirrored)
    assert torch.equal(flipped[0], 20 * mirrored.slots)
    x1, y1, x2, y2 = target.boxes.T
    assert torch.equal(mirrored.boxes, torch.stack((16 - x2, y1, 16 - x1, y2), 1))


def test_flip_twice_is_identity(sample):
    image, target = sample
    again, twice = flip(*flip(image, target))
    assert torch.equal(again, image)
    for name, value in vars(target).items():
        assert torch.equal(getattr(twice, name), value), name


def test_crop_drops_what_left_the_image(sample):
    image, target = sample
    cut, truth = crop(image, target, 3, 5, (6, 8))
    check_in_step(cut, truth)
    assert truth.class_ids.tolist() == [8, 5, 5]  # the crowd and the last segment are outside
    assert not truth.is_crowd.any()
    assert truth.boxes[1].tolist() == [0, 0, 2, 3]  # was (3, 2, 7, 6)
    assert torch.equal(cut[0], 20 * truth.slots)  # the first three kept their numbers


def test_crop_beyond_the_image_is_black_and_void(sample):
    image, target = sample
    cut, truth = crop(image, target, 0, 0, (20, 20))
    assert torch.equal(truth.slots[:12, :16], target.slots)
    assert truth.slots[12:].sum() == truth.slots[:, 16:].sum() == 0
    assert cut[:, 12:].sum() == cut[..., 16:].sum() == 0
    assert torch.equal(truth.boxes, target.boxes)


def test_crowd_stays_a_crowd_when_others_vanish(sample):
    image, target = sample
    _, truth = crop(image, target, 8, 11, (4, 5))
    assert truth.class_ids.tolist() == [8, 6]
    assert truth.is_crowd.tolist() == [False, True]
    assert truth.boxes[1].tolist() == [1, 1, 5, 4]


@pytest.mark.parametrize("factor", [2, 3])
def test_enlarging_scales_map_and_boxes_exactly(sample, factor):
    image, target = sample
    large, truth = resize(image, target, (12 * factor, 16 * factor))
    check_in_step(large, truth)
    assert torch.equal(truth.boxes, factor * target.boxes)
    repeated = target.slots.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    assert torch.equal(truth.slots, repeated)


def test_shrinking_keeps_image_and_truth_aligned():
    """A stripe's centre stays in place: the scaled truth is not shifted against the image."""
    slots = torch.ones(40, 100, dtype=torch.int64)
    slots[:, 40:60] = 2
    target = compact_target(
        slots, torch.tensor([1, 2]), torch.tensor([False, True]), torch.tensor([False, False])
    )
    image = ((slots == 2) * 255).to(torch.uint8).expand(3, -1, -1)
    small, truth = resize(image, target, (12, 30))
    columns = torch.arange(30) + 0.5
    by_image = (small[0, 6] * columns).sum() / small[0, 6].sum()
    assert by_image == pytest.approx(15.0, abs=0.05)
    assert truth.boxes[1, 0::2].mean().item() == pytest.approx(15.0, abs=0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (0.5, 2.0), "crop_size": (96, 128), "crop_on_instance": True},
        {"scale": (0.4, 0.6), "crop_size": (96, 128)},
        {"short_sides": (80, 100, 120), "long_side": 180},
        {"short_sides": (90, 130), "square": True, "crop_size": (64, 64)},
        {"scale": (1.0, 2.0), "crop_size": (64, 64), "crop_drops_off_center": True},
    ],
)
def test_whole_recipe_keeps_everything_in_step(settings):
    data = SyntheticStreets(4, (120, 160), seed=5)
    torch.manual_seed(3)
    augmentation = Augmentation(**settings)
    for index in range(8):
        image, target = data[index % 4]
        target.is_crowd[target.instances[:1]] = True
        new_image, new_target = augmentation(image, target)
        check_in_step(new_image, new_target)
        assert type(new_image) is type(new_target.slots) is torch.Tensor
        assert new_image.dtype == torch.uint8
        if "crop_size" in settings:
            assert new_image.shape[1:] == settings["crop_size"]
        assert set(new_target.class_ids.tolist()) <= set(target.class_ids.tolist())
        assert new_target.is_crowd.sum() <= 1


def test_crop_on_instance_contains_the_middle_of_one(sample):
    image, target = sample
    augmentation = Augmentation(crop_size=(3, 3), crop_on_instance=True, photometric=False)
    torch.manual_seed(0)
    for _ in range(40):
        _, truth = augmentation(image, target)
        assert len(truth.instances)


def test_centered_segments_have_the_middle_of_their_box_inside(sample):
    _, target = sample
    # Centres (x, y): (8, 7.5), (5, 4), (8, 6.5), (14, 10.5), (1.5, 8.5); on the edge is outside.
    assert centered(target, 3, 5, (6, 8)).tolist() == [True, False, True, False, False]
    assert centered(target, 8, 1, (4, 13)).tolist() == [False, False, False, False, True]
    assert centered(target, 8, 1, (4, 14)).tolist() == [False, False, False, True, True]


def columns(*entries, width=12):
    """Truth of 4 rows with entries (class, first column, column after the last, thing, crowd)."""
    slots = torch.zeros(4, width, dtype=torch.int64)
    for number, (_, first, last, _, _) in enumerate(entries, start=1):
        slots[:, first:last] = number
    class_ids, _, _, things, crowds = (torch.tensor(field) for field in zip(*entries, strict=True))
    return compact_target(slots, class_ids, things, crowds)


def test_a_crop_drops_what_is_off_center():
    """Of three segments with the centres 1.5, 6 and 10.5, in a window of 6 columns."""
    target = columns((5, 0, 3, True, False), (8, 3, 9, False, False), (6, 9, 12, True, True))
    expected = {
        (5, 5, 5, 0, 0, 0),  # from column 0
        (5, 5, 8, 8, 8, 8),
        (0, 8, 8, 8, 8, 8),
        (8, 8, 8, 8, 8, 8),
        (8, 8, 8, 8, 8, 0),
        (8, 8, 8, 8, 6, 6),  # from column 5; from 6 on only the crowd would be left
    }
    augmentation = Augmentation(
        crop_size=(4, 6), crop_drops_off_center=True, flip=0, photometric=False
    )
    torch.manual_seed(0)
    seen = set()
    for _ in range(100):
        image, truth = augmentation(torch.zeros(3, 4, 12, dtype=torch.uint8), target)
        check_in_step(image, truth)
        seen.add(tuple(truth.semantic()[0].tolist()))
    assert seen == expected


def test_a_crop_of_nothing_but_a_crowd_is_found():
    augmentation = Augmentation(crop_size=(4, 6), crop_drops_off_center=True)
    target = columns((6, 0, 12, True, True))
    _, truth = augmentation(torch.zeros(3, 4, 12, dtype=torch.uint8), target)
    assert truth.slots.shape == (4, 6) and truth.is_crowd.all()


def test_sizes_of_the_recipe():
    target = PanopticTarget(
        torch.zeros(60, 100, dtype=torch.int64), *(torch.zeros(0) for _ in range(4))
    )
    target.class_ids = target.class_ids.long()
    target.is_thing = target.is_crowd = target.is_thing.bool()
    image = torch.zeros(3, 60, 100, dtype=torch.uint8)

    def size(**settings):
        return tuple(Augmentation(**settings)(image, target)[0].shape[1:])

    assert size() == (60, 100)
    assert size(scale=(1.5, 1.5)) == (90, 150)
    assert size(short_sides=(30,)) == (30, 50)
    assert size(short_sides=(90,), long_side=120) == (72, 120)
    assert size(short_sides=(90,), square=True) == (90, 90)
    assert size(crop_size=(80, 40)) == (80, 40)


def test_same_seed_same_result(sample):
    augmentation = Augmentation(scale=(0.5, 2.0), crop_size=(10, 10))
    results = []
    for _ in range(2):
        torch.manual_seed(11)
        results.append(augmentation(*sample))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1].slots, results[1][1].slots)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (2.0, 1.0)}, "scale"),
        ({"flip": 1.5}, "flip"),
        ({"square": True}, "short_sides"),
        ({"crop_on_instance": True}, "crop_size"),
        ({"crop_drops_off_center": True}, "crop_size"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)


# What EPSNet's published code gets wrong


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (0.5, 1.5)},
        {"short_sides": tuple(range(8, 25)), "square": True},  # EPSNet's recipe, smaller
    ],
)
def test_the_random_scale_is_drawn_anew_for_every_image(sample, settings):
    augmentation = Augmentation(**settings, photometric=False)
    torch.manual_seed(0)
    heights = [augmentation(*sample)[0].shape[1] for _ in range(30)]
    assert len(set(heights)) > 8
    assert min(heights) < 12 < max(heights)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_crowds_stay_crowds_wherever_they_are_listed(order):
    """Two things, a crowd and stuff in four columns, listed in any order; a crop drops a thing."""
    columns = [  # category, thing, crowd
        (5, True, False),
        (6, True, True),
        (5, True, False),
        (8, False, False),
    ]
    slots = torch.empty(8, 16, dtype=torch.int64)
    for number, column in enumerate(order, start=1):
        slots[:, 4 * column : 4 * column + 4] = number
    class_ids, is_thing, is_crowd = (
        torch.tensor(field) for field in zip(*(columns[c] for c in order), strict=True)
    )
    target = compact_target(slots, class_ids, is_thing, is_crowd)
    _, truth = crop(torch.zeros(3, 8, 16, dtype=torch.uint8), target, 0, 5, (8, 11))
    assert sorted(truth.class_ids.tolist()) == [5, 6, 8]
    assert truth.class_ids[truth.is_crowd].tolist() == [6]
    assert truth.class_ids[truth.instances].tolist() == [5]
    assert truth.masks(truth.is_crowd.nonzero().flatten())[0, :, :3].all()
    assert truth.semantic()[0].tolist() == [6] * 3 + [5] * 4 + [8] * 4


def test_light_is_a_gamma_and_a_cast_of_colour():
    image = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256).contiguous()
    torch.manual_seed(0)
    changed = relit(image, 0.5)
    assert changed.dtype == torch.uint8 and (changed[:, 0, 0] == 0).all()
    assert (changed[:, :, 1:] >= changed[:, :, :-1]).all()  # nothing darker becomes lighter
    factors = changed[:, 0, 128].float() / changed[:, 0, 128].float().mean()
    assert 0.03 < factors.max() - factors.min() < 0.3
    assert torch.equal(relit(image, 0.0), image)


def test_negative_light_is_refused():
    with pytest.raises(ValueError, match="light is -1"):
        Augmentation(light=-1)
