"""Whole batches, against the augmentation of single images, torch's own resizing and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from panoptic_ros.data.augmentation import Augmentation, crop, flip
from panoptic_ros.data.batch_augmentation import SegmentTable, make_targets, paste, see
from panoptic_ros.data.targets import compact_target
from panoptic_ros.data.views import View, check_batched, draw_view

SIZE = (40, 60)
PLAIN = {"colors": np.eye(3), "contrast": 1.0, "gamma": 1.0, "cast": np.ones(3)}


def sample(seed):
    """A noisy image with six segments; the last is a crowd, the fourth has no pixel."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice([0, 1, 2, 3, 5, 6], (8, 12))
    slots = torch.from_numpy(blocks.repeat(5, 0).repeat(5, 1))
    classes, numbers = torch.tensor([1, 1, 2, 2, 2, 2]), torch.arange(6)
    image = torch.from_numpy(rng.integers(0, 256, (3, *SIZE), dtype=np.uint8))
    return image, compact_target(slots, classes, classes > 1, numbers == 5)


def seen(samples, views, size):
    images = torch.stack([image for image, _ in samples])
    slots = torch.stack([target.slots for _, target in samples]).to(torch.int16)
    images, slots = see(images, slots, views, size)
    return images, make_targets(slots, [SegmentTable.of(target) for _, target in samples])


def assert_same(target, expected):
    for name, value in vars(expected).items():
        assert torch.equal(getattr(target, name), value), name
        assert getattr(target, name).dtype == value.dtype, name


@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_are_those_of_single_images(mirrored):
    samples = [sample(0), sample(1), sample(2)]
    corners = [(3, 7), (10, 0), (20, 30)]  # the last reaches beyond the image
    views = [View((*corner, 24, 40), mirrored, **PLAIN) for corner in corners]
    images, targets = seen(samples, views, (24, 40))
    for (image, truth), corner, found, target in zip(
        samples, corners, images, targets, strict=True
    ):
        image, truth = crop(image, truth, *corner, (24, 40))
        if mirrored:
            image, truth = flip(image, truth)
        torch.testing.assert_close(found, image.float(), atol=0.01, rtol=0)
        assert_same(target, truth)


def test_scaling_is_torchs():
    image, truth = sample(3)
    images, (target,) = seen([(image, truth)], [View((0, 0, *SIZE), False, **PLAIN)], (80, 180))
    expected = F.interpolate(image[None].float(), size=(80, 180), mode="bilinear")
    inner = (..., slice(2, -2), slice(2, -2))  # at the edge one fades to black, the other repeats
    torch.testing.assert_close(images[inner], expected[inner], atol=0.05, rtol=0)
    slots = F.interpolate(truth.slots[None, None].float(), size=(80, 180), mode="nearest-exact")
    assert (target.slots == slots[0, 0]).float().mean() > 0.999


def test_colors_are_opencvs():
    image, truth = sample(4)
    levels = image.permute(1, 2, 0).numpy().astype(np.float32)
    gray = cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)
    settings = {**PLAIN, "contrast": 0.5}
    (found,), _ = seen([(image, truth)], [View((0, 0, *SIZE), False, **settings)], SIZE)
    np.testing.assert_allclose(found.permute(1, 2, 0), (levels + gray.mean()) / 2, atol=0.1)
    light = {**PLAIN, "gamma": 2.0, "cast": np.array([1.0, 0.5, 4.0])}
    (found,), _ = seen([(image, truth)], [View((0, 0, *SIZE), False, **light)], SIZE)
    expected = np.minimum((levels / 255) ** 2 * (1, 0.5, 4) * 255, 255)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=0.1)


def test_what_is_drawn():
    settings = Augmentation(scale=(0.5, 2.0), crop_size=(20, 30), light=0.5, crop_on_instance=True)
    boxes = np.array([[40.0, 10, 50, 20]])
    views = [draw_view(np.random.default_rng(i), settings, SIZE, boxes) for i in range(300)]
    scales = np.array([20 / view.window[2] for view in views])
    assert 0.5 <= scales.min() < 0.55 and 1.9 < scales.max() <= 2.05  # whole pixels
    assert 100 < sum(view.flip for view in views) < 200
    for view in views:
        top, left, height, width = view.window
        assert top <= 15 <= top + height and left <= 45 <= left + width
        assert top >= 0 and left >= 0
        assert 0.6 < view.gamma < 1.7 and view.shows(boxes).tolist() == [True]
        np.testing.assert_allclose(view.colors.sum(1).std(), 0, atol=1e-2)  # grey stays grey
    assert len({view.gamma for view in views}) == 300
    far = View((0, 0, 10, 40), False, **PLAIN)
    assert far.shows(boxes).tolist() == [False]
    with pytest.raises(ValueError, match="short_sides"):
        check_batched(Augmentation(short_sides=(20,)))
    with pytest.raises(ValueError, match="crop_size"):
        check_batched(Augmentation())


def test_pasted_things_hide_what_is_behind():
    image, other = torch.full((2, 3, *SIZE), 50.0), torch.full((2, 3, *SIZE), 200.0)
    slots, other_slots = torch.ones(2, 2, *SIZE, dtype=torch.int64)
    slots[0, 10:20, 10:30] = 2  # a car
    other_slots[:, 5:25, 20:40] = 2  # a person; in the second image nearly everything
    other_slots[1] = 2
    chosen = [np.array([1]), np.array([1])]
    images, slots = paste(image, slots, other, other_slots, chosen, [2, 2])
    tables = [
        SegmentTable(np.array(ids), np.array(ids) > 1, np.zeros(4, bool), np.zeros((4, 4)))
        for ids in ([1, 2, 1, 3], [1, 2, 1, 3])
    ]
    first, second = make_targets(slots, tables)
    assert first.class_ids.tolist() == [1, 2, 3]
    assert first.boxes.tolist() == [[0, 0, 60, 40], [10, 10, 20, 20], [20, 5, 40, 25]]
    assert first.is_thing.tolist() == [False, True, True]
    assert images[0, 0, 15, 30] == pytest.approx(200) and images[0, 0, 15, 15] == 50
    assert 50 < images[0, 0, 15, 20] < 200  # the edge
    assert second.class_ids.tolist() == [1]  # more than half of an image is not pasted
    assert (images[1] == 50).all()
