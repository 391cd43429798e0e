"""Weights as a few tensors against weights one by one: the same steps, and the same state to save."""

import contextlib
import copy

import numpy as np
import pytest
import torch

from samgan.config import Config
from samgan.kernels import without_kernels
from samgan.networks import EqualizedConv2d
from samgan.training import Batch, Sampler, TrainingState, train_step
from samgan.training.flat import FlatAdam, FlatNetwork

CPU = torch.device("cpu")
PRESETS = {
    "plain": {},
    "modulated": {
        "network": {"generator_blocks": "modulated", "discriminator_blocks": "residual", "mapping_layers": 2},
        "training": {"loss": "relativistic-paired", "penalty": "r1-r2", "penalty_every": 3},
    },
    "small first": {
        "network": {"generator_blocks": "modulated", "discriminator_blocks": "residual", "mapping_layers": 2},
        "training": {"loss": "relativistic-paired", "penalty": "r1-r2", "first_sides": (8, 16), "first_kimg": 0.024},
    },
    "alias-free": {
        "network": {"generator_blocks": "alias-free", "generator_attention": (8,), "mapping_layers": 2},
        "training": {"loss": "relativistic-paired", "shared_latents": False},
    },
    "spectral norm": {"network": {"spectral_norm": "both", "discriminator_attention": (8,)}},
    "classes": {"network": {"num_classes": 2, "generator_blocks": "modulated"}},
}


SLOW = [pytest.param("alias-free", marks=pytest.mark.slow)]  # its filters have no fast kernel in double precision


@pytest.fixture(params=[name for name in PRESETS if name != "alias-free"] + SLOW)
def config(request):
    small = {"network": {"resolution": 32, "max_channels": 8}, "training": {"batch_size": 4}}
    return Config().override(small).override({"training.learning_rate": 1e-3}).override(PRESETS[request.param])


def batches(config, count):
    images = np.random.RandomState(0).randint(0, 256, (12, 1, 32, 32)).astype(np.uint8)
    labels = np.arange(12) % 2 if config.network.num_classes else None
    sampler = Sampler(images, config, CPU, labels=labels)
    for step in range(count):
        values = vars(sampler(step)).items()
        yield Batch(**{k: v.double() if v is not None and v.is_floating_point() else v for k, v in values})


def one_by_one(config):
    """A state as it is on a GPU."""
    state = TrainingState(config, CPU).double()
    for network in (state.generator, state.discriminator, state.ema_generator):
        for parameter in network.parameters():
            parameter.data = parameter.data.clone()
    state.flat = {}
    state.generator_optimizer = state._optimizer("generator")
    state.discriminator_optimizer = state._optimizer("discriminator")
    return state


