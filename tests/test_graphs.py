"""Steps replayed as CUDA graphs against steps as they are; skipped where there is no NVIDIA GPU."""

import contextlib
import copy

import numpy as np
import pytest
import torch

from samgan.presets import preset_config
from samgan.runs import Run
from samgan.training import Batch, CapturedPasses, Sampler, TrainingState, train, train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

CASES = {
    "samgan-plus": {},
    "samgan-plus of two classes": {"network.num_classes": 2},
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
        small |= {"network.num_classes": 0, "network.channel_base": 512, "training.augment_kimg": 2.0}
    return config.override({**small, **CASES[case]})


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_equal_plain_ones(case):
    """In double precision, over two steps that change the share of augmentation and four with a penalty."""
    config, device = tiny(case), torch.device("cuda")
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (40, config.network.image_channels, 32, 32), dtype=np.uint8)
    sampler = Sampler(pictures, config, device, labels=np.arange(40) // 25)
    state = TrainingState(config, device)
    for part in (state.generator, state.discriminator, state.ema_generator):
        part.double()
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
    assert any(parts is not None for parts in captured.parts.values())
    assert state.augment.values == plain.augment.values
    for part in ("generator", "discriminator", "ema_generator"):
        values = getattr(state, part).state_dict()
        for name, expected in getattr(plain, part).state_dict().items():
            torch.testing.assert_close(values[name], expected, rtol=1e-6, atol=1e-8)


def test_a_run_on_a_gpu_resumes_where_it_was(tmp_path):
    from samgan.devices import make_fabric

    config = tiny("samgan-plus").override(
        {"training": {"kimg": 0.24, "snapshot_every_kimg": 0.08, "log_every_kimg": 0.08}}
    )
    pictures = np.random.default_rng(0).integers(0, 256, (40, 1, 32, 32), dtype=np.uint8)
    fabric = make_fabric("cuda")
    whole = train(config, pictures, Run.create(tmp_path / "whole", config, {}), fabric, quiet=True)
    shorter = config.override({"training.kimg": 0.16})
    train(shorter, pictures, Run.create(tmp_path / "parts", shorter, {}), fabric, quiet=True)
    run = Run.open(tmp_path / "parts")
    resumed = train(config, pictures, run, fabric, resume=True, quiet=True)
    assert resumed.step == whole.step == 30
    for name, value in whole.generator.state_dict().items():
        # The kernels of bilinear enlarging and of turning images add in no fixed order.
        torch.testing.assert_close(resumed.generator.state_dict()[name], value, rtol=0, atol=0.01)
