"""Choice of device and arithmetic, and memory that stays with the process."""

import platform
import subprocess
import sys

import pytest
import torch

from samgan.devices import choose_precision, cpu_has_bf16, make_fabric, usable_precision
from samgan.errors import UsageError


def test_auto_takes_bf16_where_the_device_has_it(monkeypatch):
    assert [choose_precision(precision, "cpu") for precision in ("fp32", "bf16")] == ["fp32", "bf16"]
    for has_it, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has_it=has_it: has_it, raising=False)
        assert choose_precision("auto", "cpu") == expected
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert choose_precision("auto", "cpu") == "fp32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert choose_precision("auto", "cuda") == expected


def test_a_cpu_that_is_no_good_at_bf16_is_not_asked_for_it(monkeypatch):
    for supported, expected in ((True, "bf16"), (False, "fp32")):
        answer = lambda supported=supported: supported  # noqa: E731
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", answer, raising=False)
        assert cpu_has_bf16() is supported
        assert usable_precision("bf16", "cpu") == expected
        assert usable_precision("fp32", "cpu") == "fp32"
        if supported:
            assert make_fabric("cpu", precision="bf16").strategy.precision.precision == "bf16-mixed"
    with pytest.raises(UsageError, match=r"bf16: this processor cannot compute in bf16 .* expected fp32"):
        make_fabric("cpu", precision="bf16")


def test_unknown_device():
    with pytest.raises(UsageError, match="--device tpu"):
        make_fabric("tpu")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library takes the setting")
def test_freed_memory_is_kept():
    """64 MiB are 16,384 pages of 4 KiB, which the system clears whenever it hands them out."""
    script = """if True:
        import resource, torch
        from samgan.devices import keep_freed_memory
        def use(number):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            # Each a little smaller than the last: aligned memory asks for more than it takes.
            torch.ones((16 << 20) - 4096 * number)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        before = min(map(use, range(3)))
        assert keep_freed_memory()
        print(before, min(map(use, range(3, 9))))
    """
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    before, after = map(int, out.split())
    assert before > 1000 > after
