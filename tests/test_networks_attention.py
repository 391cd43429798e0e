"""Every kind of attention: the identity at first, then its equations."""

import math
from functools import partial

import pytest
import torch
import torchvision
from torch.nn import functional as F

from samgan.networks import (
    ATTENTION,
    EqualizedConv2d,
    LinearAttention,
    SelfAttention,
    power_iteration,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# ---- SelfAttention


def attention(pooled, value_reduction=2, channels=16, gamma=0.8, conv=EqualizedConv2d):
    layer = SelfAttention(channels, conv, reduction=8, value_reduction=value_reduction, pooled=pooled).double()
    torch.nn.init.constant_(layer.gamma, gamma)
    return layer


def plain(layer, x):
    """The paper's eq. 3-5 written out, i a key position and j a query position."""
    n, c, height, width = x.shape
    weight = {name: getattr(layer, name).effective_weight()[:, :, 0, 0] for name in ("key", "query", "value", "out")}
    f, g, h = (torch.einsum("dc,nchw->ndhw", weight[name], x) for name in ("key", "query", "value"))
    if layer.pooled:
        f, h = (t.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax(dim=(3, 5)) for t in (f, h))
    f, g, h = f.flatten(2), g.flatten(2), h.flatten(2)
    s = torch.einsum("ndi,ndj->nij", f, g)
    beta = torch.exp(s) / torch.exp(s).sum(dim=1, keepdim=True)
    o = torch.einsum("cd,ndj->ncj", weight["out"], torch.einsum("nij,ndi->ndj", beta, h))
    return layer.gamma * o.view(n, c, height, width) + x, beta.transpose(1, 2)


@pytest.mark.parametrize("pooled", [True, False])
def test_attention_is_the_identity_at_first(pooled):
    layer, x = SelfAttention(16, pooled=pooled), torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(x), x)
    assert layer.gamma.item() == 0
    assert {name for name, _ in layer.named_parameters()} == {
        "gamma", "query.weight", "key.weight", "value.weight", "out.weight",
    }  # fmt: skip


# Values of C/2 are wider than queries of C/8, of C/8 as wide, of C/16 narrower.
@pytest.mark.parametrize("value_reduction", [2, 8, 16])
@pytest.mark.parametrize("few_scores", [0, 1 << 16], ids=["tiles", "two products"])
@pytest.mark.parametrize("pooled", [True, False])
def test_attention_equals_the_equations(pooled, value_reduction, few_scores, monkeypatch):
    monkeypatch.setattr("samgan.networks.attention.FEW_SCORES", few_scores)
    layer = attention(pooled, value_reduction)
    x = 2 * torch.randn(2, 16, 8, 6, dtype=torch.double)
    expected, beta = plain(layer, x)
    torch.testing.assert_close(layer(x), expected)
    maps = layer.attention_maps(x)
    torch.testing.assert_close(maps, beta)
    assert maps.shape == (2, 48, 12 if pooled else 48)
    torch.testing.assert_close(maps.sum(dim=2), torch.ones(2, 48, dtype=torch.double))
    assert layer.query.weight.shape[0] == 2
    assert layer.value.weight.shape[0] == 16 // value_reduction


@pytest.mark.parametrize("few_scores", [0, 1 << 16], ids=["tiles", "two products"])
@pytest.mark.parametrize("pooled", [True, False])
def test_attention_gradients_equal_those_of_the_equations(pooled, few_scores, monkeypatch):
    monkeypatch.setattr("samgan.networks.attention.FEW_SCORES", few_scores)
    layer = attention(pooled)
    x = torch.randn(2, 16, 4, 4, dtype=torch.double, requires_grad=True)
    inputs = [x, *layer.parameters()]
    direction = torch.randn(2, 16, 4, 4, dtype=torch.double)
    ours = torch.autograd.grad((layer(x) * direction).sum(), inputs)
    theirs = torch.autograd.grad((plain(layer, x)[0] * direction).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_scores_are_not_divided():
    """Scaled by 1/sqrt(d), d = 2, the result would be another one."""
    layer = attention(pooled=False)
    x = 2 * torch.randn(1, 16, 4, 4, dtype=torch.double)
    scaled = attention(pooled=False)
    scaled.load_state_dict(layer.state_dict())
    with torch.no_grad():
        scaled.query.weight /= math.sqrt(2)
    assert (scaled(x) - layer(x)).abs().max() > 1e-3
    torch.testing.assert_close(layer(x), plain(layer, x)[0])


def test_unpooled_attention_does_not_see_the_order_of_positions():
    layer = attention(pooled=False)
    x = torch.randn(2, 16, 4, 4, dtype=torch.double)
    order = torch.randperm(16)

    def shuffled(t):
        return t.flatten(2)[:, :, order].unflatten(2, (4, 4))

    torch.testing.assert_close(layer(shuffled(x)), shuffled(layer(x)))
    pooled = attention(pooled=True)
    assert not torch.allclose(pooled(shuffled(x)), shuffled(pooled(x)))


def test_attention_reaches_across_the_image():
    """The output at one corner depends on the opposite one: what a 1x1 convolution cannot do."""
    layer = attention(pooled=True)
    x = torch.randn(1, 16, 8, 8, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 0, 0].sum(), x)
    assert gradient[0, :, 6:, 6:].abs().sum() > 0


