"""Bags whose declared sizes are not believed: each hostile one in a process of its own."""

import subprocess
import sys

import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from panoptic_ros.files.bag import BagError, ImageBag
from panoptic_ros.files.bag_limits import OVERLAPPING, Chunk, check_chunks
from panoptic_ros.files.unfolding import (
    CHUNK,
    RATIO,
    ZSTD,
    unfold_bz2,
    unfold_lz4,
    unfold_zstd,
)
from test.files.hostile_bags import (
    MIB,
    channel,
    database,
    folder,
    mcap,
    record,
    ros1,
    zeros,
)
from test.files.test_bag import IMAGE, image_message

GIB = 1 << 30
HOSTILE = """
import sys
from pathlib import Path
from panoptic_ros.files.bag import BagError, ImageBag
def most():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
before = most()
try:
    with ImageBag(Path(sys.argv[1])) as bag:
        print(sum(1 for _ in bag.frames()), "images")
except BagError as error:
    print(str(error).replace(chr(10), " "))
print(most() - before)
"""


def twice_compressed(path):
    bag = mcap(path / "inner.mcap", [(MIB, zeros("zstd", GIB))])
    (path / "a.mcap.zstd").write_bytes(ZSTD.compress(bag.read_bytes()))
    bag.unlink()
    return folder(path, "file", "a.mcap.zstd", "mcap")


def large_file(path):
    (path / "a.mcap.zstd").write_bytes(zeros("zstd", 64 * MIB))
    return folder(path, "file", "a.mcap.zstd", "mcap")


def large_message(path):
    database(path / "a.db3", value=zeros("zstd", GIB))
    return folder(path, "message", "a.db3", "sqlite3")


def long_description(path):
    mcap(path / "a.mcap", [])
    pairs = ", ".join(f"a{i}: b" for i in range(60_000))
    return folder(path, "", "a.mcap", "mcap", f"  custom_data: {{{pairs}}}\n")


def long_channel_in_a_chunk(path):
    data = channel(qos="- {}\n" * 200_000)
    return mcap(path / "a.mcap", [(len(data), ZSTD.compress(data))], indexed=False)


BAGS = {
    "chunk that says so": (
        lambda path: mcap(path / "a.mcap", [(GIB, zeros("zstd", GIB))]),
        "unfolds to 1073741824",
    ),
    "chunk that does not": (
        lambda path: mcap(path / "a.mcap", [(MIB, zeros("zstd", GIB))]),
        "declares 1048576 bytes, but unfolds to more",
    ),
    "chunk without index": (
        lambda path: mcap(path / "a.mcap", [(MIB, zeros("zstd", GIB))], indexed=False),
        "declares 1048576 bytes, but unfolds to more",
    ),
    "lz4": (
        lambda path: mcap(path / "a.mcap", [(MIB, zeros("lz4", GIB))], "lz4"),
        "declares 1048576 bytes, but unfolds to more",
    ),
    "chunks of one moment": (
        lambda path: mcap(path / "a.mcap", [(20 * MIB, zeros("zstd", 20 * MIB))] * 40),
        "chunks of one moment",
    ),
    "chunk twice": (
        lambda path: mcap(path / "a.mcap", [(20 * MIB, zeros("zstd", 20 * MIB))], copies=99),
        "a chunk twice",
    ),
    "record of 3 GiB": (
        lambda path: mcap(
            path / "a.mcap", [], indexed=False, extra=record(5, b"")[:1] + b"\xff" * 8
        ),
        "declares 18446744073709551615 bytes",
    ),
    "long QoS": (
        lambda path: mcap(path / "a.mcap", [], qos="- {}\n" * 200_000),
        "of YAML",
    ),
    "long QoS in a chunk": (long_channel_in_a_chunk, "of YAML"),
    "long metadata": (long_description, "of YAML"),
    "computed column": (
        lambda path: database(
            path / "a.db3", "data BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL"
        ),
        r"messages computes values: \['data'\]",
    ),
    "compressed message": (large_message, "unfolds to"),
    "compressed file of a bomb": (twice_compressed, "declares 1048576 bytes, but unfolds to more"),
    "ROS 1, bz2": (
        lambda path: ros1(path / "a.bag", "bz2", MIB, zeros("bz2", GIB)),
        "declares 1048576 bytes, but unfolds to more",
    ),
    "ROS 1, lz4": (
        lambda path: ros1(path / "a.bag", "lz4", MIB, zeros("lz4", GIB)),
        "declares 1048576 bytes, but unfolds to more",
    ),
}


