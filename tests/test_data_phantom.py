"""Phantoms: reproducible, all different, and built as a radiograph is."""

import functools
import importlib

import numpy as np
import pytest
from PIL import Image

from samgan.data import phantoms, write_phantoms
from samgan.data.phantom import draw_attenuation, ellipsoid, expose, rod
from samgan.errors import UsageError

LUNGS = (slice(20, 40), [*range(14, 24), *range(42, 50)])


@pytest.fixture(scope="module")
def normal():
    return phantoms(30, 64, seed=1, pneumonia=False)


@pytest.fixture(scope="module")
def pneumonia():
    return phantoms(30, 64, seed=1, pneumonia=True)


@pytest.mark.parametrize("has_pneumonia", [False, True])
def test_image_depends_on_seed_and_number_alone(normal, pneumonia, has_pneumonia):
    images = pneumonia if has_pneumonia else normal
    np.testing.assert_array_equal(phantoms(5, 64, seed=1, pneumonia=has_pneumonia), images[:5])
    np.testing.assert_array_equal(phantoms(2, 64, seed=1, pneumonia=has_pneumonia, first=3), images[3:5])
    assert (phantoms(5, 64, seed=2, pneumonia=has_pneumonia) != images[:5]).any(axis=(1, 2, 3)).all()


def test_all_are_distinct(normal, pneumonia):
    everything = np.concatenate([normal, pneumonia])
    assert len({image.tobytes() for image in everything}) == len(everything)
    flat = everything.reshape(len(everything), -1).astype(float)
    assert (np.corrcoef(flat) - np.eye(len(flat))).max() < 0.98  # far enough apart to be no near duplicates


@pytest.mark.parametrize("resolution", [8, 32, 50, 128])
def test_any_resolution(resolution):
    images = phantoms(2, resolution, pneumonia=True)
    assert images.shape == (2, 1, resolution, resolution)
    assert images.std() > 20


def test_no_images_and_bad_requests():
    assert phantoms(0, pneumonia=False).shape == (0, 1, 64, 64)
    with pytest.raises(UsageError):
        phantoms(-1, pneumonia=False)
    with pytest.raises(UsageError):
        phantoms(1, 4, pneumonia=False)


def test_lungs_are_dark_and_spine_heart_and_belly_bright(normal):
    mean = normal.mean(axis=(0, 1))
    lungs = mean[LUNGS[0]][:, LUNGS[1]].mean()
    assert mean[20:40, 30:34].mean() > lungs + 40
    assert mean[58:, 24:40].mean() > lungs + 40
    assert lungs > mean[:6, :4].mean() + 20  # air beside the neck is darker still


def test_heart_lies_to_the_right_of_the_image(normal):
    heart_rows = normal[:, 0, 36:48].astype(float)
    right, left = heart_rows[..., 34:46].mean(axis=(1, 2)), heart_rows[..., 18:30].mean(axis=(1, 2))
    assert (right > left).mean() > 0.8
    assert (right - left).mean() > 15


def test_opacities_brighten_the_lungs(normal, pneumonia):
    def lungs(images):
        return images[:, 0][:, LUNGS[0]][..., LUNGS[1]].mean(axis=(1, 2))

    assert lungs(pneumonia).mean() > lungs(normal).mean() + 8


@pytest.mark.parametrize("seed", range(5))
def test_opacities_only_add_attenuation(seed):
    without, with_opacities = (draw_attenuation(np.random.default_rng(seed), 64, flag) for flag in (False, True))
    assert (with_opacities >= without - 1e-9).all()
    assert with_opacities.mean() > without.mean() + 0.01


def test_chords_are_the_length_of_the_ray_inside():
    y, x = np.mgrid[-1:1:201j, -1:1:201j]
    ball = ellipsoid(x, y, (0.0, 0.0), (0.5, 0.5), 1.0)
    assert ball[100, 100] == pytest.approx(1.0)
    assert ball.sum() * 0.01**2 == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=1e-3)  # its volume
    bar = rod(x, y, (-0.5, 0.0), (0.5, 0.0), 0.1)
    assert bar[100, 100] == pytest.approx(0.2)
    assert bar.sum() * 0.01**2 == pytest.approx(np.pi * 0.1**2 * 1.0 + 4 / 3 * np.pi * 0.1**3, rel=2e-2)
    turned = ellipsoid(x, y, (0.0, 0.0), (0.6, 0.2), 1.0, 90.0)
    np.testing.assert_allclose(turned, ellipsoid(x, y, (0.0, 0.0), (0.2, 0.6), 1.0), atol=1e-6)


def test_overlapping_shapes_multiply_transmission():
    """exp(-a) * exp(-b) = exp(-(a + b)): the shown contrast of a shape is the same behind another one."""
    attenuation = np.zeros((192, 192))
    attenuation[:, 64:] += 1.0
    attenuation[96:] += 0.5
    shown = expose(FixedDraws(np.random.PCG64()), attenuation, 64).astype(float)
    inside, outside = shown[40, 40] - shown[20, 40], shown[40, 10] - shown[20, 10]
    assert outside == pytest.approx(inside, abs=2)
    assert outside > 30


class FixedDraws(np.random.Generator):
    """Exposure without chance: no noise, no scatter, a straight film curve, no letter."""

    def uniform(self, low, high):
        return {0.005: 0.0, 3.6: 6.0, 0.3: 1e-3}.get(low, low)

    def poisson(self, expected):
        return expected

    def random(self):
        return 1.0


def test_cut_off_call_is_completed_without_drawing_the_finished_again(tmp_path, monkeypatch):
    def contents(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    module, drawn = importlib.import_module("samgan.data.phantom"), []
    draw = module.draw_attenuation

    def draw_until(limit, *arguments):
        if len(drawn) == limit:
            raise KeyboardInterrupt
        drawn.append(arguments)
        return draw(*arguments)

    write_phantoms(tmp_path / "whole", 3, 16, seed=5)
    write_phantoms(tmp_path / "cut", 3, 16, seed=4)  # other arguments: all are drawn again
    monkeypatch.setattr(module, "draw_attenuation", functools.partial(draw_until, 4))
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "cut", 3, 16, seed=5)
    (tmp_path / "cut/NORMAL/.phantom0002_1.png.7.tmp").write_bytes(b"killed")
    (tmp_path / "cut/PNEUMONIA/phantom0006_1.png").write_bytes(b"")
    monkeypatch.setattr(module, "draw_attenuation", functools.partial(draw_until, None))
    write_phantoms(tmp_path / "cut", 3, 16, seed=5)
    assert len(drawn) == 6
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_no_phantoms_are_written_for_a_bad_request(tmp_path):
    for count, resolution in ((-1, 64), (1, 4)):
        with pytest.raises(UsageError):
            write_phantoms(tmp_path / "set", count, resolution)
    assert not (tmp_path / "set").exists()


def test_files_say_that_they_are_phantoms(tmp_path):
    write_phantoms(tmp_path, 3, 32, seed=5)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert files == [f"NORMAL/phantom000{n}_1.png" for n in (1, 2, 3)] + [
        f"PNEUMONIA/phantom000{n}_1.png" for n in (4, 5, 6)
    ]
    for file in files:
        with Image.open(tmp_path / file) as image:
            assert image.text["Description"] == "phantom, not a patient"
    with Image.open(tmp_path / files[4]) as image:
        expected = phantoms(1, 32, seed=5, pneumonia=True, first=5)
        np.testing.assert_array_equal(np.asarray(image), expected[0, 0])
