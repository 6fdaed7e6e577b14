"""Input formats: colours by hand, sizes and padding."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.input_format import InputFormat, parse_resolution


def test_normalise_by_hand():
    image = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    plain = InputFormat((64, 64), mean=(1, 2, 3), std=(2, 4, 8))
    assert plain.normalise(image).flatten().tolist() == [4.5, 4.5, 3.375]
    bgr = InputFormat((64, 64), channel_order="bgr", scale=0.5, mean=(1, 2, 3), std=(1, 1, 1))
    assert bgr.normalise(image).flatten().tolist() == [14.0, 8.0, 2.0]
    for form in (plain, bgr):  # what compilers get
        assert torch.equal(form._normalised(image.byte()), form.normalise(image))


@pytest.mark.parametrize(
    ("resize", "image", "expected"),
    [
        ("letterbox", (1080, 1920), (512, 910)),
        ("letterbox", (360, 480), (512, 683)),
        ("letterbox", (100, 4000), (26, 1024)),
        ("stretch", (1080, 1920), (512, 1024)),
    ],
)
def test_fit(resize, image, expected):
    assert InputFormat((512, 1024), resize=resize).fit(image, (512, 1024)) == expected


def test_prepare_pads_with_the_mean_colour_and_keeps_pixels():
    torch.manual_seed(0)
    images = [torch.randint(0, 256, size, dtype=torch.uint8) for size in ((20, 30, 3), (9, 8, 3))]
    form = InputFormat((20, 30), mean=(7, 8, 9), std=(1, 1, 1))
    batch, sizes = form.prepare(images, (20, 30), (32, 32))
    assert batch.shape == (2, 3, 32, 32)
    assert [s.valid for s in sizes] == [(20, 30), (20, 18)]
    assert [s.output for s in sizes] == [(20, 30), (9, 8)]
    exact = images[0].permute(2, 0, 1).float() - torch.tensor([7.0, 8.0, 9.0])[:, None, None]
    torch.testing.assert_close(batch[0, :, :20, :30], exact)
    assert not batch[0, :, 20:].any() and not batch[0, :, :, 30:].any()
    assert not batch[1, :, :, 18:].any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_prepare_rounds_once_or_twice_in_half_precision(memory_format):
    image = torch.arange(256).to(torch.uint8).view(16, 16, 1).expand(16, 16, 3)
    form = InputFormat((16, 16), channel_order="bgr", scale=1 / 255, mean=(0.4, 0.5, 0.48))
    batch, _ = form.prepare([image], (16, 16), (16, 16), torch.bfloat16, memory_format)
    assert batch.is_contiguous(memory_format=memory_format)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (form.mean, form.std))
    exact = (image.permute(2, 0, 1) / 255.0 - mean) / std
    torch.testing.assert_close(batch[0].double(), exact, rtol=2**-7, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "expected"), [("512x1024", (512, 1024)), ("360X480", (360, 480)), ("", None)]
)
def test_parse_resolution(text, expected):
    assert parse_resolution(text) == expected


@pytest.mark.parametrize("text", ["512", "512x", "axb", "16x1024", "512x99999", "-64x64"])
def test_parse_resolution_refuses(text):
    with pytest.raises(ValueError, match="expected"):
        parse_resolution(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"channel_order": "gbr"},
        {"resize": "crop"},
        {"std": (1, 0, 1)},
        {"scale": 0.0},
        {"mean": (1, 2)},
        {"resolution": (0, 5)},
    ],
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        InputFormat(**{"resolution": (64, 64), **fields})
