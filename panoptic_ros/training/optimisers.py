"""Optimisers, their parameter groups, and learning rate schedules."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch
from torch import nn

from panoptic_ros.training.recipe import OptimiserSettings, ScheduleSettings

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def build_optimiser(network: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that require a gradient.

    Raises:
        ValueError: Every parameter of the network is frozen.
    """
    groups = parameter_groups(network, settings)
    if not groups:
        raise ValueError("every parameter of the network is frozen; nothing is left to train")
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    if settings.name == "adamw":
        fused = groups[0]["params"][0].is_cuda  # one launch instead of one per kind of tensor
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused)
    return torch.optim.Adadelta(groups, lr=settings.lr)


def parameter_groups(network: nn.Module, settings: OptimiserSettings) -> list[dict]:
    """Split the trainable parameters into those with weight decay and those without.

    ``settings.no_decay`` names what goes without: ``norm`` (weights and biases of normalisation
    layers) and ``bias`` (every bias).
    """
    decayed, free = [], []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            is_free = ("norm" in settings.no_decay and isinstance(module, _NORMS)) or (
                "bias" in settings.no_decay and name == "bias"
            )
            (free if is_free else decayed).append(parameter)
    groups = [
        {"params": _unique(decayed), "weight_decay": settings.weight_decay},
        {"params": _unique(free), "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _unique(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Drop repetitions: a module that is used under two names is visited once per name."""
    return list(dict.fromkeys(parameters))


def learning_rate_factor(settings: ScheduleSettings, step: float, iterations: int) -> float:
    """Return what the base learning rate is multiplied with at a step.

    The linear warm-up multiplies the schedule's own value, so the two overlap.

    Args:
        settings: Kind of the schedule and its constants.
        step: Place on the schedule: optimiser steps done before this one, 0..iterations.
        iterations: Optimiser steps of the whole stage.
    """
    progress = step / iterations
    if settings.name == "poly":
        factor = (1 - progress) ** settings.power
    elif settings.name == "cosine":
        factor = settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * progress))
    elif settings.name == "steps":
        factor = settings.gamma ** bisect_right(settings.milestones, step)
    else:
        factor = 1.0
    if step < settings.warmup:
        done = step / settings.warmup
        factor *= settings.warmup_factor * (1 - done) + done
    return factor


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameter groups the learning rate of this step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


class Ema:
    """Exponential moving average of a network's floating point state.

    The average of the first steps would be dominated by the fresh weights, therefore the decay
    grows with the number of updates t as min(decay, (1 + t) / (10 + t)).

    Args:
        network: Receives the average; a copy of the trained one.
        decay: Part of the average that is kept at an update, 0..1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, trained: nn.Module, step: int) -> None:
        """Move the average towards the weights that optimiser step ``step`` has produced."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for average, value in zip(
            self.network.state_dict().values(), trained.state_dict().values(), strict=True
        ):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)
