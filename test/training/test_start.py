import pytest
import torch
import torchvision
from torch import nn

from panoptic_ros.networks.layers.resnet import ResNet
from panoptic_ros.training.fields import RecipeError
from panoptic_ros.training.recipe import load_recipe
from panoptic_ros.training.start import load_backbone, model_config, start_from, start_network


def two_branches(channels):
    return nn.ModuleDict(
        {"semantic": nn.Conv2d(channels, 4, 3), "instance": nn.Conv2d(channels, 4, 3)}
    )


def test_start_copies_one_branch_into_the_other():
    old, new = two_branches(3), two_branches(3)
    start_from(new, old.state_dict(), copy={"instance": "semantic"})
    assert torch.equal(new["instance"].weight, old["semantic"].weight)
    assert torch.equal(new["semantic"].bias, old["semantic"].bias)


def test_added_input_channels_keep_the_function():
    old, new = two_branches(3), two_branches(5)
    start_from(new, old.state_dict())
    images = torch.randn(1, 3, 8, 8)
    with_coordinates = torch.cat((images, torch.randn(1, 2, 8, 8)), dim=1)
    torch.testing.assert_close(
        new["instance"](with_coordinates), old["instance"](images), rtol=1e-5, atol=1e-5
    )


def test_fresh_parameters_keep_their_values():
    old, new = two_branches(3), two_branches(3)
    before = new["instance"].weight.clone()
    start_from(new, old.state_dict(), fresh=["instance"])
    assert torch.equal(new["instance"].weight, before)
    assert torch.equal(new["semantic"].weight, old["semantic"].weight)


def test_start_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"semantic\.weight has the shape \(4, 3, 3, 3\)"):
        start_from(two_branches(3), two_branches(5).state_dict())
    with pytest.raises(ValueError, match="have no other.weight"):
        start_from(two_branches(3), two_branches(3).state_dict(), copy={"instance": "other"})
    with pytest.raises(ValueError, match="'stuff' names nothing in ModuleDict"):
        start_from(two_branches(3), two_branches(3).state_dict(), fresh=["stuff"])


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_backbone_takes_the_weights_of_torchvision(tmp_path, norm):
    classifier = torchvision.models.resnet18(num_classes=5).eval()
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    network = nn.ModuleDict({"backbone": ResNet("resnet18", norm)}).eval()
    load_backbone(network, tmp_path / "resnet18.pth")
    images = torch.randn(1, 3, 64, 64)
    pooled = network["backbone"](images)[-1].mean((2, 3))
    torch.testing.assert_close(classifier.fc(pooled), classifier(images), rtol=1e-4, atol=1e-4)


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=5).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"resnet18\.pth does not fit the backbone"):
        load_backbone(nn.ModuleDict({"backbone": ResNet("resnet50")}), tmp_path / "resnet18.pth")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "fc.pth")
    with pytest.raises(ValueError, match=r"fc\.pth does not fit the backbone: .* is missing"):
        load_backbone(nn.ModuleDict({"backbone": ResNet("resnet18")}), tmp_path / "fc.pth")


def test_class_weights_are_by_name(recipe):
    (stage,) = load_recipe(recipe | {"class_weights": {"car": 3.0}}).stages
    config = model_config(stage)
    weights = start_network(config, stage, None).class_weights
    assert weights[2] == 3 and weights.sum() == len(weights) + 2
    (stage,) = load_recipe(recipe | {"class_weights": {"lorry": 3.0}}).stages
    with pytest.raises(RecipeError, match="'lorry': 3.0; expected .* of one of ground, car"):
        start_network(config, stage, None)
