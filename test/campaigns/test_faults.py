"""A few kills of each kind, and disks that are full or read-only."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from campaigns.faults import as_nobody, check_full_disk, check_permission_denied, on_small_disk
from campaigns.kills import kill_at_every_step, kill_trainings, kill_writers


def test_a_killed_writer_leaves_whole_files():
    assert kill_writers("model", 1, random.Random(1)) == 1


def test_a_model_folder_is_whole_at_every_step_of_a_save(tmp_path):
    assert kill_at_every_step(tmp_path / "model") > 6  # two files, renamed, and one removed


def test_a_killed_training_has_every_step_once():
    assert kill_trainings(1, random.Random(2), iterations=12) == 1


@pytest.mark.parametrize("read_only", [False, True])
def test_a_disk_that_takes_nothing(read_only, monkeypatch):
    monkeypatch.setenv("PANOPTIC_ROS_CACHE_DIR", "")
    if not on_small_disk(1 << 20, read_only, check_full_disk):
        pytest.skip("only root can mount a small disk")


def test_permission_denied(tmp_path, monkeypatch):
    monkeypatch.setenv("PANOPTIC_ROS_CACHE_DIR", "")
    with tempfile.TemporaryDirectory() as text:  # pytest's folders are for its user alone
        Path(text).chmod(0o755)
        assert check_permission_denied(Path(text))
        assert not as_nobody(lambda: (Path(text) / "file").write_bytes(b""))
