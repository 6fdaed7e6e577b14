import copy
import faulthandler
import os
import socket
import time
import warnings

import pytest
import torch
import torch.multiprocessing as mp

from panoptic_ros.data.targets import compact_target
from panoptic_ros.input_format import InputFormat
from panoptic_ros.training.batches import Batch
from panoptic_ros.training.distributed import process_group
from panoptic_ros.training.recipe import OptimiserSettings, StartSettings
from panoptic_ros.training.recipe import Stage as StageSettings
from panoptic_ros.training.stage_trainer import StageTrainer, TrainingError
from test.training.tiny import CPU, ClassMap

FORMAT = InputFormat((16, 16))
SGD = OptimiserSettings("sgd", lr=0.1)


def stage(**settings):
    values = {"optimiser": SGD, "iterations": 10, "precision": "fp32", **settings}
    return StageSettings(model={}, data=(None,), augmentation={}, batch=4, **values)


def batch(number=4, first=0):
    """Images of noise whose upper half is class 1 and whose lower half is class 2."""
    images, targets = [], []
    for index in range(first, first + number):
        generator = torch.Generator().manual_seed(index)
        images.append(torch.randint(256, (3, 16, 16), generator=generator).byte())
        slots = torch.ones(16, 16).long()
        slots[8:] = 2
        things = torch.tensor([False, True])
        targets.append(compact_target(slots, torch.tensor([1, 2]), things, things & False))
    return Batch(images, targets, [f"noise[{i}]" for i in range(first, first + number)])


def trainer(network=None, processes=CPU, **settings):
    torch.manual_seed(0)
    return StageTrainer(network or ClassMap(), stage(**settings), FORMAT, processes, seed=0)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_loss_falls_and_the_terms_are_told(precision):
    adamw = OptimiserSettings("adamw", lr=0.01)
    run = trainer(optimiser=adamw, iterations=100, precision=precision)
    values = [run.train_step([batch()]) for _ in range(60)]
    assert set(values[0]) == {"loss", "classes", "size", "gradient_norm", "lr"}
    assert values[0]["loss"] == pytest.approx(values[0]["classes"] + values[0]["size"])
    assert values[-1]["loss"] < 0.7 * values[0]["loss"]
    assert values[0]["lr"] == 0.01
    assert values[50]["lr"] == pytest.approx(0.01 * 0.5**0.9)


def test_accumulated_parts_equal_the_whole_batch():
    whole, parts = trainer(), trainer()
    told = whole.train_step([batch(4)])
    assert parts.train_step([batch(2), batch(2, first=2)]) == pytest.approx(told, rel=1e-5)
    torch.testing.assert_close(weights(parts.result), weights(whole.result))


def test_clipping():
    network = ClassMap()
    free, by_norm, by_value = (
        trainer(copy.deepcopy(network), **clip)
        for clip in ({}, {"clip_norm": 0.01}, {"clip_value": 0.002})
    )
    norms = [run.train_step([batch()])["gradient_norm"] for run in (free, by_norm, by_value)]
    assert norms[0] == pytest.approx(norms[1]) == pytest.approx(norms[2])
    assert norms[0] > 0.01
    step = weights(free.result) - weights(network)
    # the first step of SGD is the rate times the gradient
    torch.testing.assert_close(
        weights(by_norm.result) - weights(network), step * 0.01 / norms[0], rtol=1e-3, atol=1e-7
    )
    torch.testing.assert_close(
        weights(by_value.result) - weights(network),
        step.clamp(-0.0002, 0.0002),
        rtol=1e-3,
        atol=1e-7,
    )


def test_frozen_parts_keep_weights_and_statistics():
    network = ClassMap(norm=True)
    before = copy.deepcopy(network.state_dict())
    run = trainer(network, start=StartSettings(freeze=("trunk", "norm")))
    run.train_step([batch()])
    after = run.result.state_dict()
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {name for name in before if name.startswith(("trunk", "norm"))}
    with pytest.raises(ValueError, match=r"start\.freeze: 'nothing' names nothing in ClassMap"):
        trainer(start=StartSettings(freeze=("nothing",)))


def test_loss_that_is_not_finite_stops_before_the_step():
    class Breaks(ClassMap):
        def loss(self, images, targets):
            terms = super().loss(images, targets)
            return {**terms, "size": terms["size"] * float("nan")}

    run = trainer(Breaks())
    before = weights(run.result).clone()
    with pytest.raises(TrainingError) as error:
        run.train_step([batch(2), batch(2, first=2)])
    for part in ("loss is not finite at step 1 of stage train", "size nan", "noise[0], noise[1]"):
        assert part in str(error.value)
    assert "noise[2]" not in str(error.value)
    assert torch.equal(weights(run.result), before)


def test_gradient_that_is_not_finite_stops_before_the_step():
    class Breaks(ClassMap):
        def loss(self, images, targets):
            # the root has an infinite slope at 0, where its value is finite
            return {"root": (self.head.weight * 0).sum().sqrt() + self.trunk.weight.sum()}

    run = trainer(Breaks())
    before = weights(run.result).clone()
    with pytest.raises(TrainingError, match=r"gradient is not finite at step 1 .*noise\[3\]"):
        run.train_step([batch(2), batch(2, first=2)])
    assert torch.equal(weights(run.result), before)


def test_state_goes_on_where_it_was():
    settings = {"optimiser": OptimiserSettings("adadelta", lr=0.5), "ema": 0.5}
    whole, first = trainer(**settings), trainer(**settings)
    for number in range(6):
        whole.train_step([batch(first=number)])
    for number in range(3):
        first.train_step([batch(first=number)])
    second = trainer(ClassMap().requires_grad_(True), **settings)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for number in range(3, 6):
        second.train_step([batch(first=number)])
    assert second.step == 6
    for name, value in whole.result.state_dict().items():
        assert torch.equal(second.result.state_dict()[name], value), name


def _train_one_of_two(rank, port, results):
    os.environ.update(  # as torchrun does
        RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    with (
        (results / f"{rank}.stack").open("w") as stack,
        process_group("cpu") as processes,
    ):
        faulthandler.dump_traceback_later(100, file=stack)
        processes.wait()
        (results / f"{rank}.joined").touch()
        run = trainer(processes=processes)
        for step in range(3):
            first = 4 * step + processes.rank  # two parts of one image per process
            run.train_step([batch(1, first), batch(1, first + 2)])
        torch.save(run.result.state_dict(), results / f"{rank}.pt")


def _run_two(results):
    """Run both processes; returns where they stand after two minutes, "" if they have ended.

    Skips where they cannot reach each other.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = mp.spawn(_train_one_of_two, (port, results), nprocs=2, join=False, daemon=True)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if run.join(timeout=1):
            return ""
    for process in run.processes:
        process.kill()
    if not list(results.glob("*.joined")):
        pytest.skip("processes cannot reach each other over the loopback interface here")
    return "\n".join(path.read_text() for path in sorted(results.glob("*.stack")))


def test_two_processes_equal_one(tmp_path):
    if stacks := _run_two(tmp_path):  # once in a dozen runs on a busy machine; not understood yet
        warnings.warn(f"two processes hung once:\n{stacks}", stacklevel=1)
        stacks = _run_two(tmp_path)
        assert not stacks, f"two processes hung twice:\n{stacks}"
    single = trainer()
    for step in range(3):
        single.train_step([batch(4, 4 * step)])
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in single.result.state_dict().items():
            torch.testing.assert_close(state[name], value)
