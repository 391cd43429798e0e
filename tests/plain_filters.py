"""The filters of the alias-free generator in plain form: by SciPy, with pixels found by their places in the image."""

import numpy as np
import scipy.signal

from samgan.networks import FilteredActivation, Grid
from samgan.networks.filters import FINER, Thinning


def resampled(x, kernel, up, down):
    """Both axes of an array [..., h, w] by SciPy, with all that the filter reaches."""
    for axis in (-2, -1):
        x = scipy.signal.upfirdn(kernel, x, up, down, axis=axis)
    return x


def chosen(found, before: Grid, rate: int, taps: int, behind: Grid):
    """The pixels of the grid behind, among those of `found`.

    Args:
        found: Made of a picture on the grid before, by filters that together have `taps` more numbers than one.
        before: The grid of that picture.
        rate: Pixels of `found` along a side of the image.
        taps: What the filters add to the number of pixels.
        behind: The grid of the result.
    """
    positions = (np.arange(behind.side) + 0.5 - behind.margin) / behind.rate
    first = (0.5 - before.margin) / before.rate
    places = (positions - first) * rate + taps / 2
    np.testing.assert_allclose(places, places.round(), atol=1e-9)
    places = places.round().astype(int)
    return found[..., places[:, None], places]


def plain_activation(x, layer: FilteredActivation, before: Grid, behind: Grid):
    """Zeros between pixels, filter, leaky ReLU, filter; then the pixels in the places of the grid behind."""
    rise, fall = layer.rise.numpy(), layer.fall.numpy()
    fine = resampled(x, rise, FINER * behind.rate // before.rate, 1)
    found = resampled(np.where(fine > 0, fine, 0.2 * fine), fall, 1, 1)
    return chosen(found, before, FINER * behind.rate, len(rise) + len(fall) - 2, behind)


def plain_thinning(x, layer: Thinning, before: Grid, side: int):
    """Filter, unless the picture has the image's rate; then the pixels in the places of the image, without margins."""
    behind = Grid(side, 0, 0.0, 0.0)
    if before.rate == side:
        return chosen(x, before, side, 0, behind)
    kernel = layer.kernel.numpy()
    return chosen(resampled(x, kernel, 1, 1), before, before.rate, len(kernel) - 1, behind)
