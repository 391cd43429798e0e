"""Threads share memory by turns."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_data_readers import dicom, png

from samgan.data.budget import Budget

LIMIT = 2 * 2**30
FILES = 12


def test_no_more_is_in_use_than_the_whole_and_everybody_comes_to_an_end():
    budget, lock, used, most, alone = Budget(100), threading.Lock(), 0, 0, []

    def work(size):
        nonlocal used, most
        with budget.holding(size):
            with lock:
                used += size
                most = max(most, used)
                if size > 100:
                    alone.append(used == size)
            time.sleep(0.001)
            with lock:
                used -= size
        return size

    sizes = np.random.default_rng(0).integers(0, 130, 200).tolist()  # some are larger than the whole
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(work, sizes)) == sizes
    assert 100 < most < 130
    assert alone
    assert all(alone)


def test_those_who_wait_come_in_the_order_of_asking():
    budget, order, threads = Budget(10), [], []
    budget.take(10)

    def work(number, size):
        with budget.holding(size):
            order.append(number)

    for number, size in enumerate((9, 1, 1, 9)):  # the small ones would fit beside others, but do not overtake
        threads.append(threading.Thread(target=work, args=(number, size)))
        threads[-1].start()
        while len(budget._waiting) <= number:
            time.sleep(0.001)
    budget.give(5)
    time.sleep(0.02)
    assert order == []
    budget.give(5)
    for thread in threads:
        thread.join(10)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2, 3]


def test_a_reservation_that_grows_never_holds_while_it_waits():
    budget = Budget(10)

    def work(_):
        with budget.reservation() as reserve:
            for size in (4, 3, 6, 10, 50):
                reserve(size)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40), timeout=20))
    assert budget._used == 0


def test_what_was_held_is_given_back_after_an_exception():
    budget = Budget(10)

    def fail():
        with budget.reservation() as reserve:
            reserve(7)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    with pytest.raises(OSError, match="disk full"), budget.holding(3):
        raise OSError("disk full")
    assert budget._used == 0


MEASURE = """
import json, resource
from samgan.data import chunks, prepare, survey
chunks.CHUNK_IMAGES = survey.SURVEYED_IMAGES = 1
prepare("{source}", "{out}", workers={files}, duplicates="keep")
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["16-bit grey PNG", "RGB PNG", "DICOM"])
def test_twelve_threads_read_60_megapixel_mammograms_in_less_than_two_gigabytes(kind, tmp_path, run_script):
    values = np.add.outer(np.arange(8000, dtype=np.uint16) // 4, np.arange(7500, dtype=np.uint16) // 4)
    (tmp_path / "set").mkdir()
    for number in range(2):
        shifted = values + np.uint16(100 * number)
        if kind == "DICOM":
            data = dicom(shifted)
        else:
            data = png(shifted if "16" in kind else np.repeat((shifted >> 4).astype(np.uint8)[..., None], 3, axis=2))
        (tmp_path / f"set/{number}.png").write_bytes(data)
        for link in range(1, FILES // 2):
            (tmp_path / f"set/{number}-{link}.png").hardlink_to(tmp_path / f"set/{number}.png")
    source = tmp_path / "set"
    assert run_script(MEASURE.format(source=source, out=tmp_path / "out", files=FILES)) < LIMIT
