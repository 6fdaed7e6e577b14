"""Networks in int8: read only when they are whole and the model's, and near the float ones."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from panoptic_ros.cli import main
from panoptic_ros.commands.quantize import quantize_model
from panoptic_ros.devices import resolve_precision
from panoptic_ros.engines import make_engine, resolve_engine
from panoptic_ros.engines.base import EngineError, EngineInput
from panoptic_ros.engines.openvino_model import import_openvino
from panoptic_ros.model_zoo import MODEL_FILE, ModelError, load_config, load_model, save_model
from panoptic_ros.quantized import QuantizedNetwork, read_quantized, write_quantized
from panoptic_ros.segmenter import Segmenter

CPU = torch.device("cpu")
SIZE = (96, 128)
NETWORK = QuantizedNetwork(b"<net/>", b"\x01\x02\x03")


@pytest.fixture
def model(tiny_model, tmp_path):
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


@pytest.fixture
def config(model):
    """Of a model with an int8 network, as far as files go."""
    config = load_config(model / MODEL_FILE)
    write_quantized(config, SIZE, NETWORK, {"images": 5})
    return config


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folder of images that look like nothing, but have edges and areas."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed}.png"), cv2.resize(coarse, SIZE[::-1]))
    return folder


def test_what_is_written_is_read_and_says_what_it_is(config):
    assert read_quantized(config, SIZE) == NETWORK
    folder = config.folder / "int8"
    names = ["96x128.bin", "96x128.xml", "96x128.yaml"]
    assert sorted(path.name for path in folder.iterdir()) == names
    fields = yaml.safe_load((folder / "96x128.yaml").read_text())
    assert (fields["model"], fields["resolution"], fields["images"]) == ("tiny", [96, 128], 5)


def test_a_missing_network_is_refused_with_the_command_that_makes_it(config):
    command = f"panoptic quantize --model {config.folder} --resolution 64x64 --images FOLDER"
    with pytest.raises(ModelError, match=re.escape(command)) as error:
        read_quantized(config, (64, 64))
    assert "model tiny has no int8 network for 64x64, but for 96x128" in str(error.value)


@pytest.mark.parametrize("suffix", ["xml", "bin"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_files_are_refused(config, suffix, damage):
    file = config.folder / "int8" / f"96x128.{suffix}"
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"?")
    with pytest.raises(ModelError, match=rf"{suffix} is missing or damaged; make it again"):
        read_quantized(config, SIZE)


@pytest.mark.parametrize(
    "text", ["", "[1, 2", "model: tiny", "just words", "{model_sha256: 1, sha256: 2}"]
)
def test_a_damaged_description_is_refused(config, text):
    (config.folder / "int8" / "96x128.yaml").write_text(text)
    with pytest.raises(ModelError, match=r"96x128\.yaml is damaged; make it again with"):
        read_quantized(config, SIZE)


def test_a_network_of_other_weights_is_refused(config):
    trained, network = load_model(config.folder)
    next(network.parameters()).data += 1e-3
    save_model(config.folder, trained, network)
    with pytest.raises(ModelError, match="made from other weights, network or input format"):
        read_quantized(load_config(config.folder / MODEL_FILE), SIZE)


def test_a_network_for_other_input_is_refused_and_thresholds_do_not_matter(config):
    other = replace(config, options=replace(config.options, score_threshold=0.7))
    assert read_quantized(other, SIZE) == NETWORK
    for change in ({"channel_order": "bgr"}, {"scale": 1 / 255}):
        other = replace(config, input=replace(config.input, **change))
        with pytest.raises(ModelError, match="make it again with panoptic quantize"):
            read_quantized(other, SIZE)


def test_weights_without_checksum_are_told_apart(config):
    nameless = replace(config, sha256=None)  # the same file, so the same hash
    assert read_quantized(nameless, SIZE) == NETWORK


def test_a_model_without_folder_is_refused(config):
    with pytest.raises(ModelError, match="int8 needs the folder of model tiny"):
        read_quantized(replace(config, folder=None), SIZE)


def test_int8_is_for_openvino_on_cpus():
    assert resolve_precision("int8", CPU) == resolve_precision("int8", CPU, "openvino") == "int8"
    for device, engine in ((CPU, "eager"), (CPU, "onnxruntime"), (torch.device("cuda"), "auto")):
        with pytest.raises(ValueError, match=f"not for engine {engine} on {device}; use engine"):
            resolve_precision("int8", device, engine)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is not None, reason="is installed")
def test_a_missing_openvino_is_named():
    with pytest.raises(EngineError, match="python3 -m pip install openvino"):
        resolve_engine("auto", CPU, "int8")


@pytest.mark.skipif(importlib.util.find_spec("nncf") is not None, reason="is installed")
def test_a_missing_nncf_is_named(model, photos):
    with pytest.raises(EngineError, match="quantize needs nncf.*: python3 -m pip install nncf"):
        quantize_model(model, photos)


def test_the_command_line_says_how_to_make_it(model, photos, tmp_path, capsys):
    pytest.importorskip("openvino")
    words = ["segment", str(photos), "--output", str(tmp_path / "out"), "--model", str(model)]
    with pytest.raises(SystemExit) as done:
        main([*words, "--precision", "int8"])
    assert done.value.code == 1
    assert "make it with panoptic quantize --model" in capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    """The network, not quantised, in the form in which int8 networks are read."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    from panoptic_ros.commands.export import export_model

    file = tmp_path_factory.mktemp("exported") / "network.xml"
    export_model(tiny_model, "openvino", file, "96x128")
    return QuantizedNetwork(file.read_bytes(), file.with_suffix(".bin").read_bytes())


