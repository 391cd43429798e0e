"""Pictures: the numbers that go into files and come back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from samgan.pictures import SYNTHETIC, from_uint8, image_grid, to_uint8, to_uint16, write_png


def test_uint8_round_trip_is_exact():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = from_uint8(every)
    assert (floats.dtype, floats.min().item(), floats.max().item()) == (torch.float32, -1.0, 1.0)
    assert torch.equal(to_uint8(floats), every)


def test_rounding_and_clipping():
    values = torch.tensor([-9.0, -1.0, -1 + 0.9 / 255, -1 + 1.1 / 255, 1.0, 1.001, 50.0]).view(1, 1, 1, 7)
    assert to_uint8(values).flatten().tolist() == [0, 0, 0, 1, 255, 255, 255]
    assert to_uint16(values).dtype == np.uint16
    assert to_uint16(values).flatten().tolist() == [0, 0, 116, 141, 65535, 65535, 65535]
    assert to_uint8(values.bfloat16()).flatten().tolist()[::6] == [0, 255]


def test_grid():
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((3, 1, 2, 2), np.uint8)
    grid = image_grid(images)
    w = 255
    assert grid[0].tolist() == [[0, 0, w, 1, 1], [0, 0, w, 1, 1], [w] * 5, [2, 2, w, w, w], [2, 2, w, w, w]]
    assert image_grid(images, columns=3, gap=0)[0].tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert image_grid(np.zeros((5, 3, 4, 6), np.uint8), columns=2).shape == (3, 14, 13)


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1)])
def test_png_holds_pixels_and_text(tmp_path, dtype, channels):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (channels, 5, 7)).astype(dtype)
    with open(tmp_path / "a.png", "wb") as file:
        write_png(file, image, {"Description": SYNTHETIC, "Seed": "3"})
    with Image.open(tmp_path / "a.png") as read:
        assert read.format == "PNG"
        assert read.text == {"Description": SYNTHETIC, "Seed": "3"}
        pixels = np.asarray(read)
    assert pixels.dtype == dtype
    expected = image[0] if channels == 1 else np.moveaxis(image, 0, -1)
    np.testing.assert_array_equal(pixels, expected)


def test_png_can_be_written_to_memory():
    file = io.BytesIO()
    write_png(file, np.arange(12, dtype=np.uint8).reshape(1, 3, 4), {})
    with Image.open(file) as read:
        assert np.asarray(read).tolist() == np.arange(12).reshape(3, 4).tolist()


def test_16_bit_colour_is_refused(tmp_path):
    with open(tmp_path / "a.png", "wb") as file, pytest.raises(ValueError, match="16-bit"):
        write_png(file, np.zeros((3, 4, 4), np.uint16), {})


def test_the_label_says_what_it_is():
    for word in ("SYNTHETIC", "generative model", "Not a patient", "not for diagnosis"):
        assert word in SYNTHETIC
