"""The node as users start it, with a model folder and the real segmenter.

Its start takes seconds, so one node serves all tests; each leaves it active with the good model.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from sensor_msgs.msg import Image

from panoptic_ros.msg import PanopticCategoryArray, PanopticInstanceArray
from test.ros.peers import LATCHED, NodeProcess, Peer, image_message, pixels

ENGINE = "openvino" if find_spec("openvino") and find_spec("onnxscript") else "eager"
SCENE = np.random.default_rng(3).integers(0, 256, (90, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    """Folders of a good model, one with damaged weights, and one that is only a description."""
    root = tmp_path_factory.mktemp("models")
    folders = {name: shutil.copytree(tiny_model, root / name) for name in ("good", "bad", "bare")}
    (folders["bare"] / "weights.safetensors").unlink()
    with (folders["bad"] / "weights.safetensors").open("r+b") as weights:
        weights.seek(-100, 2)
        weights.write(bytes(range(100)))
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def expected(models):
    """What the segmenter makes of the scene. Its engine is compiled for the node, too."""
    from panoptic_ros.segmenter import Segmenter

    segmenter = Segmenter.load(models["good"], device="cpu", precision="fp32", engine=ENGINE)
    return segmenter(SCENE)


@pytest.fixture(scope="module")
def node(models, expected, tmp_path_factory):
    node = NodeProcess(
        tmp_path_factory.mktemp("log"),
        module="panoptic_ros.ros.node",
        parameters={
            "model": models["good"],
            "device": "cpu",
            "precision": "fp32",
            "engine": ENGINE,
        },
    )
    yield node
    assert node.stop() == 0


@pytest.fixture(scope="module")
def peer(node):
    peer = Peer()
    peer.wait_for_state("active")
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def camera(peer):
    peer.listen(Image, "labels")  # the node subscribes while somebody listens
    return peer.camera()


def test_log_tells_the_engine(node, peer):
    assert f"engine {ENGINE}, fp32, 96x128, batch 1 is ready" in node.log()
    assert f"in service: 96x128, cpu, fp32, engine {ENGINE}" in node.log()


def test_labels_are_those_of_the_segmenter(peer, camera, expected):
    labels = peer.listen(Image, "labels")
    instances = peer.listen(PanopticInstanceArray, "instances")
    tables = peer.listen(PanopticCategoryArray, "categories", LATCHED)
    for encoding, image in (("rgb8", SCENE), ("bgr8", SCENE[..., ::-1].copy())):
        labels.clear()
        instances.clear()
        message = image_message(image, encoding)
        peer.feed(camera, lambda _, m=message: m, lambda: labels and instances)
        np.testing.assert_array_equal(pixels(labels[0]), expected.labels, encoding)
        assert [(i.id, i.area) for i in instances[0].instances] == [
            (s.id, s.area) for s in expected.instances
        ]
    peer.spin_until(lambda: tables, "the class table")
    assert [c.name for c in tables[0].categories] == [c.name for c in expected.categories]


def test_what_a_glance_can_tell_is_refused_in_the_answer(peer, models):
    assert "no model 'nowhere'" in peer.set_parameters(model="nowhere")
    assert "weights.safetensors is missing" in peer.set_parameters(model=models["bare"])
    assert "cuda:99 asked for" in peer.set_parameters(device="cuda:99")
    assert "expected 32..8192" in peer.set_parameters(resolution="8x8")
    assert "int8 is for engine openvino" in peer.set_parameters(engine="eager", precision="int8")
    if ENGINE == "openvino":
        refusal = peer.set_parameters(engine="auto", precision="int8")
        assert f"panoptic quantize --model {models['good']} --resolution 96x128" in refusal
    assert peer.get_parameter("model") == models["good"]


def test_damaged_model_leaves_the_old_one_in_service(node, peer, camera, models):
    assert peer.set_parameters(model=models["bad"]) == ""
    peer.wait_for_diagnostics(lambda s: "sha256" in s["panoptic: model"]["last error"])
    assert "tiny stays in service" in node.log()
    assert peer.get_parameter("model") == models["good"]
    labels = peer.listen(Image, "labels")
    peer.feed(camera, lambda _: image_message(SCENE), lambda: labels)


def test_resolution_changes_at_run_time(peer, camera):
    labels = peer.listen(Image, "labels")
    for resolution, seen in (("64x96", "64x96"), ("", "96x128")):
        assert peer.set_parameters(resolution=resolution) == ""
        peer.wait_for_diagnostics(lambda s, r=seen: s["panoptic: model"]["resolution"] == r)
        labels.clear()
        peer.feed(camera, lambda _: image_message(SCENE), lambda: labels)
        assert pixels(labels[0]).shape == SCENE.shape[:2]


def test_missing_model_then_a_good_one(peer, models):
    assert peer.change_state("deactivate") and peer.change_state("cleanup")
    assert peer.set_parameters(model=models["bare"]) == ""  # not looked at before it is needed
    assert not peer.change_state("configure")
    peer.wait_for_diagnostics(
        lambda s: "weights.safetensors is missing" in s["panoptic: model"]["message"]
    )
    assert peer.state() == "unconfigured"
    assert peer.set_parameters(model=models["good"]) == ""
    assert peer.change_state("configure") and peer.change_state("activate")
    labels = peer.listen(Image, "labels")
    peer.feed(peer.camera(), lambda _: image_message(SCENE), lambda: labels)
