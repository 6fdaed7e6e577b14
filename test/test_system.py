"""The processor, and files that are whole or as they were."""

from __future__ import annotations

import os
import platform

import pytest

from panoptic_ros.system import cpu_name, processor, usable_cores, whole_file, write_file


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


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"one")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]
