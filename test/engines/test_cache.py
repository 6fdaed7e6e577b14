"""Entries of the cache: kept, rebuilt when damaged, shared by processes."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
import threading

import pytest
import torch

from panoptic_ros.engines import cache, make_engine
from panoptic_ros.engines.base import EngineInput
from panoptic_ros.engines.cache import CACHE_VARIABLE, cached, engine_key
from panoptic_ros.engines.compiled import _compiled

from .two_maps import TwoMaps, make_network


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    """Builds text entries and counts how often."""

    def __init__(self, text: str = "compiled") -> None:
        self.text, self.count = text, 0

    def __call__(self) -> tuple[bytes, str]:
        self.count += 1
        return self.text.encode(), self.text

    def get(self, key: str = "key") -> str:
        return cached(key, self, lambda data: data.decode())


def test_an_entry_is_built_once(folder):
    builder = Builder()
    assert builder.get() == builder.get() == "compiled"
    assert builder.count == 1
    assert [path.name for path in folder.iterdir()] == ["key.engine"]
    assert builder.get("other") == "compiled" and builder.count == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_entry_is_built_again(folder, damage, caplog):
    builder = Builder()
    builder.get()
    file = folder / "key.engine"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes({"cut": content[:-2], "flip": content, "empty": b""}[damage])
    assert builder.get() == "compiled" and builder.count == 2
    assert "key.engine is damaged" in caplog.text
    assert builder.get() == "compiled" and builder.count == 2


def test_an_entry_that_does_not_load_is_built_again(folder, caplog):
    cached("key", lambda: (b"\xff", None), lambda data: None)
    builder = Builder()
    assert builder.get() == "compiled" and builder.count == 1  # not UTF-8
    assert "building it again" in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    builder = Builder()
    assert builder.get() == builder.get() == "compiled" and builder.count == 2
    assert "cannot write" in caplog.text


def test_key_tells_apart_what_matters():
    source = EngineInput(make_network(), torch.device("cpu"), "fp32", (24, 40), {"width": 8})
    other = make_network()
    other.head.bias[1] += 1e-3
    keys = {
        engine_key("openvino", source, 1, ["numpy"]),
        engine_key("onnxruntime", source, 1, ["numpy"]),
        engine_key("openvino", source, 2, ["numpy"]),
        engine_key("openvino", source, 1, ["numpy", "pyyaml"]),
        *(
            engine_key("openvino", dataclasses.replace(source, **change), 1, ["numpy"])
            for change in (
                {"network": other},
                {"network": make_network().bfloat16()},
                {"network": make_network(seed=1)},
                {"precision": "bf16"},
                {"size": (40, 24)},
                {"settings": {"width": 9}},
            )
        ),
    }
    assert len(keys) == 10
    same = dataclasses.replace(source, network=make_network())
    assert engine_key("openvino", same, 1, ["numpy"]) in keys


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_an_engine_from_the_cache_computes_the_same(folder, name, monkeypatch, caplog):
    pytest.importorskip(name)
    pytest.importorskip("onnxscript")
    caplog.set_level("INFO", "panoptic_ros.engines")
    images = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))

    def compute():
        network: TwoMaps = make_network()
        return make_engine(name, EngineInput(network, torch.device("cpu"), "fp32", (24, 40)))(
            images
        )

    first = compute()
    assert "loaded from" not in caplog.text
    second = compute()
    assert "loaded from" in caplog.text
    (file,) = folder.glob("*.engine")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    third = compute()
    assert "is damaged; building it again" in caplog.text
    for again in (second, third):
        torch.testing.assert_close(again, first, rtol=0, atol=0)


WRITER = """
import logging, os, sys
from panoptic_ros.engines.cache import cached

logging.basicConfig(level=logging.WARNING)
for number in range(100):
    text = f"{os.getpid()} {number} ".encode() * 5000
    if number % 2:  # another process's whole entry, or this one's
        data = cached("shared", lambda: (text, text), lambda data: data)
        assert len(set(data.split(b" "))) == 3, "mixed"
    else:  # a reader that always refuses, and so replaces the entry
        cached("shared", lambda: (text, text), lambda data: int("refused"))
"""


def test_two_processes_at_once_see_whole_entries(folder):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
        assert "damaged" not in errors
        assert "'refused'" in errors  # entries were replaced while the other one read
    assert [path.name for path in folder.iterdir()] == ["shared.engine"]


def test_a_folder_that_others_may_write_to_is_not_used(folder, caplog):
    builder = Builder()
    builder.get()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    assert builder.get() == "compiled" and builder.count == 2
    assert "is not used" in caplog.text
    folder.chmod(0o755)
    assert builder.get() == "compiled" and builder.count == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(folder):
    builder = Builder()
    builder.get()
    os.chown(folder, 12345, -1)
    assert builder.get() == "compiled" and builder.count == 2


def test_a_full_or_read_only_disk_costs_no_engine(folder, monkeypatch, caplog):
    def fail(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "write_file", fail)
    assert Builder().get() == "compiled"
    assert "No space left on device" in caplog.text


@pytest.fixture
def inductor(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    return lambda: (_compiled(abs), os.environ.get("TORCHINDUCTOR_CACHE_DIR"))[1]


def test_inductor_makes_the_folder_for_this_user_alone(folder, inductor):
    before = os.umask(0o002)
    try:
        assert inductor() == str(folder / "inductor")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_inductor_shares_no_folder_with_others(folder, inductor, caplog):
    folder.mkdir()
    folder.chmod(0o777)
    assert not inductor().startswith(str(folder))
    assert "others may write to it" in caplog.text


def test_more_sizes_than_the_compiler_allows_by_itself(folder):
    """Also in another thread than that which made it: CUDA graphs are made in the background."""
    double = _compiled(lambda x: 2 * x.sum(), backend="eager", fullgraph=True)
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(double(torch.ones(n)).item() for n in range(20))
    )
    thread.start()
    thread.join()
    assert found == [2 * n for n in range(20)]
