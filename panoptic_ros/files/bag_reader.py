"""Bags through rosbags, whose declared sizes are checked first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, TopicInfo
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag1.reader import Chunk, Header
from rosbags.rosbag2.reader import DirectoryReader, Reader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.typesys import Stores, get_typestore

from panoptic_ros.files.bag_limits import check_description, check_mcap, check_sqlite
from panoptic_ros.files.unfolding import check_unfolded, unfold_bz2, unfold_lz4


class _Mcap(McapReader):
    def open(self) -> None:
        check_mcap(self.path)
        super().open()


class _Sqlite3(Sqlite3Reader):
    def open(self) -> None:
        check_sqlite(self.path)
        super().open()


class _Directory(DirectoryReader):
    STORAGE_PLUGINS = {"mcap": _Mcap, "sqlite3": _Sqlite3}  # noqa: RUF012

    def open(self) -> None:
        check_description((self.path / "metadata.yaml").stat().st_size)
        super().open()


class _Reader2(Reader):
    STORAGE_PLUGINS = {"dir": _Directory, ".mcap": _Mcap, ".db3": _Sqlite3}  # noqa: RUF012


class _Reader1(Reader1):
    def read_chunk(self) -> Chunk:
        """Have the chunk unfold to what its header declares, which rosbags passes over."""
        at = self.bio.tell()
        header = Header.read(self.bio)
        self.bio.seek(at)
        chunk = super().read_chunk()
        unfold = {"bz2": unfold_bz2, "lz4": unfold_lz4}.get(header.get_string("compression"))
        if not unfold:
            return chunk
        declared = header.get_uint32("size")
        check_unfolded(declared, chunk.datasize)
        return chunk._replace(decompressor=partial(unfold, declared=declared))


class BagReader:
    """A bag that is open: of ROS 2 (folder, .mcap, .db3) or of ROS 1 (.bag).

    Messages are read with the definitions of ROS 2 Humble and ROS 1 Noetic; those that a bag
    brings are not parsed, which costs seconds for each megabyte.

    Args:
        path: Of the bag.

    Attributes:
        topics: By name.
        connections: One or more for each topic.

    Raises:
        ValueError: What it declares is too large for what there is of it.
        Exception: Of many types, for a bag that rosbags cannot read.
    """

    def __init__(self, path: Path) -> None:
        self._is_ros1 = path.suffix == ".bag"
        self._reader: Any = _Reader1(path) if self._is_ros1 else _Reader2(path)
        self._types = get_typestore(Stores.ROS1_NOETIC if self._is_ros1 else Stores.ROS2_HUMBLE)
        self._reader.open()
        self.connections: list[Connection] = list(self._reader.connections)
        self.topics: Mapping[str, TopicInfo] = self._reader.topics

    @property
    def start_time(self) -> int:
        """Time of the first message, in nanoseconds."""
        return self._reader.start_time

    @property
    def end_time(self) -> int:
        """Time after the last message, in nanoseconds."""
        return self._reader.end_time

    @property
    def duration(self) -> int:
        """Between both."""
        return self._reader.duration

    def messages(
        self,
        connections: Collection[Connection] = (),
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield (connection, time, data) of all messages of some connections, or of all."""
        yield from self._reader.messages(connections, start, stop)

    def deserialize(self, data: bytes, kind: str) -> Any:
        """Return a message of a type of ROS."""
        read = self._types.deserialize_ros1 if self._is_ros1 else self._types.deserialize_cdr
        return read(data, kind)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
