"""How much memory a frame needs at once on a GPU, without one.

``python -m benchmarks.live_bytes [NAME ...]``. Every operation of ``forward``, and of ``predict``
with the label image, runs on fake CUDA tensors in bfloat16; what is alive after each is added up.
A CUDA graph runs the two on streams of their own, whose memory is not shared: it needs weights
and both. What libraries take for themselves, and rounding, comes on top.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.papers import PAPERS
from panoptic_ros.model_zoo import load_config
from panoptic_ros.ops.segments import encode_segments
from panoptic_ros.truth import FrameSize

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "config/networks"
SIZES = {paper.config: paper.size for paper in PAPERS}


class Live(TorchDispatchMode):
    """Adds up what the operations made that still exists.

    Attributes:
        peak: Most bytes at once.
        largest: The largest tensors then: bytes, operation, shape and type of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.largest: list[tuple[int, str]] = []
        self._alive: dict[int, tuple[StorageWeakRef, int, str]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), settings: Any = None
    ) -> Any:
        """Run an operation and look at its results."""
        result = function(*arguments, **(settings or {}))
        alive = {k: item for k, item in self._alive.items() if not item[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                what = f"{function.name()} {tuple(tensor.shape)} {tensor.dtype}"
                entry = (StorageWeakRef(storage), storage.nbytes(), what)
                alive.setdefault(storage._cdata, entry)
        self._alive = alive
        total = sum(size for _, size, _ in alive.values())
        if total > self.peak:
            self.peak = total
            self.largest = sorted((item[1:] for item in alive.values()), reverse=True)[:3]
        return result


class Needs(NamedTuple):
    """Bytes of a configuration: of its weights, and most at once in its two steps."""

    weights: int
    forward: Live
    predict: Live

    @property
    def total(self) -> int:
        """What a CUDA graph of a frame needs."""
        return self.weights + self.forward.peak + self.predict.peak


def needs(name: str) -> Needs:
    """Count one configuration, at its paper's size or else at its own."""
    config = load_config(CONFIGURATIONS / f"{name}.yaml")
    size = SIZES.get(name, config.input.resolution)
    default = torch.get_default_dtype()
    forward, predict = Live(), Live()
    with FakeTensorMode(), torch.no_grad():
        torch.set_default_dtype(torch.bfloat16)  # no fake module can be cast
        try:
            with torch.device("cuda:0"):
                network = config.build().eval()
                images = torch.empty(1, 3, *network.padded_size(size))
        finally:
            torch.set_default_dtype(default)
        with forward:
            raw = network(images)
        with predict:
            found = network.predict(raw, [FrameSize(size, size)], config.options)
            encoded = [encode_segments(item, network.thing_ids, 0) for item in found]
    assert encoded[0].labels.shape == size
    return Needs(sum(p.nbytes for p in network.parameters()), forward, predict)


def main() -> None:
    """Print the table, and what is largest."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=[*SIZES])
    print("| configuration | weights, MB | forward | predict | all |\n|---|---:|---:|---:|---:|")
    notes = []
    for name in parser.parse_args().names:
        found = needs(name)
        sizes = (found.weights, found.forward.peak, found.predict.peak, found.total)
        print(f"| {name} | {' | '.join(f'{size / 1e6:.0f}' for size in sizes)} |")
        for step in ("forward", "predict"):
            largest = [f"{size / 1e6:.0f} {what}" for size, what in getattr(found, step).largest]
            notes.append(f"{name}, {step}: {'; '.join(largest)}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
