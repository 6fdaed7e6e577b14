import pickle

import pytest
import torch

from panoptic_ros.training.checkpoint import load_checkpoint, save_checkpoint


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was executed')",))


def test_saved_state_comes_back(tmp_path):
    state = {"step": 3, "weights": {"a": torch.arange(4)}, "ema": None, "scores": {"pq": 0.5}}
    save_checkpoint(tmp_path / "c.pt", state)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(loaded["weights"].pop("a"), torch.arange(4))
    assert loaded == {"step": 3, "weights": {}, "ema": None, "scores": {"pq": 0.5}}
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1})

    def break_off(state, file):
        file.write_bytes(b"half a checkpoint")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(torch, "save", break_off)
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    save_checkpoint(path, {"step": 3})  # over the damaged temporary file
    assert load_checkpoint(path) == {"step": 3}


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"step": Bomb()}, 2)])
def test_other_files_are_refused_and_not_executed(tmp_path, content):
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pt is not a file of tensors that can be read"):
        load_checkpoint(path)
