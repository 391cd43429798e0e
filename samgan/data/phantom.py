"""Draw analytic chest-radiograph phantoms, which show no patient: for tests, examples and first tries."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, PngImagePlugin

from samgan.errors import UsageError
from samgan.files import atomic_write
from samgan.terminal import console

Field = Float[np.ndarray, "h w"]

# Attenuation per unit of length; half the image's width is one unit. Air takes away what the trunk added.
SOFT, BONE, AIR = 2.0, 4.2, -1.75
LETTER_R = np.array([[1, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=bool)
NOTE = "phantom, not a patient"


def phantoms(
    count: int, resolution: int = 64, *, seed: int = 0, pneumonia: bool, first: int = 0
) -> UInt8[np.ndarray, "n 1 h w"]:
    """Draw chest-radiograph phantoms, each with its own anatomy, pose and exposure.

        image = display(-log(I / I0)),   I ~ Poisson(I0 * (exp(-sum_k mu_k * thickness_k) + scatter))

    Every shape's thickness along the ray is analytic, so overlapping shapes add as in a radiograph. The patient's
    left, with most of the heart, is on the right of the image.

    Args:
        count: number of images.
        resolution: height and width in pixels, 8 or more.
        seed: image i depends only on (seed, first + i, pneumonia).
        pneumonia: fill parts of the lungs with opacities.
        first: number of the first image, to continue a series.

    Returns:
        Images in [0, 255], bone bright.

    Raises:
        UsageError: a negative count or a resolution below 8.
    """
    _check_request(count, resolution)
    images = np.empty((count, 1, resolution, resolution), dtype=np.uint8)
    for index in range(count):
        rng = np.random.default_rng([seed, first + index, int(pneumonia)])
        images[index, 0] = expose(rng, draw_attenuation(rng, resolution, pneumonia), resolution)
    return images


def write_phantoms(folder: str | Path, count_per_class: int, resolution: int = 64, *, seed: int = 0) -> None:
    """Write phantoms as PNG files in NORMAL/ and PNEUMONIA/, one patient per file (phantom0001_1.png, ...).

    An interrupted call continues where it stopped: a file whose text says that it was drawn with the same arguments is
    kept. Progress is shown on standard error.

    Args:
        folder: is created if it does not exist.
        count_per_class: number of images in each of the two classes.
        resolution: height and width in pixels.
        seed: seed of the whole set.

    Raises:
        UsageError: a negative count or a resolution below 8.
    """
    from rich.progress import track  # takes a while to import, and only this function needs it

    _check_request(count_per_class, resolution)
    jobs = []
    for pneumonia, name in enumerate(("NORMAL", "PNEUMONIA")):
        first = 1 + pneumonia * count_per_class
        for leftover in Path(folder, name).glob(".phantom*.tmp"):
            leftover.unlink()
        jobs += [(Path(folder, name), bool(pneumonia), number) for number in range(first, first + count_per_class)]

    def draw(job: tuple[Path, bool, int]) -> None:
        _write_phantom(*job, resolution, seed)

    # Threads, since processes would import the caller's script again; numpy releases the GIL.
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for _ in track(pool.map(draw, jobs), "drawing", len(jobs), console=console(), transient=True):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _write_phantom(folder: Path, pneumonia: bool, number: int, resolution: int, seed: int) -> None:
    """Write one phantom, unless its file is there."""
    path = folder / f"phantom{number:04d}_1.png"
    texts = {"Description": NOTE, "Parameters": f"{folder.name} {number}, seed {seed}, {resolution} px"}
    if _has_texts(path, texts):
        return
    note = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        note.add_text(key, text)
    image = phantoms(1, resolution, seed=seed, pneumonia=pneumonia, first=number)[0, 0]
    with atomic_write(path) as file:
        Image.fromarray(image).save(file, "PNG", pnginfo=note)


def _check_request(count: int, resolution: int) -> None:
    if count < 0 or resolution < 8:
        raise UsageError(f"expected a count of 0 or more and a resolution of 8 or more, got {count} and {resolution}")


def _has_texts(path: Path, texts: dict[str, str]) -> bool:
    """Tell whether `path` is a PNG with these texts. Files are written atomically, so such a file is complete."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return texts.items() <= image.info.items()
    except OSError:
        return False


# shapes: length of the ray inside each


