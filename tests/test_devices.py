"""Choice of device and arithmetic, and memory that stays with the process."""

import platform
import subprocess
import sys

import pytest
import torch

from samgan.devices import OneProcess, choose_precision, cpu_has_bf16, make_fabric, usable_precision
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
            alone, together = make_fabric("cpu", precision="bf16"), make_fabric("cpu", 2, precision="bf16")
            for fabric in (alone, together):
                with fabric.autocast():
                    assert torch.is_autocast_enabled("cpu")
                    assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    with pytest.raises(UsageError, match=r"bf16: this processor cannot compute in bf16 .* expected fp32"):
        make_fabric("cpu", precision="bf16")


def test_one_process_says_what_fabric_would_say(monkeypatch):
    alone = make_fabric("cpu")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun, which started this process only
    monkeypatch.setenv("WORLD_SIZE", "1")
    fabric = make_fabric("cpu")
    assert (type(alone), type(fabric).__name__) == (OneProcess, "Fabric")
    for one in (alone, fabric):
        one.launch()
        assert str(one.device) == "cpu"
        assert (one.world_size, one.global_rank, one.local_rank, one.node_rank) == (1, 0, 0, 0)
        assert getattr(one.strategy, "watch", None) is None
        with one.autocast():
            assert not torch.is_autocast_enabled("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_process_uses_the_first_gpu(precision):
    alone = make_fabric("cuda", precision=precision)
    alone.launch()
    assert str(alone.device) == "cuda:0"
    with alone.autocast():
        assert torch.is_autocast_enabled("cuda") is (precision == "bf16")


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
