import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from panoptic_ros.training.optimisers import (
    Ema,
    build_optimiser,
    learning_rate_factor,
    parameter_groups,
)
from panoptic_ros.training.recipe import OptimiserSettings, ScheduleSettings
from test.training.tiny import ClassMap

ITERATIONS = 40


def torch_factors(make_scheduler):
    """Return the learning rates of torch's own scheduler for a base rate of 1."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler(optimiser)
    rates = []
    for _ in range(ITERATIONS):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("settings", "make_scheduler"),
    [
        (
            ScheduleSettings("poly", power=0.9),
            lambda o: lr_scheduler.PolynomialLR(o, ITERATIONS, power=0.9),
        ),
        (
            ScheduleSettings("cosine", final=0.05),
            lambda o: lr_scheduler.CosineAnnealingLR(o, ITERATIONS, eta_min=0.05),
        ),
        (
            ScheduleSettings("steps", milestones=(10, 30), gamma=0.1),
            lambda o: lr_scheduler.MultiStepLR(o, [10, 30], gamma=0.1),
        ),
        (
            ScheduleSettings("steps", milestones=(20,), warmup=5, warmup_factor=0.001),
            lambda o: lr_scheduler.ChainedScheduler(
                [
                    lr_scheduler.LinearLR(o, start_factor=0.001, total_iters=5),
                    lr_scheduler.MultiStepLR(o, [20], gamma=0.1),
                ]
            ),
        ),
    ],
)
def test_schedules_are_those_of_torch(settings, make_scheduler):
    ours = [learning_rate_factor(settings, step, ITERATIONS) for step in range(ITERATIONS)]
    assert ours == pytest.approx(torch_factors(make_scheduler), rel=1e-9)


def test_warmup_multiplies_the_poly_value():
    settings = ScheduleSettings("poly", power=2.0, warmup=4, warmup_factor=0.2)
    # warm-up at step 1 of 4: 0.2 + 0.8 / 4 = 0.4; poly: (1 - 1 / 10) ** 2 = 0.81
    assert learning_rate_factor(settings, 1, 10) == pytest.approx(0.4 * 0.81)
    assert learning_rate_factor(settings, 4, 10) == pytest.approx(0.36)


def test_norms_and_biases_go_without_decay():
    network = ClassMap(norm=True)
    settings = OptimiserSettings("sgd", lr=0.1, weight_decay=1e-4, no_decay=("norm",))
    decayed, free = parameter_groups(network, settings)
    assert decayed["weight_decay"] == 1e-4
    assert free["weight_decay"] == 0
    assert {id(p) for p in free["params"]} == {id(network.norm.weight), id(network.norm.bias)}
    settings = OptimiserSettings("sgd", lr=0.1, weight_decay=1e-4, no_decay=("norm", "bias"))
    decayed, _ = parameter_groups(network, settings)
    weights = {id(network.trunk.weight), id(network.head.weight)}
    assert {id(p) for p in decayed["params"]} == weights


def test_shared_module_is_listed_once():
    network = nn.ModuleList([nn.Linear(2, 2)])
    network.append(network[0])
    groups = parameter_groups(network, OptimiserSettings("sgd", lr=1.0))
    assert sum(len(group["params"]) for group in groups) == 2


def test_frozen_parameters_are_left_out():
    network = ClassMap().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is left to train"):
        build_optimiser(network, OptimiserSettings("adadelta", lr=1.0))


def test_ema_by_hand():
    network = nn.BatchNorm1d(1)
    ema = Ema(copy.deepcopy(network), decay=0.5)
    network.weight.data.fill_(3.0)
    network.num_batches_tracked.fill_(7)
    ema.update(network, step=1)
    # decay is min(0.5, 2 / 11): 1 * 2 / 11 + 3 * 9 / 11
    assert ema.network.weight.item() == pytest.approx(29 / 11)
    assert ema.network.num_batches_tracked.item() == 7
    ema.update(network, step=1000)
    assert ema.network.weight.item() == pytest.approx((29 / 11 + 3) / 2)
    assert not ema.network.weight.requires_grad