@pytest.mark.parametrize("name", BAGS)
def test_a_hostile_bag_costs_next_to_nothing(name, tmp_path):
    make, why = BAGS[name]
    bag = make(tmp_path)
    with pytest.raises(BagError, match=why), ImageBag(bag) as images:
        list(images.frames())
    run = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(bag)], capture_output=True, check=True, text=True
    )
    reason, kib = run.stdout.splitlines()
    assert "bag" in reason
    assert int(kib) < 200_000  # 4 GB without the limits


def test_a_file_does_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("panoptic_ros.files.unfolding.FILE", MIB)
    with pytest.raises(BagError, match="unfolds to .*: more than 1048576"):
        ImageBag(large_file(tmp_path))


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_honest_compressed_bags_are_read(tmp_path, storage, mode):
    write(tmp_path / "bag", storage, mode)
    with ImageBag(tmp_path / "bag") as bag:
        assert [frame.stamp for frame in bag.frames()] == [1, 2, 3]


def test_an_honest_compressed_chunk_is_read(tmp_path):
    write(tmp_path / "bag", StoragePlugin.MCAP, CompressionMode.STORAGE)
    with ImageBag(tmp_path / "bag" / "bag.mcap") as bag:
        assert [frame.stamp for frame in bag.frames()] == [1, 2, 3]


def write(path, storage, mode):
    store = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/camera", IMAGE, typestore=store)
        for stamp in (1, 2, 3):
            data = store.serialize_cdr(image_message(store, stamp), IMAGE)
            writer.write(connection, stamp, data)


def test_a_black_image_may_unfold_from_nothing():
    assert unfold_zstd(zeros("zstd", 24 * MIB), 24 * MIB) == bytes(24 * MIB)
    assert unfold_lz4(zeros("lz4", 24 * MIB)) == bytes(24 * MIB)
    assert unfold_bz2(zeros("bz2", 24 * MIB)) == bytes(24 * MIB)
    assert unfold_zstd(ZSTD.compress(b"ab") + ZSTD.compress(b"c")) == b"abc"


def test_many_empty_frames_are_refused():
    """Each costs a copy of all that is behind it."""
    assert unfold_zstd(ZSTD.compress(b"") * 999 + ZSTD.compress(b"a")) == b"a"
    with pytest.raises(ValueError, match="more than 1000 zstd frames"):
        unfold_zstd(ZSTD.compress(b"") * 1001)


def test_truncated_chunks_are_refused():
    for unfold, data in ((unfold_zstd, zeros("zstd", MIB)), (unfold_lz4, zeros("lz4", MIB))):
        with pytest.raises(ValueError, match="truncated"):
            unfold(data[:-3])
    with pytest.raises(ValueError, match="truncated"):
        unfold_zstd(b"")


def test_chunks_that_follow_each_other_are_not_added_up():
    size = OVERLAPPING * 3 // 16
    chunks = [Chunk(i, i + 1, 1000 * i, 1000, size) for i in range(20)]
    check_chunks(chunks, 20_000)  # each end is the start of the next: two at a time
    with pytest.raises(ValueError, match="one moment"):
        check_chunks([chunk._replace(end=5) for chunk in chunks], 20_000)
    with pytest.raises(ValueError, match="declares 1000 bytes of 19999"):
        check_chunks(chunks, 19_999)
    with pytest.raises(ValueError, match="unfolds to"):
        check_chunks([Chunk(0, 1, 0, 1000, CHUNK + 1)], 20_000)
    large = CHUNK // RATIO + 1
    check_chunks([Chunk(0, 1, 0, large, RATIO * large)], large)
