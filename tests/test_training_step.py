"""One step against a plain loop of torch, and every switch that changes it."""

import copy
from functools import partial

import pytest
import torch

from samgan.devices import make_fabric
from samgan.networks import (
    Discriminator,
    Generator,
    activate,
    image_pyramid,
    pixel_norm,
    plain_image_conv,
    plain_upsample_conv,
)
from samgan.presets import preset_config, preset_names
from samgan.training import (
    Batch,
    Sampler,
    TrainingState,
    relativistic_average_hinge,
    train_step,
)

CPU = torch.device("cpu")


@pytest.fixture
def fabric():
    return make_fabric("cpu")


def batches(config, images, count):
    sampler = Sampler(images, config, CPU)
    return [sampler(step) for step in range(count)]


def assert_equal_weights(network, expected, tolerance=0.0):
    for (name, value), other in zip(network.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(
            value, other, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


# ---- one step


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_steps(name):
    config = preset_config(name, "cpu", resolution=32)
    rate = (
        1e-4  # large updates, and unlucky weights, reach the flat part of the hinge, where the generator stands still
    )
    config = config.override(
        {"network.max_channels": 8, "training": {"batch_size": 4, "learning_rate": rate, "seed": 1}}
    )
    network = config.network
    torch.manual_seed(0)
    state = TrainingState(config, CPU)
    before = copy.deepcopy(state)
    real = torch.rand(4, network.image_channels, 32, 32) * 2 - 1
    logged = train_step(state, Batch(real, torch.randn(4, network.latent_size), None, torch.rand(4)))
    assert state.step == 1
    assert all(torch.isfinite(value) for value in logged.values())
    assert ("penalty" in logged) == (config.training.penalty != "none")
    assert state.nonfinite() is None
    for part in ("generator", "discriminator"):
        for (key, old), new in zip(
            getattr(before, part).named_parameters(), getattr(state, part).parameters(), strict=True
        ):
            # With gamma = 0 no gradient reaches the projections of self-attention in the very first step, nor what
            # comes before the last convolution of a residual path, which starts at zero. The logit's bias cancels out
            # of relativistic losses.
            closed = (".attention." in key and not key.endswith("gamma")) or ".expand." in key or ".mix." in key
            if not closed and "to_logit.bias" not in key:
                assert not torch.equal(old, new), f"{part}.{key} did not move"


def plain_steps(config, batches):
    """MSG-GAN's own loop: generate, update D, generate again, update G, average; nothing shared, joined or frozen."""
    training = config.training
    torch.manual_seed(training.seed)
    generator, discriminator = Generator(config.network).double(), Discriminator(config.network).double()
    average = copy.deepcopy(generator)
    arguments = {"lr": training.learning_rate, "betas": training.adam_betas}
    generator_optimizer = torch.optim.Adam(generator.parameters(), **arguments)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), **arguments)
    decay = 0.5 ** (training.batch_size / (1000 * training.ema_halflife_kimg))
    losses = []
    for batch in batches:
        real = image_pyramid(batch.real, config.network.resolutions)
        fake = [images.detach() for images in generator(batch.latents)]
        discriminator_loss = relativistic_average_hinge(discriminator(real), discriminator(fake))[0]
        discriminator_optimizer.zero_grad()
        discriminator_loss.backward()
        discriminator_optimizer.step()
        iterate_power(discriminator)

        latents = batch.latents if batch.generator_latents is None else batch.generator_latents
        fake = generator(latents)
        generator_loss = relativistic_average_hinge(discriminator(real), discriminator(fake))[1]
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        iterate_power(generator)

        with torch.no_grad():
            for mean, weight in zip(average.parameters(), generator.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * weight)
        iterate_power(average)
        losses.append((discriminator_loss.item(), generator_loss.item()))
    return generator, discriminator, average, losses


def in_double(batch):
    latents = batch.generator_latents
    return Batch(
        batch.real.double(), batch.latents.double(), latents if latents is None else latents.double(), batch.mix
    )


def iterate_power(network):
    for module in network.modules():
        if getattr(module, "spectral", False):
            with torch.no_grad():
                matrix = module.weight.flatten(1)
                module.v.copy_(torch.nn.functional.normalize(matrix.T @ module.u, dim=0))
                module.u.copy_(torch.nn.functional.normalize(matrix @ module.v, dim=0))