def test_forward_is_what_the_file_computes(model, exported, photos):
    """Here not int8, so that eager PyTorch knows the result."""
    write_quantized(load_config(model / MODEL_FILE), SIZE, exported, {})
    segmenter = Segmenter.load(model, "cpu", "int8")
    assert (segmenter.precision, segmenter.engine) == ("int8", "openvino")
    eager = Segmenter.load(model, "cpu", engine="eager")
    image = cv2.imread(str(photos / "0.png"))
    for images in ([image], [image, image[:, ::-1].copy()]):
        for ours, theirs in zip(segmenter(images), eager(images), strict=True):
            assert np.mean(ours.semantic() == theirs.semantic()) > 0.8  # margins near zero


def test_a_network_of_another_size_is_refused(model, exported):
    write_quantized(load_config(model / MODEL_FILE), (64, 128), exported, {})
    with pytest.raises(EngineError, match=r"the int8 network has the outputs .*make it again"):
        Segmenter.load(model, "cpu", "int8", "64x128")


def test_a_network_with_other_outputs_is_refused(model, exported):
    renamed = QuantizedNetwork(exported.graph.replace(b'"features"', b'"other"'), exported.weights)
    write_quantized(load_config(model / MODEL_FILE), SIZE, renamed, {})
    with pytest.raises(EngineError, match=r"the int8 network has the outputs .*'other'"):
        Segmenter.load(model, "cpu", "int8")


@pytest.fixture(scope="module")
def quantized(tiny_model, photos, tmp_path_factory):
    """Folder of a model that NNCF has quantised."""
    for name in ("nncf", "openvino", "onnxscript"):
        pytest.importorskip(name)
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("quantized") / "tiny"))
    words = ["quantize", "--model", str(folder), "--images", str(photos), "--number", "4"]
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    return folder


def test_the_description_says_how_it_was_made(quantized):
    fields = yaml.safe_load((quantized / "int8" / "96x128.yaml").read_text())
    assert fields["images"] == 4
    assert fields["made_with"].keys() >= {"nncf", "openvino", "torch", "panoptic_ros"}


def test_quantised_outputs_are_near_those_of_forward(quantized, photos):
    config, network = load_model(quantized)
    source = EngineInput(network, CPU, "fp32", SIZE, quantized=read_quantized(config, SIZE))
    images = [torch.from_numpy(cv2.imread(str(photos / "5.png"))[..., ::-1].copy())]
    batch, _ = config.input.prepare(images, SIZE, SIZE)
    with torch.inference_mode():
        expected = network(batch)
    results = make_engine("openvino", source)(batch)
    assert list(results) == list(expected)
    for name, value in expected.items():
        error = (results[name] - value).abs().mean() / value.abs().mean()
        assert 1e-4 < error < 0.2, name  # neither the float network nor another one


def test_weights_of_convolutions_have_8_bits(quantized):
    openvino = import_openvino()

    graph = openvino.Core().read_model(quantized / "int8" / "96x128.xml")
    weights = [
        node.get_element_type().get_type_name()
        for node in graph.get_ops()
        if node.get_type_name() == "Constant" and len(node.shape) == 4 and node.shape[1] > 1
    ]
    assert len(weights) > 20 and set(weights) == {"i8"}


class TestQuantizeRefuses:
    """What NNCF never sees."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        for name in ("nncf", "openvino", "onnxscript"):
            pytest.importorskip(name)

    def test_a_folder_that_cannot_be_written(self, model, photos):
        (model / "int8").touch()
        with pytest.raises(ModelError, match=r"cannot make .*int8 .*give the path of the copy"):
            quantize_model(model, photos)

    def test_an_image_that_cannot_be_read(self, model, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"not an image")
        with pytest.raises(ValueError, match=r"broken\.png"):
            quantize_model(model, tmp_path)
        assert list((model / "int8").iterdir()) == []

    def test_numbers_below_one(self, model, photos):
        with pytest.raises(ValueError, match="number is 0; expected 1 or more"):
            quantize_model(model, photos, 0)
