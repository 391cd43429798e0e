"""Choice of device and arithmetic."""

import pytest
import torch

from samgan.devices import choose_precision, make_fabric
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


def test_unknown_device():
    with pytest.raises(UsageError, match="--device tpu"):
        make_fabric("tpu")
