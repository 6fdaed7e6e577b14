"""Networks by name, and the sizes that they are measured at."""

import pytest
import torch

from panoptic_ros.benchmark.loading import (
    load_description,
    load_network,
    network_resolution,
)
from panoptic_ros.model_zoo import ModelError


def test_configurations_have_the_same_fresh_weights_every_time():
    _, first, is_random = load_network("panonet_cityscapes")
    _, second, _ = load_network("panonet_cityscapes")
    assert is_random and not first.training
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_models_have_their_weights(tiny_model):
    config, _, is_random = load_network(str(tiny_model))
    assert not is_random and config.name == load_description(str(tiny_model)).name


def test_what_is_not_there_is_refused():
    with pytest.raises(ModelError, match=r"Configurations, for random weights: .*epsnet_coco"):
        load_network("nobody")


@pytest.mark.parametrize(
    ("name", "resolution", "padded"),
    [("panonet_cityscapes", (500, 1000), (512, 1024)), ("epsnet_coco", (550, 550), (550, 550))],
)
def test_sizes(name, resolution, padded):
    """EPSNet stretches every image to 550x550, and needs no padding."""
    config, network, _ = load_network(name)
    assert network_resolution(config, (500, 1000)) == resolution
    assert network.padded_size(resolution) == padded
