"""Camera messages, image files and bags as fuzz targets."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from campaigns.mutation import NUMBERS, mutate_bytes
from campaigns.targets import Target
from panoptic_ros.files.bag import IMAGE as TYPE
from panoptic_ros.files.bag import BagError, ImageBag
from panoptic_ros.files.camera_messages import ENCODINGS, ImageError, image_and_size
from panoptic_ros.files.sources import open_source

HEIGHT, WIDTH = 12, 16
IMAGE = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
FORMATS = ("jpeg", "png", "rgb8; jpeg compressed bgr8", "mono8; png compressed", "")
JPEG_TOKENS = [bytes((0xFF, marker)) for marker in range(0xC0, 0x100)]
BAG_TOKENS = [b"SQLite format 3\0", b"#ROSBAG V2.0\n", b"compression=lz4", b"zstd", b"chunk_pos="]
PNG_TOKENS = [b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"iCCP", b"eXIf"]


def encoded(suffix: str, *flags: int) -> bytes:
    """Return the example image in a file format."""
    return cv2.imencode(suffix, IMAGE, flags)[1].tobytes()


def pack(fields: dict, data: bytes) -> bytes:
    """Put a message into bytes: its fields as a line of JSON, then its data."""
    return json.dumps(fields).encode() + b"\n" + data


def unpack(data: bytes) -> SimpleNamespace | None:
    """Return the message; None for bytes that are none."""
    head, _, body = data.partition(b"\n")
    try:
        fields = json.loads(head)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    if isinstance(fields.get("format"), str):
        return SimpleNamespace(format=fields["format"], data=body)
    sizes = [fields.get(name) for name in ("height", "width", "step", "is_bigendian")]
    if not all(type(size) is int and 0 <= size < 2**32 for size in sizes):
        return None  # the message types of ROS hold no such value
    if not isinstance(fields.get("encoding"), str):
        return None
    names = ("height", "width", "step", "is_bigendian")
    rest = dict(zip(names, sizes, strict=True))
    return SimpleNamespace(encoding=fields["encoding"], data=body, **rest)


def message_examples() -> list[bytes]:
    """Return a good message of every encoding and format."""
    examples = []
    for encoding in ENCODINGS:
        channels = {"rgba": 4, "bgra": 4, "mono": 1, "baye": 1, "uyvy": 2, "yuv4": 2, "yuyv": 2}
        pixel = channels.get(encoding[:4], 3)
        if encoding.startswith("8UC"):
            pixel = int(encoding[3])
        if encoding in ("nv12", "nv21"):
            pixel = 1
        step = WIDTH * pixel * (2 if encoding.endswith("16") else 1)
        rows = HEIGHT * 3 // 2 if encoding in ("nv12", "nv21") else HEIGHT
        fields = {"encoding": encoding, "height": HEIGHT, "width": WIDTH, "step": step}
        examples.append(pack({**fields, "is_bigendian": 0}, bytes(rows * step)))
    images = [
        encoded(".jpg"),
        encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
        encoded(".png"),
        cv2.imencode(".png", IMAGE.astype(np.uint16) * 257)[1].tobytes(),
        cv2.imencode(".png", np.dstack([IMAGE, IMAGE[..., 0]]))[1].tobytes(),
        cv2.imencode(".png", IMAGE[..., 0], (cv2.IMWRITE_PNG_BILEVEL, 1))[1].tobytes(),
    ]
    kinds = ["png" if image.startswith(b"\x89PNG") else "jpeg" for image in images]
    pairs = zip(kinds, images, strict=True)
    return examples + [pack({"format": kind}, image) for kind, image in pairs]


def random_message(rng: random.Random, examples: list[bytes]) -> bytes:
    """Change a field of a message, or its data."""
    head, _, body = rng.choice(examples).partition(b"\n")
    fields = json.loads(head)
    if rng.random() < 0.5 or "format" in fields:
        body = mutate_bytes(rng, body, JPEG_TOKENS + PNG_TOKENS)
    if "format" in fields:
        if rng.random() < 0.2:
            fields["format"] = rng.choice((*FORMATS, "16UC1; compressedDepth", "bayer_rggb8; png"))
    elif rng.random() < 0.8:
        name = rng.choice(list(fields))
        size = rng.choice((*(abs(n) % 2**32 for n in NUMBERS), rng.randrange(64)))
        fields[name] = rng.choice((*ENCODINGS, "", "rgb", "\0")) if name == "encoding" else size
    return pack(fields, body)


def messages() -> Target:
    """Messages through the conversion of the node."""
    examples = message_examples()

    def use(data: bytes) -> None:
        message = unpack(data)
        if message is None:
            raise ImageError("no message")
        image, size = image_and_size(message, lambda size: size)
        assert image.dtype == np.uint8 and image.shape == (*size, 3), (image.dtype, image.shape)
        image.sum()  # every byte of the view must be there

    return Target(
        "messages",
        examples,
        use,
        (ImageError,),
        generate=lambda rng: random_message(rng, examples),
    )


def pictures(folder: Path) -> Target:
    """Files given to ``panoptic segment``; the first byte chooses the ending of the name."""
    endings = (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm", ".avi", ".mp4")
    examples = [bytes((i,)) + encoded(ending) for i, ending in enumerate(endings[:6])]
    video = folder / "example.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 5, (WIDTH, HEIGHT))
    for _ in range(2):
        writer.write(IMAGE)
    writer.release()
    if video.exists() and video.stat().st_size > 100:
        examples.append(b"\x06" + video.read_bytes())

    def use(data: bytes) -> None:
        ending = endings[(data[0] if data else 0) % len(endings)]
        path = folder / f"input{ending}"
        path.write_bytes(data[1:])
        for frame in open_source(path).frames:
            image = frame.load()
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3

    return Target("pictures", examples, use, (ValueError, OSError), tokens=PNG_TOKENS)


def bags(folder: Path) -> Target:
    """Bags in one MCAP file, one of them with compressed chunks."""
    return _bags(
        "bags", folder, ".mcap", [_bag2(folder / "plain", None), _bag2(folder / "zstd", "zstd")]
    )


def db3(folder: Path) -> Target:
    """Bags in one SQLite file."""
    return _bags("db3", folder, ".db3", [_bag2(folder / "good", None, StoragePlugin.SQLITE3)])


def ros1_bags(folder: Path) -> Target:
    """Bags of ROS 1, as they are and compressed."""
    compressions = (None, *Writer1.CompressionFormat)
    examples = [_bag1(folder / f"{i}.bag", kind) for i, kind in enumerate(compressions)]
    return _bags("ros1_bags", folder, ".bag", examples)


def _bags(name: str, folder: Path, ending: str, examples: list[bytes]) -> Target:
    def use(data: bytes) -> None:
        path = folder / f"input{ending}"
        path.write_bytes(data)
        with ImageBag(path) as bag:
            for frame in bag.frames():
                assert frame.message.encoding is not None

    return Target(name, examples, use, (BagError,), tokens=[b"\x89MCAP0\r\n", *BAG_TOKENS])


def _image(store: Typestore, **header: int) -> Any:
    time = store.types["builtin_interfaces/msg/Time"](1, 2)
    head = store.types["std_msgs/msg/Header"](**header, stamp=time, frame_id="camera")
    return store.types[TYPE](head, HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH, IMAGE.reshape(-1))


def _bag2(
    path: Path, compression: str | None, storage: StoragePlugin = StoragePlugin.MCAP
) -> bytes:
    store = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer(path, version=9, storage_plugin=storage)
    if compression:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/camera", TYPE, typestore=store)
        for stamp in (1, 2):
            writer.write(connection, stamp, store.serialize_cdr(_image(store), TYPE))
    (file,) = path.glob("*.mcap" if storage == StoragePlugin.MCAP else "*.db3")
    return file.read_bytes()


def _bag1(path: Path, compression: Any) -> bytes:
    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Writer1(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        connection = writer.add_connection("/camera", TYPE, typestore=store)
        for stamp in (1, 2):
            writer.write(connection, stamp, store.serialize_ros1(_image(store, seq=0), TYPE))
    return path.read_bytes()