def ellipsoid(
    x: Field, y: Field, center: tuple[float, float], radii: tuple[float, float], depth: float, degrees: float = 0.0
) -> Field:
    """Return the chord through an ellipsoid: depth * sqrt(1 - (x'/rx)^2 - (y'/ry)^2), 0 outside."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    dx, dy = x - center[0], y - center[1]
    inside = 1 - ((dx * cos + dy * sin) / radii[0]) ** 2 - ((dy * cos - dx * sin) / radii[1]) ** 2
    return depth * np.sqrt(np.maximum(inside, 0))


def rod(x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], radius: float) -> Field:
    """Return the chord through a rod with round ends: 2 * sqrt(r^2 - distance^2), 0 outside."""
    (x0, y0), (x1, y1) = start, end
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = along.clip(0, 1)
    squared = (x - x0 - along * (x1 - x0)) ** 2 + (y - y0 - along * (y1 - y0)) ** 2
    return 2 * np.sqrt(np.maximum(radius**2 - squared, 0))


def rib_pair(x: Field, y: Field, height: float, half_width: float, drop: float, radius: float) -> Field:
    """Return the chord through a tilted hoop of bone, which projects to an ellipse's outline.

    The upper arc is the back of the rib. The lower arc is its front and fades towards the breastbone (cartilage). At
    the sides the ray runs along the bone, so its path through the bone is longer.
    """
    u, v = x / half_width, (y - height - drop) / drop
    squared_u, squared_v = u * u, v * v
    slope = np.sqrt(squared_u / half_width**2 + squared_v / drop**2)
    distance = (squared_u + squared_v - 1) / (2 * slope + 1e-6)
    chord = 2 * np.sqrt(np.maximum(radius**2 - distance * distance, 0))
    front = ((np.abs(u) - 0.45) / 0.3).clip(0, 0.7)
    along = np.square(np.square(squared_u))  # u^8; a power of floats takes ten times as long
    return chord * np.where(v < 0, 1, front) * (1 + 1.2 * along)


def step(values: Field, width: float) -> Field:
    """Return a smooth step from 0 (negative values) to 1 over about four widths."""
    return 0.5 * (1 + np.tanh(values / width))


# anatomy


def draw_attenuation(rng: np.random.Generator, resolution: int, pneumonia: bool) -> Field:
    """Sum mu * thickness of one random chest, on a grid 2 to 4 times finer than the image."""
    fine = resolution * (4 if resolution < 64 else 3 if resolution < 128 else 2)
    axis = (np.arange(fine) + 0.5) * 2 / fine - 1
    x, y = _pose(rng, *np.meshgrid(axis, axis))
    width = rng.uniform(0.94, 1.06)  # of the rib cage
    dome = rng.uniform(0.5, 0.68)  # height of the diaphragm
    apex = rng.uniform(-0.72, -0.58)
    texture = _smooth_noise(rng, fine)

    air = np.maximum(_lungs(x, y, width, dome, apex, rng) - _heart_and_vessels(x, y, rng), 0)
    total = SOFT * _trunk(x, y, width, rng) + AIR * air
    total += 0.12 * SOFT * air * texture(24) + SOFT * _lung_markings(x, y, air, rng)
    total += BONE * _skeleton(x, y, width, apex, rng)
    total += AIR * _airways_and_stomach(x, y, dome, rng)
    if pneumonia:
        total -= AIR * air * _opacities(x, y, texture, rng)  # fluid takes the place of air
    return np.maximum(total, 0)


def _pose(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """Tilt, shift and magnify."""
    angle, zoom = np.radians(rng.normal(0, 2)), rng.uniform(1.0, 1.2)
    x, y = x / zoom - rng.normal(0, 0.04), y / zoom - rng.normal(0.02, 0.05)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _trunk(x: Field, y: Field, width: float, rng: np.random.Generator) -> Field:
    """Neck, shoulders, chest and belly: one flattened column, and the upper arms."""
    shoulder, armpit = rng.uniform(0.7, 1.0), rng.uniform(0.72, 0.82)
    heights = np.array([-1.6, -1.0, -0.86, -0.72, -0.5, -0.2, 0.3, 1.0, 1.6])
    halves = np.array([0.3, 0.32, 0.42, shoulder, armpit + 0.04, armpit, 0.8, 0.82, 0.8]) * width
    depths = np.array([0.55, 0.6, 0.7, 0.8, 1.05, 1.2, 1.3, 1.4, 1.4]) * rng.uniform(0.92, 1.1)
    # piecewise linear, rounded by averaging over neighbouring heights
    half = np.mean([np.interp(y + shift, heights, halves) for shift in np.linspace(-0.09, 0.09, 7)], axis=0)
    trunk = np.interp(y, heights, depths) * np.maximum(1 - np.abs(x / half) ** 3, 0) ** 0.5
    reach, drop = rng.uniform(0.05, 0.5), rng.uniform(-0.1, 0.5)
    for side in (-1, 1):
        arm = rod(x, y, (side * 0.72, -0.62), (side * (0.8 + reach), -0.62 + drop), rng.uniform(0.13, 0.18))
        trunk = np.maximum(trunk, 1.6 * arm)
    if rng.random() < 0.4:  # the chin
        trunk = trunk + ellipsoid(x, y, (rng.normal(0, 0.05), -1.12), (0.3, rng.uniform(0.15, 0.26)), 0.9)
    return trunk


def _lungs(x: Field, y: Field, width: float, dome: float, apex: float, rng: np.random.Generator) -> Field:
    """Two half ellipsoids on the domes of the diaphragm, the patient's right (image left) dome higher."""
    total = np.zeros_like(x)
    depth = rng.uniform(0.85, 1.02)
    for side, lift in ((-1, 0.0), (1, rng.uniform(0.0, 0.08))):
        base = dome + lift
        up = ((base + 0.25 - y) / (base + 0.25 - apex)).clip(0, 1)  # 0 below the base, 1 at the apex
        outer = (0.1 + 0.57 * (1 - up**2.6) ** 0.6) * width
        inner = 0.07 + 0.05 * (1 - up)
        middle, half = (outer + inner) / 2, np.maximum(outer - inner, 1e-3) / 2
        across = 1 - np.abs((side * x - middle) / half) ** 2.4
        tall = (1 - up**6) ** 0.5
        floor = base + 0.75 * np.maximum(side * x - 0.3, 0) ** 2 + 0.25 * np.minimum(side * x - 0.3, 0) ** 2
        total += depth * np.maximum(across, 0) ** 0.45 * tall * step(floor - y, 0.018)
    return total


