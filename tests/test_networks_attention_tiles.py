"""Attention in tiles against its plain twin, which keeps the whole map."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from samgan.kernels import has_kernels, without_kernels
from samgan.networks import SelfAttention, attention_tiles
from samgan.networks.attention_tiles import LARGEST_SCORE, plain_attend, tiled_attend
from samgan.training import Sampler, TrainingState, train_step


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def way(request, monkeypatch):
    """Both ways to attend in tiles: by the compiled kernel, and by torch."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # tiles on any machine
    if request.param == "compiled":
        if not has_kernels(torch.zeros(())):
            pytest.skip("samgan-kernels is not installed (pip install ./kernels)")
        yield request.param
        return
    with without_kernels():
        yield request.param


only_torch = pytest.mark.parametrize("way", ["torch"], indirect=True)


def rows(size=1.0, positions=200, keys=144, d=4, e=16, dtype=torch.double):
    """Queries, keys, values and a gradient of the output."""
    shapes = ((positions, d), (keys, d), (positions, e), (keys, e))
    q, k, gradient, v = (size * torch.randn(2, *shape, dtype=dtype) for shape in shapes)
    return [t.requires_grad_() for t in (q, k, v)], gradient


def with_gradients(attend, inputs, gradient):
    out = attend(*inputs)
    return [out, *torch.autograd.grad(out, inputs, gradient)]


def assert_equal(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("tile", [1, 144 * 70, 1 << 18], ids=["fewest queries", "a ragged last tile", "one tile"])
@pytest.mark.parametrize("size", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("e", [2, 16, 37])
def test_tiles_equal_the_plain_twin(tile, size, e, monkeypatch):
    monkeypatch.setattr(attention_tiles, "TILE", tile)
    monkeypatch.setattr(attention_tiles, "FEWEST_QUERIES", 48)
    inputs, gradient = rows(size, e=e)
    ours, theirs = (with_gradients(attend, inputs, gradient) for attend in (tiled_attend, plain_attend))
    assert_equal(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [0.5, 3.0])
def test_single_precision_is_as_exact_as_that_of_the_plain_twin(size):
    """oneDNN's products run in single precision only. The distance to double precision is the measure."""
    inputs, gradient = rows(size, positions=600, keys=512, d=8, e=32)
    exact = with_gradients(plain_attend, inputs, gradient)
    single = [t.detach().float().requires_grad_() for t in inputs]
    ours, theirs = (with_gradients(attend, single, gradient.float()) for attend in (tiled_attend, plain_attend))
    for a, b, reference in zip(ours, theirs, exact, strict=True):
        assert a.dtype == torch.float32
        assert (a - reference).norm() <= 1.5 * (b - reference).norm() + 1e-6 * reference.norm()


@pytest.mark.parametrize("factor", [0.99, 1.01])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_score_that_needs_no_maximum(factor, sign):
    """All scores at the bound, on both sides of it and of zero: nothing overflows, and small parts keep digits."""
    inputs, _ = rows(dtype=torch.float32)
    length = (factor * LARGEST_SCORE / attention_tiles.LOG2_E) ** 0.5
    q, k = (torch.zeros_like(t).detach() for t in inputs[:2])
    q[:, :, 0], k[:, :, 0] = length, sign * length
    k[:, ::2, 0] *= 0.7
    v = 1e4 * inputs[2].detach()
    ours, theirs = (attend(q, k, v) for attend in (tiled_attend, plain_attend))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * v.abs().max().item())
    assert ours.isfinite().all()


def test_scores_far_beyond_the_bound():
    inputs, gradient = rows(40.0)
    assert_equal(*(with_gradients(f, inputs, gradient) for f in (tiled_attend, plain_attend)), rtol=1e-9, atol=1e-7)


def test_views_give_the_same_as_rows():
    """The layer's queries, keys and values are slices of one convolution's output; gradients may be expanded."""
    (q, k, v), _ = rows()
    views = [torch.cat([t, t], dim=2)[:, :, : t.shape[2]].detach().requires_grad_() for t in (q, k, v)]
    transposed = [t.detach().mT.contiguous().mT.requires_grad_() for t in (q, k, v)]
    gradient = torch.ones(1, dtype=torch.double).expand(2, 200, 16)
    expected = with_gradients(plain_attend, (q, k, v), gradient)
    assert_equal(with_gradients(tiled_attend, views, gradient), expected, rtol=1e-9, atol=1e-9)
    assert_equal(with_gradients(tiled_attend, transposed, gradient), expected, rtol=1e-9, atol=1e-9)


class Sizes(TorchDispatchMode):
    """The largest tensor that any operator makes."""

    def __init__(self):
        super().__init__()
        self.largest, self.names = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket)
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("pooled", [True, False])
def test_the_layer_keeps_no_map(pooled):
    layer, kept = SelfAttention(16, pooled=pooled), []
    x = torch.randn(2, 16, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t), Sizes() as ran:
        layer(x).sum().backward()
    assert {torch.ops.samgan.attend, torch.ops.samgan.attend_backward} <= ran.names
    assert max(kept) <= 2 * x.numel()
    assert ran.largest <= 2 * x.numel()


