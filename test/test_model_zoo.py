"""Model folders: written, found, read back, and refused with a reason when damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from panoptic_ros.model_zoo import (
    MODEL_PATH_VARIABLE,
    ModelError,
    available_models,
    find_model,
    load_config,
    load_model,
    save_model,
)

CONFIGURATIONS = sorted((Path(__file__).parents[1] / "config" / "networks").glob("*.yaml"))


@pytest.fixture
def model(tiny_model, tmp_path):
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_saved_models_come_back_equal(tiny_model, tmp_path):
    config, network = load_model(tiny_model)
    again = save_model(tmp_path / "again", config, network)
    config_again, network_again = load_model(again)
    assert config_again == config
    for key, value in network.state_dict().items():
        torch.testing.assert_close(network_again.state_dict()[key], value, rtol=0, atol=0)
    assert not network_again.training


def test_a_model_is_replaced_and_no_weights_are_left_behind(model):
    config, network = load_model(model)
    assert [file.name for file in weights_of(model)] == ["weights.safetensors"]
    for value in (1.0, 2.0, 2.0):
        next(network.parameters()).data.fill_(value)
        save_model(model, config, network)
        config, loaded = load_model(model)
        assert next(loaded.parameters()).eq(value).all()
        assert [file.name for file in weights_of(model)] == [config.weights]


def weights_of(folder):
    return sorted(folder.glob("*.safetensors"))


def test_half_precision_weights_are_read_as_float(tiny_model, tmp_path):
    config, network = load_model(tiny_model)
    _, halves = load_model(save_model(tmp_path / "half", config, network.half()))
    assert {p.dtype for p in halves.parameters()} == {torch.float32}


def test_models_are_found_by_name_in_the_given_directories(tiny_model, monkeypatch):
    monkeypatch.setenv(MODEL_PATH_VARIABLE, f"/nowhere:{tiny_model.parent}")
    assert find_model("tiny") == tiny_model
    assert "tiny" in available_models()


def test_a_missing_model_says_where_it_was_looked_for(tiny_model, monkeypatch):
    monkeypatch.setenv(MODEL_PATH_VARIABLE, str(tiny_model.parent))
    with pytest.raises(ModelError, match=r"no model 'huge'.*Models found: .*tiny") as error:
        find_model("huge")
    assert str(tiny_model.parent / "huge") in str(error.value)


def test_truncated_weights_are_refused(model):
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="weights.safetensors is damaged"):
        load_model(model)


def test_foreign_weights_without_checksum_are_refused(model):
    fields = yaml.safe_load((model / "model.yaml").read_text())
    del fields["weights"]
    (model / "model.yaml").write_text(yaml.safe_dump(fields))
    (model / "weights.safetensors").write_bytes(b"not a tensor in sight")
    with pytest.raises(ModelError, match="cannot read .*weights.safetensors"):
        load_model(model)


def test_missing_weights_are_named(model):
    (model / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match="weights.safetensors is missing"):
        load_model(model)


def test_weights_of_another_network_are_refused(model):
    fields = yaml.safe_load((model / "model.yaml").read_text())
    fields["network"]["feature_channels"] = 24
    (model / "model.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(ModelError, match="does not fit network fpsnet"):
        load_model(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("categories"), "'categories' is missing"),
        (lambda f: f["network"].update(name="yolo"), "unknown network 'yolo'"),
        (lambda f: f["network"].update(colour=1), "no setting colour"),
        (lambda f: f["input"].update(resize="crop"), "letterbox"),
        (lambda f: f.update(extra=1), "unknown field extra"),
        (lambda f: f.update(weights={"file": "../weights.safetensors"}), "weights: file is"),
        (lambda f: f["prediction"].update(score_threshold=3), "score_threshold is 3"),
    ],
)
def test_wrong_descriptions_name_file_and_field(model, change, message):
    path = model / "model.yaml"
    fields = yaml.safe_load(path.read_text())
    change(fields)
    path.write_text(yaml.safe_dump(fields))
    with pytest.raises(ModelError, match=message):
        load_model(model)


@pytest.mark.parametrize("text", ["[1, 2", "just words", ""])
def test_what_is_not_a_description_is_refused(tmp_path, text):
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(ModelError, match="model.yaml"):
        load_config(tmp_path / "model.yaml")


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: p.stem)
def test_configurations_build_their_network(path):
    with torch.device("meta"):
        network = load_config(path).build()
    assert sum(p.numel() for p in network.parameters()) > 0


@pytest.mark.parametrize("name", available_models())
def test_shipped_models_load_and_say_what_they_are(name):
    config, _ = load_model(name)
    assert (find_model(name) / "weights.safetensors").stat().st_size <= 16 * 2**20
    assert {"description", "data", "licence", "measured"} <= config.card.keys()