@pytest.mark.parametrize("shared_latents", [True, False])
@pytest.mark.parametrize("spectral_norm", ["none", "both"])
def test_ten_steps_equal_the_plain_loop(tiny_config, images, monkeypatch, shared_latents, spectral_norm):
    """In double precision: Adam with beta1 = 0 turns the rounding error of a gradient near 0 into a full step."""
    config = tiny_config.override(
        {"network.spectral_norm": spectral_norm, "training": {"shared_latents": shared_latents, "learning_rate": 1e-4}}
    )
    state = TrainingState(config, CPU)
    state.double()
    steps = [in_double(batch) for batch in batches(config, images, 10)]
    logged = [train_step(state, batch) for batch in steps]
    monkeypatch.setattr("samgan.networks.blocks.image_conv", plain_image_conv)
    monkeypatch.setattr("samgan.networks.blocks.upsample_conv", plain_upsample_conv)
    monkeypatch.setattr("samgan.networks.blocks.activate_and_normalize", lambda x: pixel_norm(activate(x)))
    generator, discriminator, average, losses = plain_steps(config, steps)
    for line, (discriminator_loss, generator_loss) in zip(logged, losses, strict=True):
        assert line["loss_discriminator"].item() == pytest.approx(discriminator_loss, rel=1e-9)
        assert line["loss_generator"].item() == pytest.approx(generator_loss, rel=1e-9)
    assert_equal_weights(state.generator, generator, 1e-9)
    assert_equal_weights(state.discriminator, discriminator, 1e-9)
    assert_equal_weights(state.ema_generator, average, 1e-9)


def test_own_latents_give_another_step(tiny_config, images):
    states = []
    for shared in (True, False):
        config = tiny_config.override({"training.shared_latents": shared})
        state = TrainingState(config, CPU)
        train_step(state, batches(config, images, 1)[0])
        states.append(state)
    assert_equal_weights(states[0].discriminator, states[1].discriminator)  # its latents are the same
    first, second = (state.generator.blocks[0].conv_1.weight for state in states)
    assert not torch.equal(first, second)


def test_without_averaging_samples_come_from_the_generator(tiny_config, images):
    config = tiny_config.override({"training.ema_halflife_kimg": 0})
    state = TrainingState(config, CPU)
    train_step(state, batches(config, images, 1)[0])
    assert state.ema_generator is None
    assert state.sampling_generator is state.generator
    assert state.state_dict()["ema_generator"] is None


def test_the_half_life_of_the_average_grows_with_the_run(tiny_config, images):
    """After n images it is ema_ramp * n until it reaches ema_halflife_kimg."""
    state = TrainingState(tiny_config.override({"training": {"ema_ramp": 0.5, "ema_halflife_kimg": 0.006}}), CPU)
    for step, batch in enumerate(batches(tiny_config, images, 5)):
        before = [p.clone() for p in state.ema_generator.parameters()]
        train_step(state, batch)
        halflife = min(6.0, max(0.5 * 4 * step, 0.5))
        for old, new, target in zip(
            before, state.ema_generator.parameters(), state.generator.parameters(), strict=True
        ):
            torch.testing.assert_close(new, old.lerp(target, 1 - 0.5 ** (4 / halflife)))


def test_both_learning_rates_are_used(tiny_config):
    config = tiny_config.override({"training": {"learning_rate": 0.001, "discriminator_learning_rate": 0.004}})
    state = TrainingState(config, CPU)
    assert state.generator_optimizer.param_groups[0]["lr"] == 0.001
    assert state.discriminator_optimizer.param_groups[0]["lr"] == 0.004


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("spoil", [lambda value: value.flatten()[:2], lambda value: value + torch.inf])
def test_moments_that_are_not_those_of_the_weights_are_refused(tiny_config, images, optimizer, spoil):
    """Fused Adam would write past the end of moments that are too small."""
    config = tiny_config.override({"training.optimizer": optimizer})
    state = TrainingState(config, CPU)
    train_step(state, batches(config, images, 1)[0])
    saved = state.state_dict()
    TrainingState(config, CPU).load_state_dict(saved)
    moments = saved["generator_optimizer"]["state"][0]
    name = next(name for name in moments if name != "step")
    moments[name] = spoil(moments[name])
    with pytest.raises(ValueError, match=name):
        TrainingState(config, CPU).load_state_dict(saved)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_mapping_learns_at_a_tenth_of_the_rate(tiny_config, images, optimizer):
    config = tiny_config.override({"network": {"generator_blocks": "modulated", "mapping_layers": 2}})
    state = TrainingState(config.override({"training": {"optimizer": optimizer, "learning_rate": 1e-3}}), CPU)
    before = copy.deepcopy(state.generator)
    train_step(state, batches(config, images, 1)[0])
    moved = {}
    for (name, old), new in zip(before.named_parameters(), state.generator.parameters(), strict=True):
        moved[name] = (new - old).abs().max().item()
    # The first step of either optimizer has the same length for every weight, whatever its gradient.
    assert moved["mapping.0.weight"] == pytest.approx(0.1 * moved["blocks.1.conv_1.conv.weight"], rel=0.02)
    assert moved["mapping.1.bias"] == pytest.approx(0.1 * moved["blocks.1.conv_1.conv.bias"], rel=0.02)


