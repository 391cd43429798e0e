"""Steps replayed as CUDA graphs against steps as they are; skipped where there is no NVIDIA GPU."""

import contextlib
import copy

import numpy as np
import pytest
import torch

from samgan.presets import preset_config
from samgan.training import AdaptiveProbability, Batch, CapturedPasses, Sampler, TrainingState, train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

CASES = {
    "samgan-plus": {},
    "samgan-plus of two classes": {"network.num_classes": 2},
    "samgan-plus, 16 px first": {"training.first_sides": [16], "training.first_kimg": 0.08},
    "samgan-projected": {"network.vision_features": "radiograph"},
    "samgan-vision": {"network.vision_features": "radiograph"},
    "msg-gan-2": {},  # WGAN-GP, RMSprop
    "samgan-8": {},  # spectral norm and attention
    "samgan-8, latents of its own": {"training.shared_latents": False},
}


def in_double(batch):
    values = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
    return Batch(**{name: v.double() if v is not None and v.is_floating_point() else v for name, v in values.items()})


def tiny(case):
    config = preset_config(case.split(",")[0].split(" ")[0], "cpu", resolution=32)
    small = {"network.max_channels": 16, "training.batch_size": 8, "training.learning_rate": 1e-4}
    if config.network.num_classes is None:
        small |= {"network.num_classes": 0, "network.channel_base": 512}
    return config.override({**small, **CASES[case]})


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_equal_plain_ones(case, monkeypatch):
    """In double precision, over two steps that change the share of augmentation and five with a lazy penalty."""
    monkeypatch.setattr(AdaptiveProbability, "KIMG", 2.0)
    config, device = tiny(case), torch.device("cuda")
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (40, config.network.image_channels, 32, 32), dtype=np.uint8)
    sampler = Sampler(pictures, config, device, labels=np.arange(40) // 25)
    state = TrainingState(config, device)
    state.double()
    plain = copy.deepcopy(state)
    captured = CapturedPasses(state, contextlib.nullcontext)
    for step in range(36):
        batch = in_double(sampler(step))
        expected = train_step(plain, batch)
        torch.cuda.synchronize()
        with captured.stream:
            logged = train_step(state, batch, captured=captured)
        torch.cuda.synchronize()
        assert logged.keys() == expected.keys()
        for name, value in logged.items():
            assert value.item() == pytest.approx(expected[name].item(), rel=1e-7, abs=1e-9), (step, name)
    assert all(parts is not None for parts in captured.parts.values())
    assert state.augment.values == plain.augment.values
    for part in ("generator", "discriminator", "ema_generator"):
        values = getattr(state, part).state_dict()
        for name, expected in getattr(plain, part).state_dict().items():
            torch.testing.assert_close(values[name], expected, rtol=1e-6, atol=1e-8)
