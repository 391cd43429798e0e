"""Seeds: one range for everything."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgan.commands.main import main
from samgan.errors import UsageError
from samgan.seeds import SEEDS, as_seed, check_seed


@given(st.integers(0, SEEDS), st.integers(1, 1 << 20))
def test_every_image_has_a_seed_of_its_own(seed, images):
    if seed + images <= SEEDS:
        check_seed(seed, images)
        np.random.default_rng([seed + images - 1, 0])
    else:
        with pytest.raises(UsageError, match=f"--seed {seed}: expected a whole number from 0 to"):
            check_seed(seed, images)


@pytest.mark.parametrize("seed", [-1, SEEDS, 10**30, True])
def test_other_values_are_refused(seed):
    with pytest.raises(UsageError, match="expected a whole number from 0 to 2\\^32 - 1"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), 3])
def test_whole_numbers_of_other_types_become_ints(seed):
    assert type(as_seed(seed)) is int
    assert as_seed(seed) == 3


@pytest.mark.parametrize("seed", [-1, np.int64(-1), SEEDS, True, np.True_, 1.5, np.float64(3), "3"])
def test_what_is_no_seed_does_not_become_one(seed):
    with pytest.raises(UsageError, match="expected a whole number"):
        inspect.unwrap(as_seed)(seed)  # past the check of annotations, as a caller is


def test_a_refusal_tells_the_type_if_that_is_the_reason():
    with pytest.raises(UsageError, match="found one of type int64, not int"):
        check_seed(np.int64(3))


@pytest.fixture(scope="module")
def data(twelve_phantoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "data"
    assert main(["prepare", str(twelve_phantoms), str(folder), "--resolution", "32", "--workers", "1"]) == 0
    return folder


@pytest.mark.parametrize("seed", [-1, 1 << 32, -(10**20)])
@pytest.mark.parametrize(
    "words",
    [
        "prepare {data} {out}",
        "subset {data} {out} --images NORMAL=2",
        "sample {data} --out {out}",
        "evaluate {data} --data {data}",
        "audit {data} --data {data}",
        "train {data} --out {out} --training.seed={seed}",
    ],
)
def test_every_command_refuses_them_in_one_line(words, seed, data, tmp_path, capsys):
    line = words.format(data=data, out=tmp_path / "out", seed=seed).split()
    option = [] if "train" in line else ["--seed", str(seed)]
    assert main([*line, *option]) == 2
    error = capsys.readouterr().err
    assert f"{seed}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
