"""Batches that are made where the network trains: images stay decoded there.

For data sets that fit into its memory. Sample number n of a run is the same image with the same
augmentation, whether or not the run was interrupted: everything random about it follows from the
seed and n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.data.augmentation import Augmentation
from panoptic_ros.data.batch_augmentation import SegmentTable, make_targets, paste, see
from panoptic_ros.data.views import View, check_batched, draw_view
from panoptic_ros.input_format import InputFormat
from panoptic_ros.prediction import Category
from panoptic_ros.training.batches import (
    BLOCK,
    PanopticData,
    SampleOrder,
    open_data,
    pad,
    padded_size,
)
from panoptic_ros.training.fields import RecipeError, parse
from panoptic_ros.training.recipe import Stage
from panoptic_ros.truth import PanopticTarget

MOST_BYTES = 16 * 2**30  # of decoded images and truth; no sane set of this size fits a smaller GPU

_PIXEL = 3 + 2  # bytes: colours and slot


@dataclass(frozen=True)
class DeviceBatch:
    """Samples on the device.

    Attributes:
        images: float32, (B, 3, H, W), RGB, 0..255.
        targets: Their truth.
        names: What to call each sample in a message; see ``batches.Batch``.
    """

    images: Tensor
    targets: list[PanopticTarget]
    names: list[str]

    def to_network(
        self, input_format: InputFormat, size_divisor: int, device: torch.device
    ) -> tuple[Tensor, list[PanopticTarget]]:
        """Normalise and pad; see ``batches.Batch.to_network``."""
        height, width = padded_size(self.images.shape[-2:], size_divisor)
        images = pad(input_format.normalise(self.images.to(device)), height, width)
        for target in self.targets:
            target.slots = pad(target.slots, height, width)
        return images.contiguous(memory_format=torch.channels_last), self.targets


class Store:
    """All samples of some data sets, decoded, on one device.

    Args:
        sets: The data sets.
        device: Where to keep them.
        threads: That read and decode at the same time.

    Raises:
        RecipeError: They need more than ``MOST_BYTES``.
    """

    def __init__(
        self, sets: Sequence[PanopticData], device: torch.device, threads: int = 4
    ) -> None:
        self.starts = np.cumsum([0, *map(len, sets)])
        self.names = [f"data[{s}][{i}]" for s, data in enumerate(sets) for i in range(len(data))]
        places = [(data, i) for data in sets for i in range(len(data))]
        samples, height, width = [], 0, 0
        with ThreadPoolExecutor(threads) as pool:
            for image, slots, table in pool.map(_decoded, places):
                height, width = max(height, image.shape[1]), max(width, image.shape[2])
                if len(places) * height * width * _PIXEL > MOST_BYTES:
                    pool.shutdown(cancel_futures=True)
                    raise _too_large(len(places), height, width)
                samples.append((image, slots, table))
        self.sizes = [tuple(slots.shape) for _, slots, _ in samples]
        self.tables = [table for _, _, table in samples]
        self.images = torch.zeros((len(samples), 3, height, width), dtype=torch.uint8)
        self.slots = torch.zeros((len(samples), height, width), dtype=torch.int16)
        for place, (image, slots, _) in enumerate(samples):
            self.images[place, :, : image.shape[1], : image.shape[2]] = image
            self.slots[place, : image.shape[1], : image.shape[2]] = slots
        self.images, self.slots = self.images.to(device), self.slots.to(device)


def _decoded(place: tuple[PanopticData, int]) -> tuple[Tensor, Tensor, SegmentTable]:
    image, target = place[0][place[1]]
    return image, target.slots.short(), SegmentTable.of(target)


def _too_large(number: int, height: int, width: int) -> RecipeError:
    needed = number * height * width * _PIXEL / 2**30
    return RecipeError(
        f"on_device: {number} images of up to {height}x{width} need {needed:.1f} GiB, at most "
        f"{MOST_BYTES / 2**30:.0f} are taken; turn on_device off and set workers"
    )


class DeviceMix:
    """The augmented samples of a run by number, in batches.

    Args:
        store: All images.
        order: Which sample comes when.
        augmentation: Of the kind that ``check_batched`` takes.
        seed: Of the augmentation.
    """

    def __init__(
        self, store: Store, order: SampleOrder, augmentation: Augmentation, seed: int
    ) -> None:
        check_batched(augmentation)
        self._store, self._order = store, order
        self._augmentation, self._seed = augmentation, seed

    def batches(self, parts: Iterable[Sequence[int]]) -> Iterator[DeviceBatch]:
        """Yield the batch of each list of sample numbers."""
        return map(self.batch, parts)

    def batch(self, numbers: Sequence[int]) -> DeviceBatch:
        """Return the samples of some numbers."""
        rngs = [np.random.default_rng((self._seed, 3, number)) for number in numbers]
        places = [self._place(number) for number in numbers]
        at_most, others = self._augmentation.paste, []
        if at_most:
            steps = [int(rng.integers(1, BLOCK)) for rng in rngs]
            others = [self._place(n + step) for n, step in zip(numbers, steps, strict=True)]
        views = [self._view(rng, place) for rng, place in zip(rngs, places, strict=True)]
        views += [self._view(rng, place) for rng, place in zip(rngs, others, strict=False)]
        images, slots = self._see([*places, *others], views)
        tables = [self._store.tables[place] for place in places]
        if at_most:
            seen = zip(rngs, others, views[len(places) :], strict=True)
            chosen = [self._choose(rng, place, view) for rng, place, view in seen]
            counts = [len(table.class_ids) for table in tables]
            size = len(places)
            images, slots = paste(
                images[:size], slots[:size], images[size:], slots[size:], chosen, counts
            )
            tables = [t + self._store.tables[p] for t, p in zip(tables, others, strict=True)]
        names = [self._store.names[place] for place in places]
        return DeviceBatch(images, make_targets(slots, tables), names)

    def _place(self, number: int) -> int:
        source, index = self._order[number]
        return int(self._store.starts[source]) + index

    def _view(self, rng: np.random.Generator, place: int) -> View:
        table = self._store.tables[place]
        boxes = table.boxes[table.instances]
        return draw_view(rng, self._augmentation, self._store.sizes[place], boxes)

    def _see(self, places: Sequence[int], views: Sequence[View]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(places, device=self._store.images.device)
        images, slots = self._store.images[index], self._store.slots[index]
        return see(images, slots, views, self._augmentation.crop_size)

    def _choose(self, rng: np.random.Generator, place: int, view: View) -> np.ndarray:
        """Choose up to ``paste`` of the things of an image that a view shows."""
        table = self._store.tables[place]
        instances = table.instances
        visible = instances[view.shows(table.boxes[instances])]
        return rng.permutation(visible)[: rng.integers(self._augmentation.paste + 1)]


def device_mix(
    stage: Stage, categories: Sequence[Category], seed: int, device: torch.device
) -> DeviceMix:
    """Open the data sets of a stage and keep them on the device.

    Raises:
        RecipeError: A data set or the augmentation does not fit.
    """
    sets = [open_data(source, categories) for source in stage.data]
    augmentation = parse(Augmentation, stage.augmentation, f"stage {stage.name}: augmentation")
    try:
        check_batched(augmentation)
    except ValueError as error:
        raise RecipeError(f"stage {stage.name}: augmentation: {error}") from error
    order = SampleOrder([len(data) for data in sets], [s.weight for s in stage.data], seed)
    return DeviceMix(Store(sets, device), order, augmentation, seed)