@only_torch
@pytest.mark.parametrize(
    ("threads", "pooled", "tiles"), [(1, True, True), (2, True, False), (4, False, True), (5, False, False)]
)
def test_threads_decide_for_tiles_or_the_fused_kernel(threads, pooled, tiles, monkeypatch):
    """At 32 px an image has a quarter or one million scores."""
    layer, x = SelfAttention(16, pooled=pooled).double(), torch.randn(1, 16, 32, 32, dtype=torch.double)
    torch.nn.init.constant_(layer.gamma, 0.8)
    expected = layer(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with Sizes() as ran:
        found = layer(x)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    assert (torch.ops.samgan.attend in ran.names, fused in ran.names) == (tiles, not tiles)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@only_torch
def test_an_operator_makes_no_more_than_a_tile(monkeypatch):
    monkeypatch.setattr(attention_tiles, "TILE", 144 * 64)
    inputs, gradient = rows()
    with torch.no_grad(), Sizes() as ran:
        out, logs = attention_tiles._attend._init_fn(*inputs)
        attention_tiles._attend_backward._init_fn(*inputs, out, logs, gradient)
    assert ran.largest == 144 * 64


def test_keys_that_the_kernel_does_not_take_and_numbers_that_are_none():
    inputs, gradient = rows(keys=150)
    ours, theirs = (with_gradients(attend, inputs, gradient) for attend in (tiled_attend, plain_attend))
    assert_equal(ours, theirs, rtol=1e-9, atol=1e-9)
    (q, k, v), _ = rows(dtype=torch.float32)
    q.data[1, 3, 0] = torch.nan
    found = tiled_attend(q, k, v)
    assert found[1, 3].isnan().all()
    assert found[0].isfinite().all()


def test_the_layer_uses_the_kernel_whatever_the_threads(way, monkeypatch):
    layer, x = SelfAttention(16).double(), torch.randn(3, 16, 32, 32, dtype=torch.double)
    torch.nn.init.constant_(layer.gamma, 0.8)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with Sizes() as ran:
            found.append(layer(x))
        assert (torch.ops.samgan.attend in ran.names) == (threads == 1 or way == "compiled")
    torch.set_num_threads(before)
    if way == "compiled":
        assert torch.equal(*found)


def test_tiles_refuse_a_second_derivative():
    inputs, _ = rows()
    (gradient,) = torch.autograd.grad(tiled_attend(*inputs).sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(gradient.sum(), inputs[:1])


def test_the_layer_has_a_second_derivative_without_the_fused_kernels():
    """As the penalties ask for it. The first derivative is that of the tiles."""
    layer, x = SelfAttention(8).double(), torch.randn(1, 8, 32, 32, dtype=torch.double, requires_grad=True)
    torch.nn.init.constant_(layer.gamma, 0.8)
    direction = torch.randn_like(x)
    with sdpa_kernel(SDPBackend.MATH), Sizes() as ran:
        (slope,) = torch.autograd.grad((layer(x) * direction).sum(), x, create_graph=True)
        second = torch.autograd.grad(slope.square().sum(), [x, *layer.parameters()])
    assert torch.ops.samgan.attend not in ran.names
    assert all(tensor.isfinite().all() and tensor.abs().max() > 0 for tensor in second)
    (of_tiles,) = torch.autograd.grad((layer(x) * direction).sum(), x)
    torch.testing.assert_close(of_tiles, slope, rtol=1e-9, atol=1e-9)


def test_the_layer_under_autocast_is_near_the_one_without():
    layer, x = SelfAttention(16), torch.randn(2, 16, 32, 32, requires_grad=True)
    torch.nn.init.constant_(layer.gamma, 0.8)
    direction, inputs = torch.randn_like(x), [x, *layer.parameters()]
    exact = with_gradients(lambda *_: layer(x), inputs, direction)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    near = [out, *torch.autograd.grad(out, inputs, direction.to(out.dtype))]
    for a, b in zip(near, exact, strict=True):
        assert (a - b).norm() < 0.03 * b.norm()


def test_half_precision_loses_only_what_its_inputs_lose():
    inputs, gradient = rows(dtype=torch.float32)
    half = [t.detach().bfloat16().requires_grad_() for t in inputs]
    rounded = [t.detach().float().requires_grad_() for t in half]
    ours = with_gradients(tiled_attend, half, gradient.bfloat16())
    exact = with_gradients(plain_attend, rounded, gradient.bfloat16().float())
    assert_equal([t.float() for t in ours], exact, rtol=2**-7, atol=1e-3)
    assert all(t.dtype == torch.bfloat16 for t in ours)


def test_graphs_for_other_programs_have_no_operator_of_ours():
    layer, x = SelfAttention(16).eval(), torch.randn(1, 16, 32, 32)
    program = torch.export.export(layer, (x,))
    assert "samgan" not in str(program.graph)
    torch.testing.assert_close(program.module()(x), layer(x))


def test_the_operators_are_what_torch_expects():
    """Fake tensors, which `plan` uses, have the shapes of the real ones; nothing is changed in place."""
    inputs, _ = rows(positions=70, keys=70)
    torch.library.opcheck(torch.ops.samgan.attend.default, tuple(inputs), test_utils=("test_schema", "test_faketensor"))


def test_eight_steps_equal_those_of_the_plain_twin(tiny_config, images, monkeypatch):
    """In double precision, with tiles at every scale and some penalties. Open gates let their gradients through."""
    places = {f"network.{network}_attention": [8, 16, 32] for network in ("generator", "discriminator")}
    config = tiny_config.override({**places, "training": {"learning_rate": 1e-4, "penalty": "r1", "penalty_every": 4}})
    states = []
    for few_scores in (0, 1 << 30):
        for name in ("FEW_SCORES", "FEW_FOR_KERNELS"):
            monkeypatch.setattr(f"samgan.networks.attention.{name}", few_scores)
        torch.manual_seed(0)
        state, sampler = TrainingState(config, torch.device("cpu")), Sampler(images, config, torch.device("cpu"))
        state.double()
        for name, parameter in [*state.generator.named_parameters(), *state.discriminator.named_parameters()]:
            if name.endswith("attention.gamma"):
                parameter.data.fill_(0.5)
        for step in range(8):
            batch = sampler(step)
            train_step(state, dataclasses.replace(batch, real=batch.real.double(), latents=batch.latents.double()))
        states.append([*state.generator.parameters(), *state.discriminator.parameters()])
    for ours, theirs in zip(*states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