def test_rates_fall_with_the_square_root_of_images_seen(tiny_config, images):
    config = tiny_config.override(
        {
            "network": {"generator_blocks": "modulated", "mapping_layers": 1},
            "training": {"rate_decay_kimg": 0.004, "learning_rate": 0.01, "discriminator_learning_rate": 0.02},
        }
    )
    state = TrainingState(config, CPU)
    rates = []
    for batch in batches(config, images, 5):
        train_step(state, batch)
        generator, discriminator = state.generator_optimizer.param_groups, state.discriminator_optimizer.param_groups
        rates.append([group["lr"] for group in (*generator, *discriminator)])
    for step, (others, mapping, discriminator) in enumerate(rates):
        factor = max(step, 1) ** -0.5  # 4 images a step, and the reference is after 4
        assert (others, mapping, discriminator) == pytest.approx((0.01 * factor, 0.001 * factor, 0.02 * factor))
    constant = TrainingState(config.override({"training.rate_decay_kimg": 0}), CPU)
    for batch in batches(config, images, 3):
        train_step(constant, batch)
    assert constant.generator_optimizer.param_groups[0]["lr"] == 0.01


def test_bf16_keeps_weights_and_losses_in_fp32(tiny_config, images):
    config = tiny_config.override(
        {"training": {"precision": "bf16", "loss": "wgan", "penalty": "gradient-per-scale", "learning_rate": 1e-4}}
    )
    state, plain = TrainingState(config, CPU), TrainingState(config, CPU)
    batch = batches(config, images, 1)[0]
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)  # as Fabric has it; slow on some processors
    logged, exact = train_step(state, batch, autocast), train_step(plain, batch)
    assert {p.dtype for p in (*state.generator.parameters(), *state.discriminator.parameters())} == {torch.float32}
    for name, value in exact.items():
        assert logged[name].dtype == torch.float32
        torch.testing.assert_close(logged[name], value, rtol=0.05, atol=0.05)
    assert not torch.equal(logged["logit_fake"], exact["logit_fake"])


@pytest.mark.parametrize("penalty", ["r1-r2", "gradient-per-scale"])
def test_a_lazy_penalty_is_that_of_its_steps_times_their_distance(tiny_config, images, penalty):
    """Steps 0 and 3 of a lazy run equal those of a run with three times the weight; steps 1 and 2 have no penalty."""
    lazy = tiny_config.override({"training": {"penalty": penalty, "penalty_every": 3, "penalty_weight": 0.5}})
    heavy = tiny_config.override({"training": {"penalty": penalty, "penalty_weight": 1.5}})
    none = tiny_config.override({"training": {"penalty": "none"}})
    state = TrainingState(lazy, CPU)
    for step, batch in enumerate(batches(lazy, images, 4)):
        other = TrainingState(none if step % 3 else heavy, CPU)
        other.load_state_dict(copy.deepcopy(state.state_dict()))
        logged, expected = train_step(state, batch), train_step(other, batch)
        assert logged.keys() == expected.keys()
        assert ("penalty" in logged) == (step % 3 == 0)
        assert_equal_weights(state.discriminator, other.discriminator, 1e-7)
        assert_equal_weights(state.generator, other.generator, 1e-7)


def test_moments_from_a_file_of_another_memory_layout(tiny_config, images):
    """Fused Adam reads weights and moments as if they lay alike."""
    state, loaded = TrainingState(tiny_config, CPU), TrainingState(tiny_config, CPU)
    first, second = batches(tiny_config, images, 2)
    train_step(state, first)
    saved = copy.deepcopy(state.state_dict())
    for name in ("generator", "discriminator"):
        for moments in saved[f"{name}_optimizer"]["state"].values():
            moments.update({key: value.contiguous() for key, value in moments.items()})
        saved[name] = {key: value.contiguous() for key, value in saved[name].items()}
    loaded.load_state_dict(saved)
    train_step(state, second), train_step(loaded, second)
    assert_equal_weights(loaded.generator, state.generator)
    assert_equal_weights(loaded.discriminator, state.discriminator)
    for one, other in zip(loaded.generator.parameters(), state.generator.parameters(), strict=True):
        assert one.stride() == other.stride()


def test_other_seed_other_weights(tiny_config):
    one, same, other = (TrainingState(tiny_config.override({"training.seed": seed}), CPU) for seed in (0, 0, 1))
    assert_equal_weights(one.generator, same.generator)
    assert not torch.equal(one.generator.blocks[0].conv_1.weight, other.generator.blocks[0].conv_1.weight)


def test_the_length_of_each_gradient_is_logged(tiny_config, images):
    config = tiny_config.override({"training.optimizer": "rmsprop"})
    state = TrainingState(config, CPU)
    (batch,) = batches(config, images, 1)
    logged = train_step(state, batch)
    for name in ("generator", "discriminator"):
        gradients = [parameter.grad.flatten() for parameter in getattr(state, name).parameters()]
        assert logged[f"gradient_{name}"].item() == pytest.approx(torch.cat(gradients).norm().item(), rel=1e-5)
