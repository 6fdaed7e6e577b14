"""The contract of the engines: what ``PanopticNetwork.forward`` computes, computed faster."""

from __future__ import annotations

import copy
import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from panoptic_ros.devices import PRECISIONS
from panoptic_ros.networks.base import PanopticNetwork

logger = logging.getLogger("panoptic_ros.engines")

T = TypeVar("T")
Forward = Callable[[Tensor], Mapping[str, Tensor]]


class EngineError(RuntimeError):
    """An engine is not installed, not for this device, or cannot take the network."""


@dataclass(frozen=True)
class QuantizedNetwork:
    """A model's ``forward`` in int8 at one resolution; inputs and outputs are single precision.

    Attributes:
        graph: OpenVINO's XML.
        weights: The data beside it.
    """

    graph: bytes
    weights: bytes


@dataclass(frozen=True)
class EngineInput:
    """What an engine is made from.

    Attributes:
        network: In eval mode, batch norm folded, on ``device`` and in ``precision``.
        device: Where the batches are.
        precision: Key of ``devices.PRECISIONS``.
        size: (height, width) of the batches, multiples of the network's ``size_divisor``.
        settings: The network's keyword arguments, which tell cached engines apart.
        quantized: What to compute ``forward`` with instead of ``network``, if anything; for
            engine openvino.
    """

    network: PanopticNetwork
    device: torch.device
    precision: str
    size: tuple[int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    quantized: QuantizedNetwork | None = None

    def zeros(self, batch: int, dtype: torch.dtype) -> Tensor:
        """Return an empty batch, (batch, 3, *size), channels last, on the device."""
        return torch.zeros((batch, 3, *self.size), dtype=dtype, device=self.device).contiguous(
            memory_format=torch.channels_last
        )

    def outputs(self, batch: int) -> dict[str, Tensor]:
        """Return what ``forward`` gives for a batch as meta tensors: names, shapes and types."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            raw = self.network(self.zeros(batch, PRECISIONS[self.precision]))
        return {
            name: torch.empty(value.shape, dtype=value.dtype, device="meta")
            for name, value in raw.items()
        }

    def portable(self, dtype: torch.dtype = torch.float32) -> PanopticNetwork:
        """Return a copy of the network on the CPU, to be exported."""
        return copy.deepcopy(self.network).to("cpu", dtype, memory_format=torch.contiguous_format)


class Engine(ABC):
    """Computes ``forward`` for batches of one resolution.

    A batch size is compiled once, by ``compile``. Other sizes are served in parts of the sizes
    there are, so that no camera image ever waits for a compiler.

    Args:
        source: The network and where it runs.

    Attributes:
        name: Key of ``engines.ENGINES``.
        needs: Packages that it imports, by their names for pip.
        devices: Types of devices that it runs on.
        batches: Whether batches above 1 are compiled; if not, images run one after the other.
        reentrant: Whether two threads may run it at once on CUDA, each in a stream of its own.
    """

    name: str
    needs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    batches: bool = True
    reentrant: bool = True

    def __init__(self, source: EngineInput) -> None:
        self.source = source
        self._compiled: dict[int, Any] = {}

    @classmethod
    def check(cls, device: torch.device) -> None:
        """Raise EngineError when the engine is not installed or not for ``device``."""
        if device.type not in cls.devices:
            raise EngineError(
                f"engine {cls.name} runs on {' and '.join(cls.devices)}, not on {device}; "
                "use engine auto"
            )
        missing = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise EngineError(
                f"engine {cls.name} is not installed: python3 -m pip install {' '.join(missing)}, "
                "or use engine auto or eager"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the batches that it takes."""
        return PRECISIONS[self.source.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout in which it takes batches without a copy."""
        return torch.channels_last

    def capturable(self) -> list[tuple[str, Forward]]:
        """Return what a CUDA graph of a frame can hold for single images, with its name.

        The fastest first; what fails is followed by the next. Empty: frames are not captured.
        """
        return []

    def compiler(self) -> Callable[[Callable[..., T]], Callable[..., T]] | None:
        """Return what compiles the other steps of a frame for a CUDA graph, if anything does."""
        return None

    def compile(self, batch: int = 1) -> None:
        """Get ready for batches of a size; raises EngineError when that fails."""
        batch = batch if self.batches else 1
        if batch in self._compiled:
            return
        source = self.source
        height, width = source.size
        precision = f"int8 and {source.precision}" if source.quantized else source.precision
        what = f"{self.name}, {precision}, {height}x{width}, batch {batch}"
        logger.info("preparing engine %s on %s", what, source.device)
        try:
            self._compiled[batch] = self._compile(batch)
        except (EngineError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # compilers raise what they like
            raise EngineError(f"engine {what}: {root_of(error)}") from error
        logger.info("engine %s is ready", what)

    @torch.inference_mode()
    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Compute ``forward``.

        Args:
            batch: (B, 3, height, width), on the device of the source; in ``dtype`` and
                ``memory_format`` it is taken without a copy.

        Returns:
            The tensors that the network's ``forward`` returns, with its names, shapes and types.
            They are valid until the next call.
        """
        batch = batch.to(self.dtype).contiguous(memory_format=self.memory_format)
        if not self._compiled:
            self.compile(len(batch))
        if len(batch) in self._compiled:
            return self._run(self._compiled[len(batch)], batch)
        parts = [
            {name: value.clone() for name, value in self(part).items()}
            for part in batch.split(self._part(len(batch)))
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _part(self, batch: int) -> int:
        """Return the largest size there is for a part of a batch."""
        if min(self._compiled) > batch:
            self.compile(1)
        return max(size for size in self._compiled if size <= batch)

    @abstractmethod
    def _compile(self, batch: int) -> Any:
        """Make what ``_run`` needs for batches of a size."""

    @abstractmethod
    def _run(self, compiled: Any, batch: Tensor) -> dict[str, Tensor]:
        """Run it."""


def root_of(error: BaseException) -> str:
    """Return what went wrong in the first place; compilers wrap it in advice."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
