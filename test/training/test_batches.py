from collections import Counter

import pytest
import torch

from panoptic_ros.data.targets import compact_target
from panoptic_ros.input_format import InputFormat
from panoptic_ros.prediction import Category
from panoptic_ros.training.batches import (
    Batch,
    PartSampler,
    SampleOrder,
    load_batches,
    open_data,
    training_mix,
)
from panoptic_ros.training.fields import RecipeError
from panoptic_ros.training.recipe import DataSource, load_recipe


def test_every_image_comes_once_per_epoch():
    order = SampleOrder([7], [1.0], seed=5)
    epochs = [[order[7 * e + i][1] for i in range(7)] for e in range(200)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 100


def test_mix_has_the_weights_and_both_sets_keep_their_epochs():
    order = SampleOrder([10, 300], [3, 1], seed=0)
    samples = [order[n] for n in range(4000)]
    assert Counter(source for source, _ in samples) == {0: 3000, 1: 1000}
    assert set(Counter(i for source, i in samples if source == 0).values()) == {300}
    seen = Counter(i for source, i in samples if source == 1)
    assert len(seen) == 300
    assert max(seen.values()) - min(seen.values()) == 1


def test_order_can_be_entered_anywhere_and_depends_on_the_seed():
    forward = [SampleOrder([5, 9], [1, 2], seed=1)[n] for n in range(2500)]
    order = SampleOrder([5, 9], [1, 2], seed=1)
    assert [order[n] for n in reversed(range(2500))] == forward[::-1]
    assert [SampleOrder([5, 9], [1, 2], seed=2)[n] for n in range(2500)] != forward


def test_empty_set_is_refused():
    with pytest.raises(ValueError, match="is empty"):
        SampleOrder([5, 0], [1, 1], seed=0)


def test_processes_and_parts_share_each_step():
    def step_samples(accumulate, world, step):
        return sorted(
            n
            for rank in range(world)
            for part in PartSampler(range(step, step + 1), 8, accumulate, rank, world)
            for n in part
        )

    assert step_samples(1, 1, 3) == list(range(24, 32))
    assert step_samples(2, 2, 3) == step_samples(1, 4, 3) == step_samples(8, 1, 3)
    assert step_samples(2, 2, 3) == list(range(24, 32))
    with pytest.raises(ValueError, match="batch 8 cannot be split over 3 processes and 2 parts"):
        PartSampler(range(1), 8, 2, 0, 3)


def test_samples_do_not_depend_on_workers(recipe, coco_folder):
    stage = load_recipe(recipe).stages[0]
    categories = open_data(stage.data[0], _categories()).categories
    loads = []
    for workers, first in ((0, 0), (2, 0), (1, 2)):
        sampler = PartSampler(range(first, 4), 2, 1, 0, 1)
        torch.manual_seed(workers)
        loads.append(list(load_batches(training_mix(stage, categories, 7), sampler, workers)))
    for whole, workers in zip(loads[0], loads[1], strict=True):
        _assert_equal(whole, workers)
    for whole, resumed in zip(loads[0][2:], loads[2], strict=True):
        _assert_equal(whole, resumed)
    assert loads[0][0].names[0].startswith("data[0][")


def _assert_equal(a, b):
    assert a.names == b.names
    for first, second in zip([*a.images, *_tensors(a)], [*b.images, *_tensors(b)], strict=True):
        assert torch.equal(first, second)


def _tensors(batch):
    return [tensor for target in batch.targets for tensor in vars(target).values()]


def _categories(ids=(1, 2)):
    names = {1: ("ground", False), 2: ("car", True)}
    return [Category(i, *names[i], (0, 0, 0)) for i in ids]


def test_batch_is_normalised_then_padded_with_zeros():
    def target(height, width):
        flags = torch.zeros(1, dtype=torch.bool)
        return compact_target(torch.ones(height, width).long(), torch.tensor([1]), flags, ~flags)

    batch = Batch(
        [torch.full((3, 20, 30), 110).byte(), torch.full((3, 24, 10), 120).byte()],
        [target(20, 30), target(24, 10)],
        ["a", "b"],
    )
    images, targets = batch.to_network(
        InputFormat((32, 32), channel_order="bgr", mean=(100.0, 90.0, 80.0), std=(10.0, 5.0, 1.0)),
        16,
        torch.device("cpu"),
    )
    assert images.shape == (2, 3, 32, 32)
    assert images[0, :, 19, 29].tolist() == pytest.approx([1.0, 4.0, 30.0], abs=1e-5)
    assert images[0, :, 20:].abs().sum() == 0
    assert images[0, :, :, 30:].abs().sum() == 0
    assert [t.slots.shape for t in targets] == [(32, 32), (32, 32)]
    assert [int((t.slots > 0).sum()) for t in targets] == [600, 240]


def test_data_sets_that_do_not_fit(recipe, coco_folder):
    source = load_recipe(recipe).stages[0].data[0]
    assert len(open_data(source, _categories())) == 6
    with pytest.raises(RecipeError, match="classes that the model has not.*: car"):
        open_data(source, _categories((1,)))
    with pytest.raises(RecipeError, match="unknown data set 'coco'; known are coco_panoptic"):
        open_data(DataSource("coco"), _categories())
    with pytest.raises(RecipeError, match="data set cityscapes: .*no_such_setting"):
        open_data(DataSource("cityscapes", 1.0, {"no_such_setting": 1}), _categories())
    with pytest.raises(RecipeError, match="data set coco_panoptic: there is no folder /nowhere"):
        open_data(
            DataSource("coco_panoptic", 1.0, {"annotations": "a.json", "images": "/nowhere"}),
            _categories(),
        )