def numbers(tree):
    """All tensors of a state, by their place in it."""
    if isinstance(tree, torch.Tensor):
        return {"": tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return {f"{key}.{name}": value for key, item in items for name, value in numbers(item).items()}


def test_fourteen_steps_and_what_is_saved_equal_those_of_weights_one_by_one(config):
    """In double precision, to 1e-9."""
    state, plain = TrainingState(config, CPU).double(), one_by_one(config)
    if config.training.first_sides:
        # Blocks that join begin with gradients near Adam's epsilon, which makes large differences of small ones.
        for one in (state, plain):
            torch.manual_seed(0)
            for parameter in [*one.generator.parameters(), *one.discriminator.parameters()]:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    for batch in batches(config, 14):  # the parts of a training that begins small end at step 12
        logged, expected = train_step(state, batch), train_step(plain, batch)
        for name, value in expected.items():
            torch.testing.assert_close(logged[name], value, rtol=1e-9, atol=1e-9)
    found, expected = numbers(state.state_dict()), numbers(plain.state_dict())
    assert sorted(found) == sorted(expected)
    for name in ("generator_optimizer", "discriminator_optimizer"):
        assert state.state_dict()[name]["param_groups"] == plain.state_dict()[name]["param_groups"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
        assert found[name].stride() == value.stride(), name
        assert found[name].untyped_storage().nbytes() == value.untyped_storage().nbytes(), name  # no more is saved


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_gradients_are_where_they_are_expected(config, name):
    state = TrainingState(config, CPU).double()
    (batch,) = batches(config, 1)
    train_step(state, batch)
    flat, network = state.flat[name], getattr(state, name)
    assert sum(group.flat.grad.square().sum() for group in flat.groups).item() == pytest.approx(
        sum(parameter.grad.square().sum() for parameter in network.parameters()).item()
    )
    for parameter in network.parameters():
        assert any(parameter.data_ptr() in spanned(group.flat) for group in flat.groups)
    state.drop_gradients()
    assert not any(parameter.grad.any() for parameter in (*network.parameters(), *flat.tensors))


def spanned(tensor):
    return range(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes)


def test_weights_made_ready_are_those_that_a_layer_computes(config):
    network = TrainingState(config, CPU).generator
    flat = FlatNetwork(copy.deepcopy(network))
    layers = [layer for group in flat.layers for layer in group.layers]
    before = [layer.operands() for layer in layers]
    with flat.ready():
        ready = [layer.operands() for layer in layers]
    with flat.ready(torch.bfloat16, frozen=True):
        cast = [layer.operands() for layer in layers]
    for one, other, last in zip(before, ready, cast, strict=True):
        for plain, fast, short in zip(one, other, last, strict=True):
            assert (plain is None) == (fast is None) == (short is None)
            if plain is not None:
                digits = 1e-6 if config.network.spectral_norm != "none" else 0  # singular values are summed otherwise
                torch.testing.assert_close(fast, plain, rtol=digits, atol=0)
                assert fast.requires_grad
                assert torch.equal(short, fast.bfloat16())
                assert not short.requires_grad
    assert all(layer.ready is None for layer in layers)


def test_spectral_norm_by_kernels_is_that_of_torch():
    """In single precision, whose kernels the double precision of other tests does not reach."""
    config = Config().override({"network.resolution": 32, "network.max_channels": 32, "network.spectral_norm": "both"})
    found = []
    for kernels in (contextlib.nullcontext, without_kernels):
        state = TrainingState(config, CPU)
        network, flat = state.discriminator, state.flat["discriminator"]
        with kernels():
            for _ in range(3):
                flat.power_iteration()
            flat.drop_gradients()
            torch.manual_seed(0)
            with flat.ready():
                layers = [layer for group in flat.layers for layer in group.layers]
                weights = [layer.operands()[0] for layer in layers]
            sum((weight * torch.randn_like(weight)).sum() for weight in weights).backward()
            flat.collect_gradients()
        vectors = [buffer for name, buffer in network.named_buffers() if name.endswith((".u", ".v"))]
        found.append([*vectors, *weights, *(layer.weight.grad for layer in layers)])
    assert len(found[0]) > 40
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def test_singular_values_keep_their_digits_in_a_pass_in_bf16():
    layer = EqualizedConv2d(8, 8, 3, spectral=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = layer.effective_weight()
    torch.testing.assert_close(weight, layer.effective_weight(), rtol=1e-6, atol=0)


def test_adam_moves_weights_as_that_of_torch_does():
    torch.manual_seed(0)
    start = [torch.randn(33), torch.randn(7)]
    ends = []
    for kind in (torch.optim.Adam, FlatAdam):
        parameters = [torch.nn.Parameter(one.clone()) for one in start]
        optimizer = kind([{"params": [one]} for one in parameters], lr=0.01, betas=(0.0, 0.99), fused=True)
        for step in range(4):
            torch.manual_seed(step)
            for parameter in parameters[: 1 + step % 2]:  # one has no gradient in every second step
                parameter.grad = torch.randn_like(parameter)
            parameters[1].grad = parameters[1].grad if step % 2 else None
            optimizer.step()
        ends.append(numbers([parameters, optimizer.state_dict()["state"]]))
    assert ends[0].keys() == ends[1].keys()
    for place, value in ends[0].items():
        assert torch.equal(value, ends[1][place]), place


def test_a_weight_that_a_pass_does_not_reach_has_no_gradient_of_an_earlier_step(config):
    state = TrainingState(config, CPU).double()
    flat = state.flat["generator"]
    labels = None if config.network.num_classes == 0 else torch.zeros(2, dtype=torch.long)
    latents = torch.randn(2, state.generator.latent_size, dtype=torch.double)
    found = []
    for scales in (slice(None), slice(1)):
        flat.drop_gradients()
        with state.ready("generator"):
            images = state.generator(latents, labels)[scales]
        sum(image.sum() for image in images).backward()
        flat.collect_gradients()
        found.append(state.generator.blocks[-1].to_image.bias.grad.clone())
    assert found[0].all()
    assert not found[1].any()