def _heart_and_vessels(x: Field, y: Field, rng: np.random.Generator) -> Field:
    size, low = rng.uniform(0.85, 1.2), rng.uniform(0.24, 0.36)
    ventricles = ellipsoid(x, y, (0.1 * size, low), (0.42 * size, 0.29 * size), 1.0, rng.uniform(30, 55))
    atrium = ellipsoid(x, y, (-0.07, low), (0.16 * size, 0.3 * size), 0.8)
    pedicle = ellipsoid(x, y, (0.02, -0.15), (rng.uniform(0.14, 0.2), 0.6), 0.9)
    arch = ellipsoid(x, y, (0.11, rng.uniform(-0.36, -0.26)), (0.1, 0.11), 0.7)
    return np.maximum.reduce([ventricles, atrium, pedicle, arch])


def _lung_markings(x: Field, y: Field, air: Field, rng: np.random.Generator) -> Field:
    """Vessels that fan out from the two hila."""
    total = np.zeros_like(x)
    for side in (-1, 1):
        hilum = (side * rng.uniform(0.15, 0.2), rng.uniform(-0.08, 0.04))
        total += 0.7 * ellipsoid(x, y, hilum, (0.09, 0.14), 0.16)
        for angle in np.radians(np.linspace(-70, 80, 8) + rng.normal(0, 7, 8)):
            length = rng.uniform(0.2, 0.42)
            tip = (hilum[0] + side * length * np.cos(angle), hilum[1] + length * np.sin(angle))
            total += rod(x, y, hilum, tip, rng.uniform(0.012, 0.022))
    return total * (air > 0)


