"""The ResNet trunks against torchvision's and the published parameter counts."""

from __future__ import annotations

import pytest
import torch
import torchvision

from panoptic_ros.networks.layers.resnet import ResNet


@pytest.mark.parametrize(
    ("name", "norm", "parameters"),
    [
        ("resnet50", "frozen", 23_454_912),
        ("resnet50", "batch", 23_508_032),
        ("resnet101", "batch", 42_500_160),
    ],
)
def test_parameter_counts(name, norm, parameters):
    with torch.device("meta"):
        trunk = ResNet(name, norm)
    assert sum(p.numel() for p in trunk.parameters()) == parameters


def test_resnet50_computes_what_torchvision_computes():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    ours = ResNet("resnet50").eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        c5 = theirs.layer4(
            theirs.layer3(
                theirs.layer2(
                    theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image)))))
                )
            )
        )
        maps = ours(image)
    torch.testing.assert_close(maps[-1], c5)
    assert [m.shape[1] for m in maps] == ours.channels == [256, 512, 1024, 2048]
    assert [m.shape[-1] for m in maps] == [24, 12, 6, 3]


def test_stride_may_be_in_the_first_1x1():
    plain, caffe = ResNet("resnet50"), ResNet("resnet50", stride_in_1x1=True)
    for trunk, strides in ((plain, (1, 2)), (caffe, (2, 1))):
        for stage in (trunk.layer2, trunk.layer3, trunk.layer4):
            assert (stage[0].conv1.stride[0], stage[0].conv2.stride[0]) == strides
    assert plain.layer1[0].conv2.stride == caffe.layer1[0].conv2.stride == (1, 1)


@pytest.mark.parametrize("arguments", [{"name": "resnet51"}, {"norm": "layer"}])
def test_unknown_names_are_refused(arguments):
    with pytest.raises(ValueError, match="there are"):
        ResNet(**arguments)
