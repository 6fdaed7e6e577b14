"""Import of the dense detection checkpoint: old and new pyramid names, both class tables."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.checkpoints.importing import CheckpointError, import_checkpoint
from panoptic_ros.model_zoo import load_config, load_model
from panoptic_ros.networks.dense_detection.checkpoint import convert
from panoptic_ros.system import share_directory

from ..golden import official_keys


def official_state(classes=19, things=8):
    """A state dict with the official keys; every tensor is filled with its own number."""
    resized = {"cls_logits": classes, "box_cls_logits": things}
    state = {}
    for number, (key, shape) in enumerate(official_keys("dense_detection")):
        layer = key.split(".")[1]
        shape = (resized.get(layer, shape[0]), *shape[1:])
        state[key] = torch.full(shape, float(number))
    return state


def old_names(state):
    """The pyramid's names before torchvision 0.13."""
    return {
        key.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        if "fpn.inner_blocks" in key or "fpn.layer_blocks" in key
        else key: value
        for key, value in state.items()
    }


@pytest.mark.parametrize("rename", [dict, old_names], ids=["new names", "old names"])
def test_every_official_tensor_arrives(tmp_path, rename):
    state = rename(official_state())
    torch.save(state, tmp_path / "file.pth")
    folder = import_checkpoint("realtime_panoptic", tmp_path / "file.pth", tmp_path / "mine")
    config, network = load_model(folder)
    assert config.name == "mine"
    assert "file.pth" in config.card["description"]
    assert config.input.channel_order == "bgr"
    assert config.input.mean == (102.9801, 115.9465, 122.7717)
    arrived = sorted(value.flatten()[0].item() for value in network.state_dict().values())
    assert arrived == [float(number) for number in range(len(state))]
    assert (network.box_class.bias == list(state).index("panoptic_head.box_cls_logits.bias")).all()
    assert (network.semantic.bias == list(state).index("panoptic_head.cls_logits.bias")).all()


def test_old_and_new_names_mean_the_same():
    state = official_state()
    assert convert(old_names(state)).keys() == convert(state).keys()


def test_the_class_table_follows_from_the_shapes(tmp_path):
    torch.save(official_state(133, 80), tmp_path / "file.pth")
    folder = import_checkpoint("realtime_panoptic", tmp_path / "file.pth", tmp_path / "coco")
    config = load_config(folder / "model.yaml")
    assert len(config.categories) == 133
    assert config.settings["things_first"]


def test_a_checkpoint_of_other_classes_or_with_a_gap_is_refused(tmp_path):
    state = official_state(21, 8)
    torch.save(state, tmp_path / "classes.pth")
    with pytest.raises(CheckpointError, match=r"semantic.weight is \(21, 640, 3, 3\), expected"):
        import_checkpoint("realtime_panoptic", tmp_path / "classes.pth", tmp_path / "model")
    state = official_state()
    del state["panoptic_head.scales.3.scale"]
    torch.save(state, tmp_path / "gap.pth")
    with pytest.raises(CheckpointError, match=r"dense_detection_cityscapes.*scales.3 is missing"):
        import_checkpoint("realtime_panoptic", tmp_path / "gap.pth", tmp_path / "model")


def test_the_file_of_another_configuration(tmp_path):
    torch.save(official_state(), tmp_path / "file.pth")
    path = share_directory() / "config" / "networks" / "dense_detection_coco.yaml"
    for configuration in ("dense_detection_coco", str(path)):
        with pytest.raises(CheckpointError, match=r"box_class.weight is \(8, .*expected \(80"):
            import_checkpoint(
                "realtime_panoptic", tmp_path / "file.pth", tmp_path / "model", configuration
            )
