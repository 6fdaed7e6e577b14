"""The training mix: which sample comes when, and how samples become a batch.

Sample number n of a run is the same image with the same augmentation whatever the number of
workers and processes, and whether or not the run was interrupted: everything random about it
follows from the seed and n.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from panoptic_ros.data.augmentation import Augmentation
from panoptic_ros.data.copy_paste import paste_things
from panoptic_ros.devices import use_one_core
from panoptic_ros.input_format import InputFormat
from panoptic_ros.prediction import Category
from panoptic_ros.training.fields import RecipeError, parse
from panoptic_ros.training.recipe import DataSource, Stage
from panoptic_ros.truth import PanopticTarget

DATA_SETS = {
    "coco_panoptic": ("panoptic_ros.data.coco_panoptic", "CocoPanoptic"),
    "cityscapes": ("panoptic_ros.data.cityscapes", "Cityscapes"),
    "synthetic_streets": ("panoptic_ros.data.synthetic", "SyntheticStreets"),
}

BLOCK = 1000  # samples over which the mix has exactly its weights


class PanopticData(Protocol):
    """What a data set is: images, uint8 (3, H, W) RGB, each with its truth at the same size."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Tensor, PanopticTarget]:
        """Return image ``index`` and its truth."""


@dataclass(frozen=True)
class Batch:
    """Samples as the workers deliver them.

    Attributes:
        images: uint8, (3, H, W) each, RGB; sizes may differ.
        targets: Their truth.
        names: What to call each sample in a message: ``data[i][k]`` is image k of the recipe's
            data set i.
    """

    images: list[Tensor]
    targets: list[PanopticTarget]
    names: list[str]

    def to_network(
        self, input_format: InputFormat, size_divisor: int, device: torch.device
    ) -> tuple[Tensor, list[PanopticTarget]]:
        """Normalise and pad the images on the device, on the right and at the bottom.

        Returns:
            float32 images (B, 3, H, W), channels last, H and W multiples of ``size_divisor``;
            and the targets at the same size, padding void.
        """
        largest = np.max([image.shape[-2:] for image in self.images], axis=0)
        height, width = padded_size(largest, size_divisor)
        images = [
            pad(input_format.normalise(image.to(device)), height, width) for image in self.images
        ]
        targets = [target.to(device) for target in self.targets]
        for target in targets:
            target.slots = pad(target.slots, height, width)
        batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
        return batch, targets


