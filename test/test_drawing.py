"""Overlays, legends, contact sheets and videos, against values computed by hand."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from panoptic_ros import drawing
from panoptic_ros.drawing import (
    DARK,
    WHITE,
    VideoWriter,
    contact_sheet,
    draw_legend,
    draw_overlay,
    label_colors,
)
from panoptic_ros.prediction import Category, PanopticPrediction, Segment, Track

ROAD = Category(1, "road", False, (128, 64, 128))
CAR = Category(2, "car", True, (0, 0, 142))
CATEGORIES = (ROAD, CAR)


def prediction(labels, segments=()):
    return PanopticPrediction(np.array(labels, np.uint16), tuple(segments), CATEGORIES)


def test_stuff_is_mixed_with_its_class_colour_and_void_is_left_alone():
    image = np.full((1, 2, 3), (100, 200, 50), np.uint8)
    before = image.copy()
    overlay = draw_overlay(image, prediction([[256, 0]]), opacity=0.25, outlines=False)
    # 0.75 * (100, 200, 50) + 0.25 * (128, 64, 128)
    assert overlay[0, 0].tolist() == [107, 166, 70]
    assert overlay[0, 1].tolist() == [100, 200, 50]
    assert np.array_equal(image, before)


@pytest.mark.parametrize(("opacity", "expected"), [(0.0, (9, 8, 7)), (1.0, (128, 64, 128))])
def test_opacity_goes_from_image_to_segments(opacity, expected):
    image = np.full((3, 3, 3), (9, 8, 7), np.uint8)
    overlay = draw_overlay(image, prediction(np.full((3, 3), 256)), opacity)
    assert np.all(overlay == expected)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 3\).*\(2, 2, 3\)"):
        draw_overlay(np.zeros((4, 4, 3), np.uint8), prediction(np.zeros((2, 2))))


def test_an_opacity_out_of_range_is_refused():
    with pytest.raises(ValueError, match="opacity is 1.5"):
        draw_overlay(np.zeros((2, 2, 3), np.uint8), prediction(np.zeros((2, 2))), 1.5)


def test_a_track_has_the_same_shade_in_every_image():
    def shade(instance, track):
        label = 512 + instance
        tracked = replace(prediction([[label]]), tracks={label: Track(track, 1, 0)})
        return draw_overlay(np.zeros((1, 1, 3), np.uint8), tracked, 1.0)[0, 0].tolist()

    shades = label_colors(CATEGORIES)
    assert shade(1, 7) == shade(9, 7) == shades[512 + 7].tolist()
    assert shade(1, 7) != shade(1, 8)
    assert shade(1, 255) == shades[512 + 255].tolist()
    assert shade(1, 256) == shades[512 + 1].tolist()


def test_outlines_are_white_around_instances_and_dark_between_stuff():
    labels = [
        [256, 256, 0, 0],
        [256, 256, 0, 0],
        [256, 513, 513, 514],
    ]
    overlay = draw_overlay(np.full((3, 4, 3), 77, np.uint8), prediction(labels), 0.5)
    white = np.all(overlay == WHITE, axis=2)
    dark = np.all(overlay == DARK, axis=2)
    # A pixel is on a border when its right or lower neighbour is of another segment.
    assert white.tolist() == [
        [False, False, False, False],
        [False, True, True, True],
        [True, False, True, False],
    ]
    assert np.argwhere(dark).tolist() == [[0, 1]]


def test_lines_are_thicker_in_large_images():
    labels = np.full((1080, 64), 256)
    labels[:, 32:] = 513
    overlay = draw_overlay(np.zeros((1080, 64, 3), np.uint8), prediction(labels))
    assert np.all(overlay == WHITE, axis=2).sum(axis=1).tolist() == [2] * 1080


def test_names_are_written_on_wide_instances_only():
    labels = np.full((80, 200), 256)
    labels[10:70, 20:180] = 513
    labels[10:70, 190:195] = 514

    def segment(label, x, width):
        center = (x + width / 2, 40.0)
        return Segment(label, 2, "car", True, 0.9, 60 * width, (x, 10, width, 60), center)

    image = np.zeros((80, 200, 3), np.uint8)
    plain = draw_overlay(image, prediction(labels))
    wide = draw_overlay(image, prediction(labels, [segment(513, 20, 160)]), names=True)
    narrow = draw_overlay(image, prediction(labels, [segment(514, 190, 5)]), names=True)
    rows, columns = np.nonzero((wide != plain).any(axis=2))
    assert columns.min() >= 20 and columns.max() < 180 and rows.min() > 20 and rows.max() < 60
    assert np.array_equal(narrow, plain)


def test_colours_of_labels():
    colors = label_colors(CATEGORIES)
    assert colors.shape == (65536, 3)
    assert colors[0].tolist() == [0, 0, 0]
    assert colors[256].tolist() == [128, 64, 128]
    assert np.array_equal(label_colors((ROAD, CAR)), colors)  # the same in every process
    instances = colors[513 : 513 + 20].astype(int)
    distances = np.abs(instances[:, None] - instances[None]).sum(axis=2)
    assert distances[~np.eye(20, dtype=bool)].min() > 10
    assert np.all(instances.argmax(axis=1) == 2)  # all of them blue


def test_a_contact_sheet_lays_tiles_out_row_by_row():
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    tiles = [np.full((20, 40, 3), color, np.uint8) for color in colors]
    sheet = contact_sheet(tiles, columns=2, tile_width=80, categories=CATEGORIES)
    assert sheet.shape == (2 * 40 + drawing.LEGEND_ROW, 160, 3)
    assert sheet[5, 5].tolist() == [250, 0, 0]
    assert sheet[5, 85].tolist() == [0, 250, 0]
    assert sheet[45, 5].tolist() == [0, 0, 250]
    assert sheet[45, 85].tolist() == list(DARK)


def test_a_contact_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])


def test_the_legend_shows_each_class_in_its_colour():
    legend = draw_legend(CATEGORIES, 300)
    for category in CATEGORIES:
        assert np.all(legend == category.color, axis=2).any(), category.name


def read_video(path):
    video = cv2.VideoCapture(str(path))
    frame_rate = video.get(cv2.CAP_PROP_FPS)
    frames = []
    while (grabbed := video.read())[0]:
        frames.append(grabbed[1][..., ::-1])
    return frames, frame_rate


def test_a_video_holds_what_was_written(tmp_path):
    colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    with VideoWriter(tmp_path / "v.mp4", 12.5, 3) as video:
        for color in colors:
            video.write(np.full((49, 65, 3), color, np.uint8))  # odd sizes lose a line
    frames, frame_rate = read_video(tmp_path / "v.mp4")
    assert frame_rate == pytest.approx(12.5)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    for frame, color in zip(frames, colors, strict=True):
        assert np.abs(frame.mean(axis=(0, 1)) - color).max() < 12
    assert video.codec in drawing.CODECS


def test_slow_codecs_are_not_taken_for_long_videos(tmp_path):
    image = np.zeros((100, 100, 3), np.uint8)
    with VideoWriter(tmp_path / "v.mp4", 10, drawing.VP9_PIXELS // 10_000 + 1) as video:
        video.write(image)
    assert video.codec in {"avc1", "mp4v"}


def test_a_video_in_a_missing_folder_is_an_error(tmp_path):
    with (
        pytest.raises(OSError, match="missing or read-only"),
        VideoWriter(tmp_path / "no" / "v.mp4", 10, 1) as video,
    ):
        video.write(np.zeros((16, 16, 3), np.uint8))