@pytest.mark.parametrize("channels", [4, 6])
def test_narrow_attention_keeps_one_channel_at_least(channels):
    layer = attention(pooled=True, channels=channels, value_reduction=8)
    assert layer.query.weight.shape[0] == 1
    x = torch.randn(1, channels, 4, 4, dtype=torch.double)
    torch.testing.assert_close(layer(x), plain(layer, x)[0])


def test_attention_takes_the_convolution_it_is_given():
    layer = attention(pooled=True, conv=partial(EqualizedConv2d, spectral=True))
    assert all(getattr(layer, name).spectral for name in ("query", "key", "value", "out"))
    power_iteration(layer)
    x = torch.randn(1, 16, 4, 4, dtype=torch.double)
    torch.testing.assert_close(layer(x), plain(layer, x)[0])


# ---- other kinds of attention


def opened(kind, channels=16, conv=EqualizedConv2d):
    layer = ATTENTION[kind](channels, conv).double()
    torch.nn.init.constant_(layer.gamma, 0.8)
    return layer


@pytest.mark.parametrize("kind", ATTENTION)
def test_every_kind_of_attention_is_the_identity_at_first_and_opens(kind):
    layer, x = ATTENTION[kind](16), torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0)
    layer(x).square().sum().backward()
    assert layer.gamma.grad.abs() > 0
    spectral = opened(kind, conv=partial(EqualizedConv2d, spectral=True))
    assert all(part.spectral for part in spectral.modules() if isinstance(part, EqualizedConv2d))
    x = torch.randn(2, 16, 8, 8, dtype=torch.double)
    spectral(x).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in spectral.parameters())


def test_linear_attention_equals_its_equation_written_out():
    layer, x = opened("linear"), torch.randn(2, 16, 6, 4, dtype=torch.double)
    weight = {name: getattr(layer, name).effective_weight()[:, :, 0, 0] for name in ("key", "query", "value", "out")}
    f, g, h = (torch.einsum("dc,ncp->ndp", weight[name], x.flatten(2)) for name in ("key", "query", "value"))
    f = torch.exp(f) / torch.exp(f).sum(dim=2, keepdim=True)
    g = torch.exp(g) / torch.exp(g).sum(dim=1, keepdim=True)
    pairs = torch.einsum("ndj,ndi->nji", g, f)
    o = torch.einsum("cd,nji,ndi->ncj", weight["out"], pairs, h)
    torch.testing.assert_close(layer(x), 0.8 * o.view_as(x) + x)
    maps = layer.attention_maps(x)
    torch.testing.assert_close(maps, pairs)
    torch.testing.assert_close(maps.sum(dim=2), torch.ones(2, 24, dtype=torch.double))


def test_linear_attention_forms_no_map():
    layer, x, sizes = LinearAttention(16), torch.randn(1, 16, 32, 32), []

    def pack(tensor):
        sizes.append(tensor.untyped_storage().nbytes() // 4)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    assert max(sizes) <= x.numel()


def test_dual_attention_adds_channels_that_attend_to_each_other():
    layer, x = opened("dual"), torch.randn(2, 16, 4, 4, dtype=torch.double)
    rows = x.flatten(2)
    scores = torch.einsum("ncp,ndp->ncd", rows, rows) / 16
    weights = torch.exp(scores) / torch.exp(scores).sum(dim=2, keepdim=True)
    channels = torch.einsum("ncd,ndp->ncp", weights, rows).view_as(x)
    torch.testing.assert_close(layer(x), SelfAttention.forward(layer, x) + 0.8 * channels)


def test_squeeze_excitation_equals_torchvisions():
    layer, x = opened("squeeze-excitation"), torch.randn(2, 16, 4, 6, dtype=torch.double)
    theirs = torchvision.ops.SqueezeExcitation(16, 2).double()
    for ours, other in ((layer.squeeze, theirs.fc1), (layer.excite, theirs.fc2)):
        torch.nn.init.normal_(ours.bias)
        other.load_state_dict({"weight": ours.effective_weight(), "bias": ours.bias})
    torch.testing.assert_close(layer(x), 0.8 * theirs(x) + x)


def test_cbam_weighs_channels_then_positions():
    layer, x = opened("cbam"), torch.randn(2, 16, 8, 8, dtype=torch.double)
    hidden, back = (part.effective_weight()[:, :, 0, 0] for part in (layer.squeeze, layer.excite))
    logits = sum((summary @ hidden.T).relu() @ back.T for summary in (x.mean(dim=(2, 3)), x.amax(dim=(2, 3))))
    weighed = x * logits.sigmoid()[:, :, None, None]
    maps = torch.stack([weighed.mean(dim=1), weighed.amax(dim=1)], dim=1)
    where = F.conv2d(maps, layer.locate.effective_weight(), padding=3).sigmoid()
    torch.testing.assert_close(layer(x), 0.8 * weighed * where + x)