def _skeleton(x: Field, y: Field, width: float, apex: float, rng: np.random.Generator) -> Field:
    spine_half, disc = rng.uniform(0.075, 0.095), rng.uniform(0.115, 0.14)
    bend = rng.normal(0, 0.015) * np.sin(2.5 * y + rng.uniform(0, 6))
    column = np.maximum(1 - ((x - bend) / spine_half) ** 4, 0) ** 0.5
    total = 0.11 * column * (0.85 + 0.15 * np.cos(2 * np.pi * y / disc))

    spacing, radius = rng.uniform(0.122, 0.148), rng.uniform(0.017, 0.023)
    thickness, drop = rng.uniform(1.2, 1.9), rng.uniform(0.15, 0.24)
    for number in range(int(rng.integers(10, 12))):
        height = apex - 0.02 + spacing * number
        half = width * (0.3 + 0.42 * min(1.0, number / 6) ** 0.6)
        total += thickness * rib_pair(x, y, height, half, drop * (0.5 + 0.5 * min(1.0, number / 4)), radius)

    slope = rng.normal(0.12, 0.05)
    for side in (-1, 1):
        inner, outer = (side * 0.09, apex + 0.06), (side * rng.uniform(0.55, 0.62), apex + 0.06 - slope)
        total += 1.3 * rod(x, y, inner, outer, rng.uniform(0.022, 0.03))
        total += 0.08 * step(
            ellipsoid(x, y, (side * 0.68, -0.38), (0.09, 0.3), 1.0, side * 20.0) - 0.4, 0.15
        )  # scapula
        total += ellipsoid(x, y, (side * rng.uniform(0.76, 0.84), -0.6), (0.1, 0.11), 0.14)  # head of the humerus
    return total


def _airways_and_stomach(x: Field, y: Field, dome: float, rng: np.random.Generator) -> Field:
    trachea = rod(x, y, (0.0, -1.3), (-0.02, -0.22), rng.uniform(0.03, 0.045))
    if rng.random() < 0.5:
        return trachea
    place = (rng.uniform(0.25, 0.42), dome + rng.uniform(0.16, 0.26))
    return trachea + ellipsoid(x, y, place, (rng.uniform(0.08, 0.18), rng.uniform(0.05, 0.09)), 0.35, rng.normal(0, 15))


def _opacities(x: Field, y: Field, texture: Callable[[int], Field], rng: np.random.Generator) -> Field:
    """Return the share of air replaced by fluid: patches, sometimes a haze over both lungs."""
    clear = np.ones_like(x)
    for _ in range(int(rng.integers(1, 5))):
        center = (rng.choice([-1, 1]) * rng.uniform(0.22, 0.52), rng.uniform(-0.4, 0.55))
        spread = (rng.uniform(0.1, 0.26), rng.uniform(0.1, 0.24))
        patch = np.exp(-(((x - center[0]) / spread[0]) ** 2) - ((y - center[1]) / spread[1]) ** 2)
        clear *= 1 - rng.uniform(0.45, 0.85) * step(patch - 0.45 + 0.25 * texture(10), 0.3)
    haze = rng.uniform(0.1, 0.45) * (rng.random() < 0.6)
    return 1 - clear * (1 - haze * (1 + 0.4 * texture(14)).clip(0, 2))


def _smooth_noise(rng: np.random.Generator, fine: int) -> Callable[[int], Field]:
    """Return a function that draws noise in about [-1, 1] with the given number of cells across."""

    def draw(cells: int) -> Field:
        coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        return np.asarray(coarse.resize((fine, fine), Image.Resampling.BICUBIC), dtype=np.float64)

    return draw


# exposure


def expose(rng: np.random.Generator, attenuation: Field, resolution: int) -> UInt8[np.ndarray, "r r"]:
    """Count the photons that pass through the chest, and show -log of the count with bone bright and air black."""
    factor = len(attenuation) // resolution
    transmitted = np.exp(-attenuation).reshape(resolution, factor, resolution, factor).mean(axis=(1, 3))
    scatter = rng.uniform(0.005, 0.05) * transmitted.mean()
    photons = 10 ** rng.uniform(3.6, 4.8)
    measured = -np.log(np.maximum(rng.poisson(photons * (transmitted + scatter)), 1) / photons)

    low, high = np.percentile(measured, (1, 99.5))
    bend = rng.uniform(0.3, 1.8)  # of the film's curve: dense parts have less contrast
    shown = -np.expm1(-bend * ((measured - low) / max(high - low, 1e-6)).clip(0, 1)) / -np.expm1(-bend)
    black, white = rng.uniform(0, 0.06), rng.uniform(0.82, 0.98)
    shown = black + (white - black) * shown
    if rng.random() < 0.6:  # the lead letter that marks the patient's right
        scale = max(1, resolution // 64)
        letter = np.kron(LETTER_R, np.ones((scale, scale), dtype=bool))
        top, left = int(resolution * rng.uniform(0.08, 0.6)), int(resolution * rng.uniform(0.01, 0.06))
        shown[top : top + len(letter), left : left + letter.shape[1]][letter] = 0.95
    return np.rint(shown * 255).astype(np.uint8)
