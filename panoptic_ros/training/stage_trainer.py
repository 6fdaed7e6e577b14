"""The optimisation of one stage: forward, backward, step, moving average."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from panoptic_ros.devices import PRECISIONS, resolve_precision
from panoptic_ros.input_format import InputFormat
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.training.batches import seed_all
from panoptic_ros.training.distributed import Processes
from panoptic_ros.training.optimisers import (
    Ema,
    build_optimiser,
    learning_rate_factor,
    set_learning_rate,
)
from panoptic_ros.training.recipe import Stage
from panoptic_ros.training.start import check_prefixes, has_prefix
from panoptic_ros.truth import PanopticTarget


class TrainingBatch(Protocol):
    """Samples: ``batches.Batch`` or ``device_batches.DeviceBatch``."""

    names: list[str]

    def to_network(
        self, input_format: InputFormat, size_divisor: int, device: torch.device
    ) -> tuple[Tensor, list[PanopticTarget]]:
        """Return the network's input, (B, 3, H, W), and the truth of the same size."""


class TrainingError(RuntimeError):
    """The training cannot go on; the message names the step and the batch."""


class _Loss(nn.Module):
    """A network whose forward pass is its loss: gradients are exchanged for ``forward`` only."""

    def __init__(self, network: PanopticNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        return self.network.loss(images, targets)


class StageTrainer:
    """Trains a network through one stage, step by step.

    What is random in a step follows from (seed, step, rank), so a resumed run repeats it.

    Args:
        network: Taken over: moved to the device, put in training mode.
        stage: The stage's settings.
        input_format: Of the network.
        processes: This process among those of the run.
        seed: Of the steps' random numbers.

    Attributes:
        step: Optimiser steps done.
    """

    def __init__(
        self,
        network: PanopticNetwork,
        stage: Stage,
        input_format: InputFormat,
        processes: Processes,
        seed: int,
    ) -> None:
        self.step = 0
        self._stage, self._format = stage, input_format
        self._processes, self._device, self._seed = processes, processes.device, seed
        self._network = network.to(self._device, memory_format=torch.channels_last)
        self._ema = Ema(copy.deepcopy(self._network), stage.ema) if stage.ema else None
        _train_unfrozen(self._network, stage.start.freeze)
        self._parameters = [p for p in self._network.parameters() if p.requires_grad]
        self._optimiser = build_optimiser(self._network, stage.optimiser)
        self._precision = resolve_precision(stage.precision, self._device)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._precision == "fp16")
        self._loss = self._distributed(_Loss(self._network))

    def _distributed(self, loss: nn.Module) -> nn.Module:
        if self._processes.world == 1:
            return loss
        if self._device.type == "cuda":
            loss = nn.SyncBatchNorm.convert_sync_batchnorm(loss)
        # A head without a positive sample in the batch takes no part in the loss.
        return DistributedDataParallel(loss, find_unused_parameters=True)

    @property
    def result(self) -> PanopticNetwork:
        """The network to evaluate and to save: the moving average, or the trained one."""
        return self._ema.network if self._ema else self._network

    def train_step(
        self, parts: Sequence[TrainingBatch], place: float | None = None
    ) -> dict[str, float]:
        """Make one optimiser step on the parts of a batch.

        Args:
            parts: Of the batch.
            place: Where on the schedule the step is, 0 to the stage's iterations; by default the
                number of steps before it.

        Returns:
            The loss terms, their sum ``loss``, the gradient's L2 norm before clipping, and the
            learning rate.

        Raises:
            TrainingError: A loss term or the gradient is not finite; the weights are unchanged.
        """
        seed_all((self._seed, 4, self.step, self._processes.rank))
        rate = self._stage.optimiser.lr * learning_rate_factor(
            self._stage.schedule,
            self.step if place is None else place,
            self._stage.iterations,
        )
        set_learning_rate(self._optimiser, rate)
        self._optimiser.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            for name, value in self._backward(part, 1 / len(parts), is_last).items():
                terms[name] = terms.get(name, 0.0) + value / len(parts)
        norm = self._clip(parts, terms)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.step += 1
        if self._ema:
            self._ema.update(self._network, self.step)
        return {"loss": sum(terms.values()), **terms, "gradient_norm": norm, "lr": rate}

    def _backward(self, part: TrainingBatch, weight: float, is_last: bool) -> dict[str, float]:
        """Add the gradient of one part; processes exchange gradients after the last one."""
        images, targets = part.to_network(self._format, self._network.size_divisor, self._device)
        exchange = nullcontext() if is_last or self._processes.world == 1 else self._loss.no_sync()
        autocast = torch.autocast(
            self._device.type, PRECISIONS[self._precision], enabled=self._precision != "fp32"
        )
        with exchange:
            with autocast:
                losses = self._loss(images, targets)
            terms = dict(zip(losses, torch.stack([*losses.values()]).tolist(), strict=True))
            if not all(math.isfinite(value) for value in terms.values()):
                raise self._not_finite("loss", terms, part.names)
            total = torch.stack([*losses.values()]).sum() * weight
            self._scaler.scale(total).backward()
        return terms

    def _clip(self, parts: Sequence[TrainingBatch], terms: Mapping[str, float]) -> float:
        """Clip the gradient as the stage says; return its L2 norm before."""
        self._scaler.unscale_(self._optimiser)
        stage = self._stage
        limit = math.inf if stage.clip_norm is None else stage.clip_norm
        norm = float(nn.utils.clip_grad_norm_(self._parameters, limit))
        # With fp16, an overflow is expected now and then: the scaler skips the step.
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise self._not_finite("gradient", terms, [n for part in parts for n in part.names])
        if stage.clip_value is not None:
            nn.utils.clip_grad_value_(self._parameters, stage.clip_value)
        return norm

    def _not_finite(
        self, what: str, terms: Mapping[str, float], names: Sequence[str]
    ) -> TrainingError:
        listed = ", ".join(f"{name} {value:.6g}" for name, value in terms.items())
        return TrainingError(
            f"the {what} is not finite at step {self.step + 1} of stage {self._stage.name} "
            f"(loss terms: {listed}), on the images {', '.join(names)}. The last checkpoint is "
            "intact; lower the learning rate, clip the gradient or use precision fp32, then resume"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes from step to step, as plain tensors and numbers."""
        return {
            "step": self.step,
            "network": self._network.state_dict(),
            "ema": self._ema.network.state_dict() if self._ema else None,
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.step = state["step"]
        self._network.load_state_dict(state["network"])
        if self._ema:
            self._ema.network.load_state_dict(state["ema"] or state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])


def _train_unfrozen(network: nn.Module, frozen: Sequence[str]) -> None:
    """Put all but the frozen modules in training mode."""
    check_prefixes(network, frozen, "start.freeze")
    network.train()
    for name, module in network.named_modules():
        if has_prefix(name, frozen):
            module.eval()
    for name, parameter in network.named_parameters():
        if has_prefix(name, frozen):
            parameter.requires_grad_(False)
