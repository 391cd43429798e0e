"""A collapse is found in the log where there is one, and neither in a young run nor in one that recovers."""

import pytest

from samgan.runs import find_collapse


def log(alike, *, every=4.0, sign=0.5, gradient=1.0):
    """Lines of a run whose generated pairs are as much alike at each snapshot: 0 as real ones, 1 all equal."""
    sign, gradient = ([value] * len(alike) if isinstance(value, float) else value for value in (sign, gradient))
    for number, a in enumerate(alike, start=1):
        step, images = 100 * number, int(1000 * every * number)
        where = {"step": step, "images_seen": images}
        train = {
            "wall_seconds": 60.0 * number,
            "sign_real": sign[number - 1],
            "gradient_generator": gradient[number - 1],
        }
        yield {"kind": "train", **where, **train}
        scores = {"ms_ssim_real": 0.6, "ms_ssim_generated": 0.6 + 0.4 * a, "ms_ssim_gap": 0.4 * a}
        yield {"kind": "scores", **where, **scores}


def test_images_that_stay_alike_are_a_collapse_at_the_third_snapshot_that_counts():
    found = find_collapse(log([1.0, 1.0, 0.9, 0.95, 0.95, 0.95]))
    assert (found.images_seen, found.step, found.wall_seconds) == (20_000, 500, 300.0)
    assert "0.980" in found.reason
    assert "0.600" in found.reason
    assert "in 3 snapshots in a row" in found.reason


@pytest.mark.parametrize(
    "alike",
    [
        [0.95] * 4,  # too young: two snapshots behind 10 kimg
        [1.0, 0.95, 0.93, 0.9, 0.87, 0.84, 0.81, 0.7, 0.5],  # slow, and getting better
        [0.3] * 20,  # less diverse than real ones, which is no collapse yet
        [0.9, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.2, 0.9, 0.9],  # never three in a row
        [-0.1] * 20,
    ],
    ids=["young", "recovering", "less diverse", "never in a row", "more diverse than real"],
)
def test_no_alarm(alike):
    assert find_collapse(log(alike)) is None


def test_less_likeness_needs_a_second_sign():
    assert find_collapse(log([0.6] * 10)) is None
    assert "never wrong" in find_collapse(log([0.6] * 10, sign=1.0)).reason
    assert "faded" in find_collapse(log([0.6] * 10, gradient=[1.0, *[0.01] * 9])).reason
    assert find_collapse(log([0.3] * 10, sign=1.0, gradient=[1.0, *[0.01] * 9])) is None


def test_what_is_said_does_not_change_as_the_run_goes_on():
    lines = list(log([0.95] * 10))
    first = next(found for count in range(len(lines)) if (found := find_collapse(lines[:count])))
    assert all(find_collapse(lines[:count]) == first for count in range(lines.index(lines[-1]), len(lines)))


def test_a_snapshot_is_judged_by_the_losses_of_its_own_step():
    lines = list(log([0.6] * 7, sign=[0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]))
    found = find_collapse(sorted(lines, key=lambda line: (line["step"], line["kind"])))  # scores before train
    assert found == find_collapse(lines)
    assert (found.step, found.wall_seconds) == (500, 300.0)


def test_older_logs_have_no_gradients():
    lines = [{key: value for key, value in line.items() if key != "gradient_generator"} for line in log([0.6] * 10)]
    assert find_collapse(lines) is None