def padded_size(size: Sequence[int], divisor: int) -> tuple[int, int]:
    """Return the next (height, width) that are multiples of ``divisor``."""
    height, width = (int(-(-side // divisor) * divisor) for side in size)
    return height, width


def pad(image: Tensor, height: int, width: int) -> Tensor:
    """Pad on the right and at the bottom with zeros."""
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))


def open_data(source: DataSource, categories: Sequence[Category]) -> PanopticData:
    """Open a data set and check that a model with ``categories`` can be trained on it.

    Raises:
        RecipeError: The kind or a setting is unknown, a file is missing, or it has other classes.
    """
    if source.set not in DATA_SETS:
        raise RecipeError(f"unknown data set {source.set!r}; known are {', '.join(DATA_SETS)}")
    try:
        module, name = DATA_SETS[source.set]
        data = getattr(import_module(module), name)(**source.settings)
    except (TypeError, ValueError, OSError) as error:
        raise RecipeError(f"data set {source.set}: {error}") from error
    known = {(c.id, c.is_thing) for c in categories}
    if other := [c.name for c in data.categories if (c.id, c.is_thing) not in known]:
        raise RecipeError(
            f"data set {source.set} has classes that the model has not, or not as the same id "
            f"and kind: {', '.join(other)}"
        )
    return data


def training_mix(stage: Stage, categories: Sequence[Category], seed: int) -> TrainingMix:
    """Open the data sets of a stage and mix them.

    Raises:
        RecipeError: A data set or the augmentation does not fit.
    """
    sets = [open_data(source, categories) for source in stage.data]
    augmentation = parse(Augmentation, stage.augmentation, f"stage {stage.name}: augmentation")
    return TrainingMix(sets, [source.weight for source in stage.data], augmentation, seed)


class SampleOrder:
    """Maps sample numbers 0, 1, 2, ... to data sets and their images, without end.

    Each data set is gone through in a new random order again and again. Within every block of
    1000 samples the data sets have their weights' shares.

    Args:
        lengths: Number of images of each data set.
        weights: Weight of each data set in the mix.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], seed: int) -> None:
        if min(lengths) < 1:
            raise ValueError(f"a data set of the mix is empty; their lengths are {list(lengths)}")
        self._lengths = list(lengths)
        self._quotas = _quotas(weights)
        self._seed = seed

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Return (data set, image) of a sample."""
        block, place = divmod(number, BLOCK)
        sources, ranks = _block(self._seed, block, self._quotas)
        source = int(sources[place])
        count = block * self._quotas[source] + int(ranks[place])
        epoch, index = divmod(count, self._lengths[source])
        return source, int(_epoch(self._seed, source, epoch, self._lengths[source])[index])


@lru_cache(maxsize=8)
def _block(seed: int, block: int, quotas: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the data set of each sample of a block, and its rank among that set's."""
    sources = np.repeat(np.arange(len(quotas)), quotas)
    np.random.default_rng((seed, 1, block)).shuffle(sources)
    ranks = np.zeros_like(sources)
    for source in range(len(quotas)):
        chosen = sources == source
        ranks[chosen] = np.arange(chosen.sum())
    return sources, ranks


@lru_cache(maxsize=32)
def _epoch(seed: int, source: int, epoch: int, length: int) -> np.ndarray:
    """Return the order of a data set's images in one epoch."""
    return np.random.default_rng((seed, 2, source, epoch)).permutation(length)


def _quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """Share BLOCK samples out by weight; what rounding leaves goes to the largest remainders."""
    exact = np.asarray(weights, float) / np.sum(weights) * BLOCK
    quotas = np.floor(exact).astype(int)
    for source in np.argsort(quotas - exact, kind="stable")[: BLOCK - quotas.sum()]:
        quotas[source] += 1
    return tuple(quotas.tolist())


class TrainingMix(Dataset):
    """The augmented samples of a run by number.

    Args:
        sets: The data sets.
        weights: Their weights in the mix.
        augment: Turns (image, target) into the augmented pair; draws from torch's, NumPy's or
            Python's global generator, which are seeded anew for each sample.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        sets: Sequence[PanopticData],
        weights: Sequence[float],
        augment: Augmentation,
        seed: int,
    ) -> None:
        self._sets = list(sets)
        self._order = SampleOrder([len(data) for data in self._sets], weights, seed)
        self._augment = augment
        self._seed = seed

    def __getitem__(self, number: int) -> tuple[Tensor, PanopticTarget, str]:
        """Return sample ``number``: image, target and name."""
        source, index = self._order[number]
        seed_all((self._seed, 3, number))
        image, target = self._augment(*self._sets[source][index])
        if self._augment.paste:
            other, place = self._order[number + int(torch.randint(1, BLOCK, ()))]
            pasted = self._augment(*self._sets[other][place])
            image, target = paste_things(image, target, *pasted, self._augment.paste)
        return image, target, f"data[{source}][{index}]"


def seed_all(key: Sequence[int]) -> None:
    """Seed the global generators of torch, NumPy and Python from numbers of 0 or more."""
    seeds = np.random.SeedSequence(key).generate_state(3, np.uint64)
    torch.manual_seed(int(seeds[0]))
    np.random.seed(int(seeds[1]) % 2**32)
    random.seed(int(seeds[2]))


class PartSampler(Sampler[list[int]]):
    """Sample numbers of one process: ``accumulate`` parts per step, from a step on.

    Args:
        steps: Steps to deliver.
        batch: Images per step over all processes and parts.
        accumulate: Parts of a step.
        rank: Number of this process.
        world: Number of processes.

    Raises:
        ValueError: ``batch`` cannot be split evenly.
    """

    def __init__(self, steps: range, batch: int, accumulate: int, rank: int, world: int) -> None:
        if batch % (accumulate * world):
            raise ValueError(
                f"batch {batch} cannot be split over {world} processes and {accumulate} parts "
                "(accumulate); choose a batch that is a multiple of their product"
            )
        self._steps, self._batch, self._parts = steps, batch, accumulate
        self._first, self._size = rank, batch // (accumulate * world)
        self._world = world

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the sample numbers of each part."""
        for step in self._steps:
            for part in range(self._parts):
                chunk = part * self._world + self._first
                start = step * self._batch + chunk * self._size
                yield list(range(start, start + self._size))


def load_batches(mix: TrainingMix, sampler: PartSampler, workers: int) -> DataLoader:
    """Return a loader of the sampler's batches, prepared by ``workers`` processes.

    They are fresh ones: a fork of this one could wait forever for the threads of OpenCV, OpenMP
    or CUDA, which it does not inherit. As its children, they end when it is killed; those of a
    fork server would not notice.
    """
    return DataLoader(
        mix,
        batch_sampler=sampler,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        collate_fn=_collate,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
    )


def _collate(samples: list[tuple[Tensor, PanopticTarget, str]]) -> Batch:
    images, targets, names = zip(*samples, strict=True)
    return Batch(list(images), list(targets), list(names))


def _start_worker(_: int) -> None:
    use_one_core()
