"""Bags that declare or unfold to far more than they are; each function writes one."""

from __future__ import annotations

import bz2
import sqlite3
import struct
from functools import cache
from pathlib import Path

import lz4.frame
from rosbags.typesys import Stores, get_typestore

from panoptic_ros.files.unfolding import ZSTD

IMAGE = "sensor_msgs/msg/Image"
MIB = 1 << 20
MAGIC = b"\x89MCAP0\r\n"


@cache
def zeros(compression: str, size: int) -> bytes:
    """Return ``size`` zeros, compressed."""
    make = {"zstd": ZSTD.ZstdCompressor, "bz2": bz2.BZ2Compressor, "lz4": None}[compression]
    if make is None:
        return lz4.frame.compress(bytes(size))
    compressor = make()
    parts = [compressor.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join(parts) + compressor.flush()


def text(value: str | bytes) -> bytes:
    """Return a text as MCAP writes it."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<I", len(data)) + data


def record(kind: int, data: bytes) -> bytes:
    """Return an MCAP record."""
    return struct.pack("<BQ", kind, len(data)) + data


def channel(qos: str = "") -> bytes:
    """Return the MCAP channel of a camera."""
    metadata = text("offered_qos_profiles") + text(qos) if qos else b""
    return record(4, struct.pack("<HH", 1, 1) + text("/camera") + text("cdr") + text(metadata))


def mcap(
    path: Path,
    chunks: list[tuple[int, bytes]],
    compression: str = "zstd",
    indexed: bool = True,
    copies: int = 1,
    qos: str = "",
    extra: bytes = b"",
) -> Path:
    """Write an MCAP file of chunks (bytes that it declares to unfold to, compressed ones)."""
    data, index = MAGIC + record(1, text("ros2") + text("")) + extra, b""
    for declared, compressed in chunks:
        at = len(data)
        sizes = struct.pack("<Q", len(compressed))
        head = struct.pack("<QQQI", 0, 9, declared, 0) + text(compression)
        data += record(6, head + sizes + compressed)
        place = struct.pack("<QQ", at, len(data) - at)
        messages = record(7, struct.pack("<HIQQ", 1, 16, 0, 0))
        offsets = struct.pack("<IHQQ", 10, 1, len(data), len(messages))
        data += messages
        sizes += struct.pack("<Q", declared)
        times = struct.pack("<QQ", 0, 9)
        index += record(8, times + place + offsets + text(compression) + sizes)
    summary = len(data) if indexed else 0
    if indexed:
        counts = struct.pack("<QHIIIIQQIHQ", 1, 1, 1, 0, 0, 1, 0, 9, 10, 1, 1)
        schema = record(3, struct.pack("<H", 1) + text(IMAGE) + text("ros2msg") + text("x"))
        data += schema + channel(qos) + copies * index + record(11, counts)
    path.write_bytes(data + record(2, struct.pack("<QQI", summary, 0, 0)) + MAGIC)
    return path


def database(path: Path, column: str = "data BLOB", value: bytes = b"") -> Path:
    """Write a .db3 file with one message."""
    base = sqlite3.connect(path)
    texts = ", ".join(f"{name} TEXT" for name in ("name", "type", "serialization_format"))
    base.execute(
        f"CREATE TABLE topics(id INTEGER PRIMARY KEY, {texts}, offered_qos_profiles TEXT)"
    )
    base.execute("INSERT INTO topics VALUES(1, '/camera', ?, 'cdr', '')", (IMAGE,))
    columns = f"id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, {column}"
    base.execute(f"CREATE TABLE messages({columns})")
    base.execute("INSERT INTO messages(topic_id, timestamp) VALUES(1, 1)")
    if value:
        base.execute("UPDATE messages SET data = ?", (value,))
    base.commit()
    base.close()
    return path


def folder(path: Path, mode: str, file: str, storage: str, extra: str = "") -> Path:
    """Write the metadata of a bag whose one file is in the folder."""
    fields = "name: /camera, serialization_format: cdr, offered_qos_profiles: ''"
    (path / "metadata.yaml").write_text(
        f"""rosbag2_bagfile_information:
  version: 5
  storage_identifier: {storage}
  duration: {{nanoseconds: 9}}
  starting_time: {{nanoseconds_since_epoch: 0}}
  message_count: 1
  topics_with_message_count:
    - {{topic_metadata: {{type: {IMAGE}, {fields}}}, message_count: 1}}
  compression_format: {"zstd" if mode else "''"}
  compression_mode: {mode or "''"}
  relative_file_paths: [{file}]
{extra}"""
    )
    return path


def ros1(path: Path, compression: str, declared: int, data: bytes) -> Path:
    """Write a .bag file of one chunk."""

    def header(**fields: bytes) -> bytes:
        parts = [f"{name}=".encode() + value for name, value in fields.items()]
        return text(b"".join(struct.pack("<I", len(part)) + part for part in parts))

    def number(value: int, kind: str = "<I") -> bytes:
        return struct.pack(kind, value)

    at = 13 + 4096
    chunk = header(op=b"\5", compression=compression.encode(), size=number(declared)) + text(data)
    chunk += header(op=b"\4", ver=number(1), conn=number(0), count=number(1))
    chunk += text(bytes(12))
    definition = get_typestore(Stores.ROS1_NOETIC).generate_msgdef(IMAGE)
    connection = header(
        topic=b"/camera",
        type=b"sensor_msgs/Image",
        md5sum=definition[1].encode(),
        message_definition=definition[0].encode(),
    )
    index = header(op=b"\7", conn=number(0), topic=b"/camera") + connection
    span = {"start_time": bytes(8), "end_time": bytes(8), "count": number(1)}
    index += header(op=b"\6", ver=number(1), chunk_pos=number(at, "<Q"), **span)
    index += text(struct.pack("<II", 0, 1))
    places = {"index_pos": number(at + len(chunk), "<Q"), "conn_count": number(1)}
    start = header(op=b"\3", **places, chunk_count=number(1))
    start += text(b" " * (4096 - len(start) - 4))
    path.write_bytes(b"#ROSBAG V2.0\n" + start + chunk + index)
    return path
