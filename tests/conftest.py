"""What several test files share: one thread, tiny configurations, pictures made up here, and the real ones if there."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file

from samgan.config import Config
from samgan.data.phantom import write_phantoms
from samgan.metrics.feature_networks import NETWORKS
from samgan.metrics.radiograph import Radiograph

# Folders NORMAL and PNEUMONIA of Kermany's chest X-rays; tests that want them skip where they are not.
REAL_IMAGES = Path(os.environ.get("SAMGAN_XRAYS", Path(__file__).parents[2] / "shared/data/kermany-cxr"))

# The same draws in every run: a test that fails was broken by the change. `make test-random` draws new ones.
# A slow or busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", patient, derandomize=True)
settings.register_profile("random", patient, print_blob=True)
settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Of this process and of those that it starts: the processors are for the workers of pytest, one each."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def few_are_scored():
    """Of tests that do not say otherwise: the images of a snapshot's scores, and the pairs of MS-SSIM."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samgan.training.snapshots.SCORED_IMAGES", 64)
        patch.setattr("samgan.scoring.images.MS_SSIM_PAIRS", 300)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Features that tests compute are nothing for the cache of whoever runs them."""
    os.environ["SAMGAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def radiograph(tmp_path, monkeypatch):
    """Random weights in place of those that come with samgan; their SHA-256."""
    torch.manual_seed(0)
    file = tmp_path / "radiograph.safetensors"
    save_file(Radiograph().state_dict(), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    record = dataclasses.replace(NETWORKS["radiograph"], find=lambda _: file, sha256=sha256)
    monkeypatch.setitem(NETWORKS, "radiograph", record)
    return sha256


@pytest.fixture(scope="session")
def tiny_config():
    """SAMGAN with everything on, 32 px, 8 channels, 10 steps of 4 images."""
    return Config().override(
        {
            "network": {
                "resolution": 32,
                "max_channels": 8,
                "spectral_norm": "both",
                "generator_attention": [8, 16],
                "discriminator_attention": [8, 32],
            },
            "training": {
                "batch_size": 4,
                "kimg": 0.04,
                "log_every_kimg": 0.008,
                "snapshot_every_kimg": 0.016,
                "ema_halflife_kimg": 0.02,
            },
        }
    )


@pytest.fixture(scope="session")
def images():
    """22 different random pictures, uint8 [n, 1, 32, 32]; not a multiple of the batch."""
    return np.random.default_rng(7).integers(0, 256, (22, 1, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="session")
def twelve_phantoms(tmp_path_factory):
    """A folder with six phantoms of each of two classes, 32 px, not to be changed."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 6, 32)
    return folder


@pytest.fixture(scope="session")
def real_images_folder():
    if not REAL_IMAGES.is_dir():
        pytest.skip(f"no real X-rays at {REAL_IMAGES}; SAMGAN_XRAYS names their folder")
    return REAL_IMAGES


@pytest.fixture(scope="session")
def run_script(tmp_path_factory):
    """Run Python source in a process of its own and return the JSON it prints last."""

    def run(source, *arguments, folder=None):
        folder = folder or tmp_path_factory.mktemp("script")
        script = folder / "script.py"
        script.write_text(source)
        root = str(Path(__file__).parents[1])
        result = subprocess.run(
            [sys.executable, "-W", "error", str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on this machine. The client reads its settings when it is imported, so each test imports it anew."""
    if importlib.util.find_spec("huggingface_hub") is None:
        pytest.skip("huggingface_hub is not installed: pip install 'samgan[hub]'")
    from hub_server import TOKEN, Hub

    hub, before = Hub(), _forget("huggingface_hub")
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    settings = {"DISABLE_XET": "1", "DISABLE_PROGRESS_BARS": "1", "DISABLE_TELEMETRY": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"HF_HUB_{name}", value)
    for name, value in {"ENDPOINT": hub.endpoint, "TOKEN": TOKEN, "HOME": str(tmp_path / "hf-home")}.items():
        monkeypatch.setenv(f"HF_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield hub
    hub.close()
    if close := getattr(sys.modules.get("huggingface_hub.utils"), "close_session", None):
        close()
    _forget("huggingface_hub")
    sys.modules.update(before)


def _forget(package):
    """Take a package out of the modules that are imported; returns them."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == package}
