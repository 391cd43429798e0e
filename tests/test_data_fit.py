"""One image of any size as a square."""

import numpy as np
import pytest
import skimage.exposure
import skimage.transform
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samgan.data import phantoms
from samgan.data.fit import FITS, NORMALIZERS, fit_image
from samgan.data.readers import radiograph


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(8, 90),
    height=st.integers(8, 90),
    resolution=st.sampled_from([8, 16, 64]),
    fit=st.sampled_from(FITS),
    normalize=st.sampled_from(["none", "percentile"]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 3),
)
def test_fit_keeps_shape_range_and_mirror_symmetry(width, height, resolution, fit, normalize, channels, seed):
    pixels = np.random.default_rng(seed).random((channels, height, width), dtype=np.float32)
    fitted = fit_image(pixels, resolution, fit, normalize)
    assert fitted.shape == (channels, resolution, resolution)
    assert fitted.dtype == np.uint8
    if fit != "pad" or (resolution - round(resolution * min(width, height) / max(width, height))) % 2 == 0:
        mirrored = fit_image(np.ascontiguousarray(pixels[:, :, ::-1]), resolution, fit, normalize)
        np.testing.assert_allclose(mirrored[:, :, ::-1].astype(int), fitted, atol=1)


@given(st.floats(0, 1, width=32), st.integers(8, 60), st.integers(8, 60), st.sampled_from(["crop", "stretch"]))
@settings(max_examples=30, deadline=None)
def test_fit_keeps_a_constant(shade, width, height, fit):
    fitted = fit_image(np.full((1, height, width), shade, dtype=np.float32), 16, fit)
    np.testing.assert_allclose(fitted, shade * 255, atol=0.51)


@given(st.integers(8, 90), st.integers(8, 90))
@settings(max_examples=30, deadline=None)
def test_pad_shows_the_whole_image_between_black_bars(width, height):
    fitted = fit_image(np.ones((1, height, width), dtype=np.float32), 32, "pad")[0]
    rows, columns = fitted.any(axis=1).sum(), fitted.any(axis=0).sum()
    assert max(rows, columns) == 32
    assert rows / columns == pytest.approx(height / width, rel=0.51 / (min(rows, columns) - 0.5))
    assert (fitted[fitted > 0] == 255).all()


def test_crop_takes_the_centre_and_stretch_everything():
    pixels = np.zeros((1, 16, 48), dtype=np.float32)
    pixels[:, :, 16:32] = 1
    assert (fit_image(pixels, 16, "crop") == 255).all()
    assert fit_image(pixels, 16, "stretch").mean() == pytest.approx(255 / 3, abs=4)


def test_resizing_is_antialiased():
    checkerboard = np.indices((128, 128)).sum(axis=0)[None] % 2
    fitted = fit_image(checkerboard.astype(np.float32), 16)
    np.testing.assert_allclose(fitted[:, 2:-2, 2:-2], 127.5, atol=2)
    picture = phantoms(1, 128, pneumonia=False)[0, 0] / np.float32(255)
    theirs = skimage.transform.resize(picture, (32, 32), anti_aliasing=True)
    assert np.abs(fit_image(picture[None], 32)[0] / 255 - theirs).mean() < 0.02


def test_percentile_stretches_to_the_full_range():
    pixels = (phantoms(1, 64, pneumonia=False)[0] / 255 * 0.2 + 0.3).astype(np.float32)
    fitted = fit_image(pixels, 64, "crop", "percentile")
    assert np.percentile(fitted, (0.5, 99.5)).tolist() == [0, 255]
    low, high = np.percentile(pixels, (0.5, 99.5))
    np.testing.assert_allclose(fitted, ((pixels - low) / (high - low)).clip(0, 1) * 255, atol=1)


def test_clahe_comes_after_resizing_and_before_the_bars():
    pixels = (phantoms(1, 128, pneumonia=False)[0] / 255).astype(np.float32)
    resized = np.asarray(Image.fromarray(pixels[0]).resize((32, 32), Image.Resampling.LANCZOS)).clip(0, 1)
    expected = skimage.exposure.equalize_adapthist(resized) * 255
    np.testing.assert_allclose(fit_image(pixels, 32, "crop", "clahe")[0], expected, atol=1)
    wide = np.concatenate([pixels, pixels], axis=2)
    assert (fit_image(wide, 32, "pad", "clahe")[0, :8] == 0).all()


@pytest.mark.parametrize("normalize", NORMALIZERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_survives_constant_and_tiny_images(normalize, channels):
    for shade in (0.0, 0.4, 1.0):
        fitted = fit_image(np.full((channels, 8, 300), shade, dtype=np.float32), 8, "pad", normalize)
        assert fitted.shape == (channels, 8, 8)
    fit_image(np.random.default_rng(0).random((channels, 8, 300), dtype=np.float32), 8, "pad", normalize)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(8, 90),
    width=st.integers(8, 90),
    resolution=st.sampled_from([8, 16, 32, 64]),
    way=st.sampled_from(FITS),
    rows=st.integers(1, 20),
)
def test_bands_of_a_large_image_give_the_very_values_of_the_whole(height, width, resolution, way, rows):
    pixels = np.random.default_rng(height * width).random((1, height, width), dtype=np.float32)
    whole = fit_image(pixels, resolution, way)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radiograph, "BAND_PIXELS", rows * width)
        np.testing.assert_array_equal(fit_image(pixels, resolution, way), whole)
