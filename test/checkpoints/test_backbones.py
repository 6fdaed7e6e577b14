"""ImageNet classifiers as a training start."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18, resnet50

from panoptic_ros.checkpoints import backbones
from panoptic_ros.checkpoints.importing import (
    CheckpointError,
    _candidates,
    _fitting_config,
    import_checkpoint,
)
from panoptic_ros.model_zoo import load_config, load_model
from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.networks.layers.efficientnet_lite import EFFICIENTNETS
from panoptic_ros.networks.layers.resnet import RESNETS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    classifier = resnet50().eval()
    for buffer in classifier.buffers():
        buffer.copy_(torch.rand_like(buffer.float()) + 0.5)
    path = tmp_path_factory.mktemp("imagenet") / "resnet50.pth"
    torch.save(classifier.state_dict(), path)
    return path, classifier


def features(classifier, images):
    x = classifier.maxpool(classifier.relu(classifier.bn1(classifier.conv1(images))))
    return classifier.layer4(classifier.layer3(classifier.layer2(classifier.layer1(x))))


def test_the_trunk_computes_what_the_classifier_does(checkpoint, tmp_path):
    path, classifier = checkpoint
    folder = import_checkpoint(
        "torchvision", path, tmp_path / "start", "dense_detection_cityscapes"
    )
    config, network = load_model(folder)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network.backbone(images)[3], features(classifier, images))
    assert config.input.channel_order == "rgb"
    assert config.input.resolution == (1024, 2048)
    assert config.input.mean == (123.675, 116.28, 103.53)


def test_other_configurations_and_the_default(checkpoint, tmp_path):
    folder = import_checkpoint("torchvision", checkpoint[0], tmp_path / "start")
    assert load_config(folder / "model.yaml").network == "dense_detection"
    folder = import_checkpoint(
        "torchvision", checkpoint[0], tmp_path / "start", "fpsnet_cityscapes"
    )
    config = load_config(folder / "model.yaml")
    assert config.network == "fpsnet"
    assert "start for training" in config.card["description"]


def test_another_resnet_is_refused(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=r"layer1.0.conv1.weight is \(64, 64, 3, 3\)"):
        import_checkpoint(
            "torchvision", tmp_path / "resnet18.pth", tmp_path / "start", "dense_detection_coco"
        )


@pytest.mark.parametrize("name", [*RESNETS, *EFFICIENTNETS])
def test_every_trunk_finds_its_configuration(name):
    """By the shapes alone: what convert makes of a classifier is the trunk's own state dict."""
    with torch.device("meta"):
        state = build_backbone(name).state_dict()
    configs = _candidates(backbones, "")
    config = _fitting_config(backbones, configs, state, "file.pth")
    assert config.settings["backbone"] == name
