from __future__ import annotations

import numpy as np
import pytest

from panoptic_ros.streets.camera import NEAR, Light, PinholeCamera
from panoptic_ros.streets.canvas import Bar, Canvas, Texture, clip_near

NOON = Light(sun=(0, 1, 0), direct=0, ambient=1, haze=(0, 0, 0), haze_distance=1e9)


def level_camera(**changes) -> PinholeCamera:
    settings = {"size": (100, 200), "focal": 100, "height": 1.5, "pitch": 0.0, "yaw": 0.0}
    return PinholeCamera(**{**settings, **changes})


def square(z: float, half: float = 0.5) -> np.ndarray:
    return np.array(
        [
            (-half, 1.5 - half, z),
            (half, 1.5 - half, z),
            (half, 1.5 + half, z),
            (-half, 1.5 + half, z),
        ]
    )


def project(camera: PinholeCamera, point: tuple) -> np.ndarray:
    return camera.to_pixels(camera.to_camera(np.array(point, dtype=float)))


def test_projection_of_a_level_camera():
    camera = level_camera()
    assert project(camera, (0, 1.5, 10)).tolist() == [100, 50]
    assert project(camera, (2, 1.5, 10)).tolist() == [120, 50]
    assert project(camera, (0, 0, 10)).tolist() == pytest.approx([100, 65])


def test_pitch_lifts_the_horizon_and_yaw_shifts_the_scene():
    far = (0, 1.5, 1e6)
    assert project(level_camera(pitch=0.1), far)[1] == pytest.approx(50 - 100 * np.tan(0.1))
    assert project(level_camera(yaw=0.1), far)[0] == pytest.approx(100 - 100 * np.tan(0.1))


@pytest.mark.parametrize(("pitch", "yaw"), [(0.0, 0.0), (0.05, 0.1), (-0.04, -0.2)])
def test_ground_points_are_the_inverse_of_the_projection(pitch, yaw):
    camera = level_camera(pitch=pitch, yaw=yaw)
    first = camera.horizon + 5
    x, z = camera.ground_points(first, step=1)
    points = np.stack((x, np.zeros_like(x), z), -1).astype(float)
    pixels = camera.to_pixels(camera.to_camera(points))
    rows, columns = np.mgrid[first:100, 0:200] + 0.5
    assert np.allclose(pixels, np.stack((columns, rows), -1), atol=0.02)


def test_nearer_things_cover_farther_ones():
    canvas = Canvas(level_camera(), NOON)
    far, near = canvas.thing(1000, 9), canvas.thing(1001, 9)
    canvas.polygon(square(5), (200, 0, 0), far)  # 20 pixels wide
    canvas.polygon(square(10), (0, 200, 0), near)  # 10 pixels wide
    slots = canvas.pixels[..., 3]
    inner = np.zeros((100, 200), bool)
    inner[45:56, 95:106] = True  # a fill includes its outline
    assert np.array_equal(slots == near, inner)
    assert (slots == far).sum() == 21 * 21 - 11 * 11
    assert np.array_equal(canvas.pixels[..., 1] == 200, slots == near)
    assert np.array_equal(canvas.pixels[..., 0] == 200, slots == far)


def test_a_wall_paints_picture_and_truth_alike():
    canvas = Canvas(level_camera(), NOON)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = (255, 0, 0)
    picture[:, 32:] = (0, 0, 255)
    canvas.wall(square(5), Texture(picture), 2, 1.0)
    red, _, blue, slot = (canvas.pixels[..., i].astype(int) for i in range(4))
    assert set(np.unique(slot)) == {0, 2}
    assert np.array_equal(red + blue > 200, slot == 2)
    assert red[50, 92] > 250  # the left half of the texture is on the left
    assert blue[50, 108] > 250


def test_a_wall_that_begins_behind_us_is_cut():
    canvas = Canvas(level_camera(), NOON)
    side = np.array([(-2, 0, -5.0), (-2, 0, 20), (-2, 3, 20), (-2, 3, -5)])
    canvas.wall(side, Texture(np.full((32, 32, 3), 100, np.uint8)), 2, 1.0)
    columns = np.flatnonzero((canvas.pixels[..., 3] == 2).any(0))
    assert columns.min() == 0
    assert columns.max() == pytest.approx(100 - 100 * 2 / 20, abs=1)


def test_railings_own_what_shows_through_them():
    canvas = Canvas(level_camera(), NOON)
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[:, ::8] = (90, 90, 90, 255)
    canvas.pixels[..., :3] = 7
    canvas.wall(square(2), Texture(picture), 8, 1.0)
    owned = canvas.pixels[..., 3] == 8
    assert owned.sum() == pytest.approx(51 * 51, abs=60)
    assert (canvas.pixels[owned][:, 0] == 7).mean() > 0.5


def test_a_cut_out_owns_only_its_cover():
    canvas = Canvas(level_camera(), NOON)
    picture = np.full((40, 40, 4), (0, 255, 0, 0), np.uint8)
    picture[20:, :, 3] = 255
    canvas.board((0, 0, 5), (2, 2), Texture(picture), 6)
    owned = canvas.pixels[..., 3] == 6
    rows = np.flatnonzero(owned.any(1))
    assert rows.min() == pytest.approx(80 - 20, abs=1)  # foot at row 80, 40 pixels high
    assert rows.max() == pytest.approx(79, abs=1)
    assert np.array_equal(canvas.pixels[..., 1] > 0, owned)


def test_bars_are_as_thick_as_their_radius():
    canvas = Canvas(level_camera(), NOON)
    post = np.array([(0, 0, 5.0), (0, 3, 5)])
    canvas.bars([Bar(post, 0.25, (9, 9, 9))], 3)
    assert (canvas.pixels[60, :, 3] == 3).sum() == pytest.approx(10, abs=2)


def test_clip_near_cuts_a_polygon_at_the_plane():
    triangle = np.array([(0.0, 0, -NEAR), (0, 0, 3 * NEAR), (1, 0, 3 * NEAR)])
    kept = clip_near(triangle)
    assert len(kept) == 4
    assert kept[:, 2].min() == pytest.approx(NEAR)
    assert len(clip_near(triangle - (0, 0, 9))) == 0


@pytest.mark.parametrize("yaw", [0.0, 0.3])
def test_in_view_never_loses_what_is_visible(yaw):
    canvas = Canvas(level_camera(yaw=yaw), NOON)
    rng = np.random.default_rng(0)
    visible = 0
    for x, z in rng.uniform((-60, -5), (60, 60), (500, 2)):
        seen = canvas.camera.to_camera(np.array((x, 1.0, z)))
        if seen[2] > NEAR and 0 <= canvas.camera.to_pixels(seen)[0] < 200:
            assert canvas.in_view(x, z, 0.1)
            visible += 1
    assert visible > 50
    assert not canvas.in_view(-50, 1, 1)
    assert not canvas.in_view(0, -5, 1)


def test_slots_run_out_quietly():
    canvas = Canvas(level_camera(), NOON)
    slots = [canvas.thing(i, 9) for i in range(300)]
    given = [slot for slot in slots if slot is not None]
    assert len(given) == len(set(given)) == 200
    assert min(given) > 11
