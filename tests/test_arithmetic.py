"""What training computes does not change by accident: weights after 20 steps against stored ones.

Two records of every case stand in arithmetic.json. A fingerprint of a run in double precision holds on every machine,
up to rounding. A hash of a run in single precision holds bit for bit on one kind of processor and one version of torch
only; where none is stored for the machine at hand, that part is skipped.

    python tests/test_arithmetic.py    # stores what the code at hand computes on this machine
"""

import dataclasses
import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from samgan.config import Config
from samgan.kernels import kernels_version
from samgan.presets import preset_config
from samgan.training import Batch, Sampler, TrainingState, train_step

RECORD = Path(__file__).with_name("arithmetic.json")
STEPS = 20
SMALL = {"network.max_channels": 16, "training.batch_size": 8}
PLUS = {**SMALL, "network.channel_base": 512, "network.mapping_layers": 1}
CLASSES = {"network.num_classes": 3, "data.class_sampling": "balanced"}
EYES = {"network.vision_features": "radiograph", "network.vision_resolution": 64, "network.vision_channels": 8}
CASES = {
    "msg-gan-6": ("msg-gan-6", SMALL),
    "msg-gan-4": ("msg-gan-4", SMALL),
    "samgan-8": ("samgan-8", SMALL),
    "samgan-plus": ("samgan-plus", {**PLUS, "network.num_classes": 0}),
    "samgan-plus, 16 px first": (
        "samgan-plus",
        {**PLUS, "network.num_classes": 0, "training.first_sides": [16], "training.first_kimg": 0.08},
    ),
    "samgan-plus, classes": ("samgan-plus", {**PLUS, **CLASSES}),
    **{name: (name, {**PLUS, **EYES, "network.num_classes": 0}) for name in ("samgan-projected", "samgan-vision")},
    "samgan-plus, classes, two processes": ("samgan-plus", {**PLUS, **CLASSES}),
}


def machine() -> str:
    """What decides the last bit of a convolution, as far as it is known."""
    try:
        facts = Path("/proc/cpuinfo").read_text()
        found = (re.search(rf"^{key}\s*: (.*)$", facts, flags=re.M) for key in ("model name", "cpu family", "model"))
        processor = ", ".join(match[1] for match in found if match)
    except OSError:
        processor = "unknown processor"
    kernels = f", kernels {kernels_version()}" if kernels_version() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor}, {capability}, torch {torch.__version__.partition('+')[0]}{kernels}"


def configuration(case: str) -> Config:
    preset, settings = CASES[case]
    return preset_config(preset, "cpu", resolution=32).override(settings)


def networks_after_training(case: str, double: bool) -> list[dict[str, torch.Tensor]]:
    """Weights of the generator, the discriminator and the averaged generator after `STEPS` steps."""
    config, device = configuration(case), torch.device("cpu")
    images = np.random.RandomState(0).randint(0, 256, (40, 1, 32, 32)).astype(np.uint8)
    sampler = Sampler(images, config, device, labels=np.arange(40) % 3)
    state = TrainingState(config, device)
    networks = [state.generator, state.discriminator, state.ema_generator]
    if double:
        state.double()
    for step in range(STEPS):
        batch = sampler(step)
        if double:
            values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(Batch)}
            batch = Batch(
                **{
                    name: value.double() if value is not None and value.is_floating_point() else value
                    for name, value in values.items()
                }
            )
        train_step(state, batch)
    return [network.state_dict() for network in networks]


def measure(case: str, exact: bool = True) -> dict:
    """For each network, two numbers in double precision; and the hash in single precision if `exact`, else None."""
    fingerprint = []
    for weights in networks_after_training(case, double=True):
        flat = torch.cat([tensor.double().flatten() for _, tensor in sorted(weights.items())]).numpy()
        direction = np.random.RandomState(1).standard_normal(len(flat))
        fingerprint += [float(np.linalg.norm(flat)), float(flat @ direction)]
    return {"hash": hash_after_training(case) if exact else None, "fingerprint": fingerprint}


def hash_after_training(case: str) -> str:
    digest = hashlib.sha256()
    for weights in networks_after_training(case, double=False):
        for name, tensor in sorted(weights.items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def measure_on_two_processes(case: str) -> dict:
    """As `measure`; the second process is a fork, which ends here."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        own = 0 if child else 1
        status = 1
        try:
            distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=own, world_size=2)
            found = measure(case)
            distributed.destroy_process_group()
            status = 0
        finally:
            if not child:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    return found


def measure_any(case: str) -> dict:
    return measure_on_two_processes(case) if case.endswith("two processes") else measure(case)


ON_TWO_PROCESSES = f"""
import json, sys
sys.path.insert(0, {str(RECORD.parent)!r})
import torch
import test_arithmetic
torch.set_num_threads(1)
print(json.dumps(test_arithmetic.measure_on_two_processes(sys.argv[1])))
"""


SLOW = {"samgan-projected", "samgan-vision", "samgan-plus, classes, two processes"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
)
def test_training_computes_what_it_computed_before(case, run_script):
    record = json.loads(RECORD.read_text())
    stored = record["hashes"].get(machine(), {}).get(case)
    in_two = case.endswith("two processes")
    found = run_script(ON_TWO_PROCESSES, case) if in_two else measure(case, exact=stored is not None)
    advice = (
        "training's arithmetic has changed: if that is meant, raise samgan.training.step.ARITHMETIC and store the new "
        "weights (see the top of this file)"
    )
    assert found["fingerprint"] == pytest.approx(record["fingerprints"][case], rel=1e-6), advice
    if stored is None:
        pytest.skip(f"the fingerprint is right; no hash is stored for {machine()}")
    assert found["hash"] == stored, advice


if __name__ == "__main__":
    torch.set_num_threads(1)
    document = json.loads(RECORD.read_text()) if RECORD.exists() else {"fingerprints": {}, "hashes": {}}
    measured = {case: measure_any(case) for case in CASES}
    document["fingerprints"] = {case: found["fingerprint"] for case, found in measured.items()}
    document["hashes"][machine()] = {case: found["hash"] for case, found in measured.items()}
    RECORD.write_text(json.dumps(document, indent=2) + "\n")
    sys.stdout.write(f"stored {len(measured)} cases for {machine()}\n")
