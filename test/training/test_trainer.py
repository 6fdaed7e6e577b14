import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from panoptic_ros.model_zoo import find_weights, load_config, load_model
from panoptic_ros.networks.fpsnet.network import FPSNet
from panoptic_ros.training.checkpoint import load_checkpoint
from panoptic_ros.training.fields import RecipeError
from panoptic_ros.training.stage_trainer import TrainingError
from panoptic_ros.training.trainer import train


def final_weights(folder):
    return load_file(find_weights(folder / "last", load_config(folder / "last" / "model.yaml")))


def assert_same_weights(a, b):
    first, second = final_weights(a), final_weights(b)
    assert first.keys() == second.keys()
    assert [k for k in first if not torch.equal(first[k], second[k])] == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return a function that trains once per recipe without interruption."""
    done = {}

    def run(recipe):
        key = json.dumps(recipe, sort_keys=True)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("uninterrupted")
            train(recipe, done[key], device="cpu")
        return done[key]

    return run


def test_two_runs_are_equal_and_the_seed_matters(recipe, uninterrupted, tmp_path):
    first = uninterrupted(recipe)
    train(recipe, tmp_path / "again", device="cpu")
    assert_same_weights(first, tmp_path / "again")
    train(recipe, tmp_path / "other", device="cpu", changes={"seed": 4})
    with pytest.raises(AssertionError):
        assert_same_weights(first, tmp_path / "other")


KILLED_IN_ITS_EIGHTH_STEP = """
import os, signal, sys
from panoptic_ros.training.stage_trainer import StageTrainer
from panoptic_ros.training.trainer import train

train_step = StageTrainer.train_step

def step_or_end(trainer, *batch):
    if trainer.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(trainer, *batch)

StageTrainer.train_step = step_or_end
train(*sys.argv[1:3], device="cpu")
"""


def test_killed_run_resumes_to_the_same_end(recipe, uninterrupted, tmp_path):
    recipe = {**recipe, "iterations": 10, "workers": 1}
    path, output = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(recipe))
    threads = str(torch.get_num_threads())  # sums in another order have other last bits
    command = [sys.executable, "-c", KILLED_IN_ITS_EIGHTH_STEP, path, output]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        assert process.wait(240) == -signal.SIGKILL
    assert not (output / "last").exists()
    assert load_checkpoint(output / "checkpoint.pt")["trainer"]["step"] == 6

    train(path, output, device="cpu")
    entries = map(json.loads, (output / "log.jsonl").read_text().splitlines())
    assert [entry["step"] for entry in entries] == list(range(1, 11))
    assert_same_weights(uninterrupted(recipe), output)
    _wait_for_end_of_group(process.pid)


def _wait_for_end_of_group(group):
    """Workers look every five seconds whether their trainer still lives."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not _lives(group):
            return
        time.sleep(0.2)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("a worker outlived the killed trainer by a minute")


def _lives(group):
    """Whether a process of the group is more than a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if state != "Z" and int(its_group) == group:
                return True
    return False


def test_kill_between_two_stages(recipe, uninterrupted, tmp_path):
    """The second stage starts from the first one's weights, as without a kill."""
    recipe["stages"] = [
        {"name": "detector", "iterations": 3, "start": {"freeze": ["panoptic_head"]}},
        {"name": "all", "iterations": 2, "model": {"input": {"resolution": [64, 96]}}},
    ]
    calls = count()

    def killed_in_the_second_stage(network):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return {"pq": 0.0}

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, device="cpu", evaluation=killed_in_the_second_stage)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["stage"] == 0
    train(recipe, tmp_path, device="cpu")
    assert_same_weights(uninterrupted(recipe), tmp_path)
    assert load_model(tmp_path / "last")[0].input.resolution == (64, 96)


def test_finished_run_is_left_as_it_is(recipe, uninterrupted):
    folder = uninterrupted(recipe)
    before = final_weights(folder)
    train(recipe, folder, device="cpu")
    for name, value in final_weights(folder).items():
        assert torch.equal(value, before[name])


def test_best_weights_are_kept(recipe, tmp_path):
    scores = iter([0.2, 0.5, 0.4])
    seen = []

    def evaluation(network):
        assert not network.training
        seen.append(network.backbone.conv1.weight.clone())
        return {"pq": next(scores)}

    changes = {"evaluate_every": 2}
    result = train(recipe, tmp_path, device="cpu", changes=changes, evaluation=evaluation)
    config, network = load_model(result.best)
    assert result.scores == {"pq": 0.5}
    assert len(seen) == 3
    assert torch.equal(network.backbone.conv1.weight, seen[1])
    assert config.card["training"]["steps"] == 4
    assert config.card["training"]["validation"] == {"pq": 0.5}
    assert load_model(result.last)[0].card["training"]["steps"] == 6


def test_validation_data_give_panoptic_quality(recipe, tmp_path):
    changes = {"validation": recipe["data"][0], "evaluate_every": 6}
    result = train(recipe, tmp_path, device="cpu", changes=changes)
    assert set(result.scores) == {"pq", "pq_things", "pq_stuff", "miou"}
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries] == [1, 2, 3, 4, 5, 6, 6]
    assert entries[-1]["validation/pq"] == pytest.approx(result.scores["pq"], rel=1e-5)
    assert {"loss", "panoptic", "lr", "gradient_norm"} <= set(entries[0])
    assert list((tmp_path / "tensorboard" / "stage1").glob("events*"))


def test_nan_stops_the_run_and_leaves_the_checkpoint(recipe, tmp_path, monkeypatch):
    real_loss, calls = FPSNet.loss, count(1)

    def loss(network, images, targets):
        terms = real_loss(network, images, targets)
        if next(calls) == 4:
            terms["panoptic"] = terms["panoptic"] * float("nan")
        return terms

    with monkeypatch.context() as patch, pytest.raises(TrainingError) as error:
        patch.setattr(FPSNet, "loss", loss)
        train(recipe, tmp_path, device="cpu")
    assert "step 4 of stage stage1" in str(error.value)
    assert "data[0][" in str(error.value)
    state = load_checkpoint(tmp_path / "checkpoint.pt")["trainer"]
    assert state["step"] == 2
    assert all(v.isfinite().all() for v in state["network"].values() if v.is_floating_point())


def test_resuming_another_recipe(recipe, uninterrupted, tmp_path, caplog):
    train(recipe, tmp_path, device="cpu", changes={"iterations": 2})
    with pytest.raises(RecipeError, match="belongs to a recipe with another network"):
        changes = {"model": {"network": {"num_attention": 5}}}
        train(recipe, tmp_path, device="cpu", changes=changes)
    train(recipe, tmp_path, device="cpu")
    assert "changed settings: stages[0].iterations" in caplog.text
    assert final_weights(tmp_path).keys() == final_weights(uninterrupted(recipe)).keys()
    assert load_model(tmp_path / "last")[0].card["training"]["steps"] == 6


def test_resume_can_be_off(recipe, uninterrupted, tmp_path):
    train(recipe, tmp_path, device="cpu", changes={"seed": 8, "iterations": 2})
    train(recipe, tmp_path, device="cpu", resume=False)
    assert_same_weights(uninterrupted(recipe), tmp_path)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == recipe["iterations"]
