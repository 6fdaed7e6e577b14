"""What the headers of a bag declare, compared with its bytes before rosbags reads it."""

from __future__ import annotations

import io
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from panoptic_ros.files.unfolding import RATIO, check_unfolded, unfold_lz4, unfold_zstd

OVERLAPPING = 128 << 20  # bytes of the chunks of one moment, which rosbags holds together
DESCRIPTION = 512 << 10  # bytes of YAML; a topic has some 500, and each costs 7 microseconds

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _CHUNK, _CHUNK_INDEX = 2, 3, 4, 6, 8
_END = 37  # bytes of the footer and of the magic after it


class _Record(NamedTuple):
    """Kind of a record, where its contents are in the file, and their length."""

    kind: int
    at: int
    size: int


class Chunk(NamedTuple):
    """What a chunk declares: its times in nanoseconds, place and sizes in bytes."""

    start: int
    end: int
    at: int
    compressed: int
    unfolded: int


def check_description(size: int) -> None:
    """Raise ValueError if the YAML that describes the topics is too long to be read."""
    if size > DESCRIPTION:
        raise ValueError(f"{size} bytes of YAML describe its topics, more than {DESCRIPTION}")


def check_mcap(path: Path) -> None:
    """Read the record headers of an MCAP file that rosbags will read: index, or else data.

    Raises:
        ValueError: A record is longer than the file, or a chunk unfolds to too much.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        end = size - _END
        if end < len(_MAGIC):
            return  # rosbags says that it is none
        file.seek(end)
        kind, _, summary = struct.unpack("<BQQ", file.read(17))
        if kind != _FOOTER or not 0 <= summary <= end:
            return
        records = list(_records(file, summary, end)) if summary else []
        if not any(record.kind == _SCHEMA for record in records):  # rosbags reads the data, then
            records += _records(file, len(_MAGIC), summary or end)
            inside = [_channels(file, record) for record in records if record.kind == _CHUNK]
            check_description(sum(map(sum, inside)))
        check_description(sum(record.size for record in records if record.kind == _CHANNEL))
        for kind in (_CHUNK, _CHUNK_INDEX):
            check_chunks([_chunk(file, r) for r in records if r.kind == kind], size)


def _records(file: BinaryIO, start: int, end: int) -> Iterator[_Record]:
    at = start
    while at + 9 <= end:
        file.seek(at)
        kind, size = struct.unpack("<BQ", file.read(9))
        at += 9
        if at + size > end:
            raise ValueError(
                f"its record at byte {at - 9} declares {size} bytes, and {end - at} follow"
            )
        yield _Record(kind, at, size)
        at += size


def _chunk(file: BinaryIO, record: _Record) -> Chunk:
    file.seek(record.at)
    data = file.read(min(record.size, 1 << 20))
    try:
        if record.kind == _CHUNK:
            start, end, unfolded, _, name = struct.unpack_from("<QQQII", data)
            (compressed,) = struct.unpack_from("<Q", data, 32 + name)
            return Chunk(start, end, record.at, compressed, unfolded)
        start, end, at, _, offsets = struct.unpack_from("<QQQQI", data)
        (name,) = struct.unpack_from("<I", data, 44 + offsets)
        return Chunk(start, end, at, *struct.unpack_from("<QQ", data, 48 + offsets + name))
    except struct.error as error:
        raise ValueError(f"its chunk at byte {record.at} is damaged: {error}") from error


def check_chunks(chunks: Sequence[Chunk], size: int) -> None:
    """Look at what the chunks of a file of ``size`` bytes declare.

    Raises:
        ValueError: They do not lie in the file, or unfold to too much: one of them, or those of
            one moment together.
    """
    for chunk in chunks:
        if chunk.at + chunk.compressed > size:
            raise ValueError(
                f"its chunk at byte {chunk.at} declares {chunk.compressed} bytes of {size}"
            )
        check_unfolded(chunk.unfolded, chunk.compressed)
    if len({chunk.at for chunk in chunks}) < len(chunks):
        raise ValueError("its index has a chunk twice")
    borders = [(c.start, 1, c) for c in chunks] + [(max(c.start, c.end), -1, c) for c in chunks]
    unfolded = compressed = 0
    for _, sign, chunk in sorted(borders, key=lambda border: (border[0], -border[1])):
        unfolded += sign * chunk.unfolded
        compressed += sign * chunk.compressed
        if unfolded > max(OVERLAPPING, RATIO * compressed):
            raise ValueError(
                f"its chunks of one moment unfold to {unfolded} bytes, more than {OVERLAPPING} "
                f"and {RATIO} times theirs: write the bag anew, in the order of time"
            )


def _channels(file: BinaryIO, record: _Record) -> list[int]:
    """Return the sizes of the channels in a chunk; all of it is read anyway without an index."""
    chunk = _chunk(file, record)
    check_unfolded(chunk.unfolded, chunk.compressed)
    file.seek(record.at + 28)
    name = file.read(*struct.unpack("<I", file.read(4)))
    file.seek(8, io.SEEK_CUR)
    data = file.read(min(chunk.compressed, record.size))
    if unfold := {b"zstd": unfold_zstd, b"lz4": unfold_lz4}.get(name):
        data = unfold(data, chunk.unfolded)
    inside = _records(io.BytesIO(data), 0, len(data))
    return [inner.size for inner in inside if inner.kind == _CHANNEL]


def check_sqlite(path: Path) -> None:
    """Look at the tables of a .db3 file.

    A view or a computed column makes values of any size out of nothing.

    Raises:
        ValueError: It has such, or is no database.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as base:
            for name, kind in base.execute("SELECT name, type FROM pragma_table_list").fetchall():
                columns = base.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (name,))
                computed = [column for column, hidden in columns if hidden]
                if kind != "table" or computed:
                    raise ValueError(f"its {kind} {name} computes values: {computed or 'all'}")
            columns = base.execute("SELECT name FROM pragma_table_xinfo('topics')").fetchall()
            if ("offered_qos_profiles",) in columns:
                query = "SELECT total(length(CAST(offered_qos_profiles AS BLOB))) FROM topics"
                check_description(int(*base.execute(query).fetchone()))
    except sqlite3.Error as error:
        raise ValueError(f"it is no database that SQLite can read: {error}") from error
