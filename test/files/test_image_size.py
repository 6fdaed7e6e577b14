"""Sizes are read from the header and not believed."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panoptic_ros.files.image_size import MAX_PIXELS, check_pixels, encoded_size
from panoptic_ros.files.pictures import read_image

IMAGE = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)


def encode(suffix, *flags):
    return cv2.imencode(suffix, IMAGE, flags)[1].tobytes()


def huge_jpeg(height=65500, width=65500):
    """A JPEG that declares another size than it has."""
    data = bytearray(encode(".jpg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        encode(".jpg"),
        encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encode(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        encode(".png"),
    ],
)
def test_the_size_is_that_of_the_header(data):
    assert encoded_size(data) == (37, 53)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".webp", ".ppm"])
def test_formats_of_files(suffix):
    assert encoded_size(encode(suffix)) == (37, 53)


def test_a_lossless_webp():
    assert encoded_size(encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)) == (37, 53)


@pytest.mark.parametrize("start", [b"BM", b"RIFF....WEBPVP8 ", b"II*\0\xff\xff\xff\xff"])
def test_files_that_end_in_the_header_are_refused(start):
    with pytest.raises(ValueError, match="damaged"):
        encoded_size(start)


def test_a_png_chunk_that_declares_more_than_there_is_is_refused():
    data = bytearray(encode(".png"))
    data[33] ^= 0x20  # the length of IDAT: half a gigabyte more
    with pytest.raises(ValueError, match=r"chunk b'IDAT' declares 5368\d{5} bytes"):
        encoded_size(bytes(data))


def test_many_scans_are_refused():
    """A correct JPEG may have thousands, each of which walks over the whole image."""
    data = encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert 5 < data.count(b"\xff\xda") < 20
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="more than 100 scans"):
        encoded_size(data[:-2] + 100 * last + data[-2:])


def test_a_truncated_jpeg_is_no_picture(tmp_path):
    """Its lower part would be grey."""
    data = encode(".jpg")
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(OSError, match=r"cannot read the image .*half\.jpg: .*truncated"):
        read_image(tmp_path / "half.jpg")
    (tmp_path / "padded.jpg").write_bytes(data + bytes(100))
    assert read_image(tmp_path / "padded.jpg").shape == IMAGE.shape


def test_other_formats_have_none():
    assert encoded_size(b"GIF89a") is None
    assert encoded_size(b"") is None


def test_more_pixels_than_the_bytes_can_hold_are_refused():
    with pytest.raises(ValueError, match="JPEG declares 8000x8000 pixels.*too few"):
        encoded_size(huge_jpeg(8000, 8000))
    header = b"\x00\x00\x00\x0dIHDR" + struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", zlib.crc32(header[4:]))
    with pytest.raises(ValueError, match="PNG declares 8000x8000 pixels.*too few"):
        encoded_size(data)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_emptiest_image_holds_its_pixels(suffix):
    flat = np.zeros((2000, 3000), np.uint8)
    for flags in ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1)):
        assert encoded_size(cv2.imencode(suffix, flat, flags)[1].tobytes()) == flat.shape


def test_a_flipped_bit_in_a_png_header_is_found():
    data = bytearray(encode(".png"))
    data[16] ^= 0x40  # width: 2**30 more
    with pytest.raises(ValueError, match=r"header of the PNG .* is damaged"):
        encoded_size(bytes(data))


@pytest.mark.parametrize(
    "data", [b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x02", b"\x89PNG\r\n\x1a\nIHDR"]
)
def test_headers_that_end_early_are_refused(data):
    with pytest.raises(ValueError, match="header"):
        encoded_size(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_size_or_a_reason(tail):
    for start in (b"\xff\xd8", b"\x89PNG\r\n\x1a\n"):
        try:
            assert encoded_size(start + tail) is not None
        except ValueError as error:
            assert str(error)


def test_what_is_accepted():
    assert check_pixels((4320, 7680)) == (4320, 7680)
    with pytest.raises(ValueError, match="65500x65500 pixels, more than max_pixels"):
        check_pixels((65500, 65500))
    with pytest.raises(ValueError, match="0x5"):
        check_pixels((5, 0))
    assert check_pixels((2, 2), max_pixels=4) == (2, 2)


HOSTILE = """
import sys, time
from types import SimpleNamespace
from panoptic_ros.files.camera_messages import ImageError, image_from_message
data = sys.stdin.buffer.read()
start = time.process_time()
try:
    image_from_message(SimpleNamespace(format="jpeg", data=data))
except ImageError as error:
    print(error)
print(time.process_time() - start)
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


def flipped_png(at, bit):
    data = bytearray(encode(".png"))
    data[at] ^= bit
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [huge_jpeg(), huge_jpeg(7999, 8000), flipped_png(16, 0x40), flipped_png(33, 0x20)],
    ids=["large JPEG", "accepted size, no pixels", "PNG width", "PNG chunk"],
)
def test_a_hostile_image_costs_next_to_nothing(data):
    run = subprocess.run(
        [sys.executable, "-c", HOSTILE], input=data, capture_output=True, check=True
    )
    reason, seconds, most_kib = run.stdout.decode().splitlines()
    assert reason and float(seconds) < 1  # of the processor; decoding the first takes 28
    assert int(most_kib) < 400_000  # decoding the first takes 12 GB


def test_files_are_checked_before_they_are_decoded(tmp_path):
    (tmp_path / "huge.jpg").write_bytes(huge_jpeg())
    with pytest.raises(OSError, match=r"huge.jpg: the JPEG declares 65500x65500"):
        read_image(tmp_path / "huge.jpg")
    assert MAX_PIXELS < 65500 * 65500
