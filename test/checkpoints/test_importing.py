"""What all formats share: reading files, checking tensors, writing model folders."""

from __future__ import annotations

import zipfile
from collections import OrderedDict

import pytest
import torch

from panoptic_ros.checkpoints import importing
from panoptic_ros.checkpoints.importing import (
    CheckpointError,
    import_checkpoint,
    misfits,
    read_state_dict,
)

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def save(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"model": STATE, "optimizer": {"state": {0: torch.zeros(2)}}, "iteration": 7},
        {"state_dict": STATE, "epoch": 3, "arch": "net"},
        {"model": {"state_dict": STATE}},
        {f"module.{key}": value for key, value in STATE.items()},
        {**STATE, "version": 2},
    ],
    ids=[
        "plain",
        "ordered",
        "detectron2",
        "epoch",
        "nested",
        "data parallel",
        "plain with number",
    ],
)
def test_the_state_dict_is_found(tmp_path, content):
    state = read_state_dict(save(tmp_path / "file.pth", content))
    assert set(state) == set(STATE)
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [([1, 2], "it is a list"), ({"epoch": 3}, "epoch"), (torch.ones(3), "it is a Tensor")],
)
def test_files_without_a_state_dict(tmp_path, content, reason):
    path = save(tmp_path / "file.pth", content)
    with pytest.raises(CheckpointError, match=f"file.pth holds no state dict.*{reason}"):
        read_state_dict(path)


def test_keys_that_are_no_names_are_left_out(tmp_path):
    assert set(read_state_dict(save(tmp_path / "file.pth", {**STATE, 3: torch.ones(1)}))) == set(
        STATE
    )


def test_a_state_dict_in_itself_is_none(tmp_path):
    content = {}
    content["model"] = content
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state_dict(save(tmp_path / "file.pth", content))


def test_a_compressed_file_is_refused(tmp_path):
    """PyTorch reads it, however much it unfolds to."""
    path = save(tmp_path / "plain.pth", {"a": torch.zeros(100_000)})
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pth").stat().st_size < 10_000
    assert torch.load(tmp_path / "bomb.pth", weights_only=True)["a"].numel() == 100_000
    with pytest.raises(CheckpointError, match=r"cannot read .*bomb\.pth.*unfold to"):
        read_state_dict(tmp_path / "bomb.pth")


class Evil:
    def __reduce__(self):
        return (open, ("/dev/null",))


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "pickle"])
def test_files_that_are_no_checkpoints(tmp_path, damage):
    path = save(
        tmp_path / "file.pth", {"model": STATE, "hook": Evil() if damage == "pickle" else 0}
    )
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[: len(data) // 2], "text": b"hello", "empty": b""}.get(damage, data)
    )
    with pytest.raises(CheckpointError, match=r"cannot read .*file\.pth"):
        read_state_dict(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file"):
        read_state_dict(tmp_path / "none.pth")


def test_misfits_are_named_and_batch_counters_are_free():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = dict(network.state_dict())
    assert misfits(state, network) == []
    del state["1.num_batches_tracked"]
    assert misfits(state, network) == []
    del state["1.weight"]
    state.update({"0.weight": torch.zeros(3, 2), "2.weight": torch.zeros(1)})
    assert misfits(state, network) == [
        "0.weight is (3, 2), expected (2, 3)",
        "2.weight is unknown",
        "1.weight is missing",
    ]


def test_unknown_format(tmp_path):
    with pytest.raises(CheckpointError, match="unknown format 'keras'.*realtime_panoptic"):
        import_checkpoint("keras", save(tmp_path / "file.pth", STATE), tmp_path / "model")


@pytest.mark.parametrize("format", [f for f in importing.FORMATS if f != "torchvision"])
def test_foreign_files_are_refused_by_every_format(tmp_path, format):
    path = save(tmp_path / "file.pth", STATE)
    with pytest.raises(CheckpointError, match=r"a\.weight is unknown; a\.bias is unknown; .*more"):
        import_checkpoint(format, path, tmp_path / "model")
    assert not (tmp_path / "model").exists()
