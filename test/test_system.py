"""The processor, and files that are whole or as they were."""

from __future__ import annotations

import os
import platform
import time

import pytest

from panoptic_ros.system import (
    ABANDONED,
    cpu_name,
    processor,
    usable_cores,
    whole_file,
    write_file,
)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other machines name it otherwise")
def test_the_processor_is_named():
    assert processor()["model name"] in cpu_name()
    assert 1 <= usable_cores() <= os.cpu_count()


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_has_left_goes_after_a_while(tmp_path):
    for name, age in (("old", 2 * ABANDONED), ("new", 0)):
        folder = tmp_path / f".file.{name}"
        folder.mkdir()
        (folder / "file").write_bytes(b"half")
        os.utime(folder, (time.time() - age,) * 2)
    write_file(tmp_path / "file", b"whole")
    assert sorted(os.listdir(tmp_path)) == [".file.new", "file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"one")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]
