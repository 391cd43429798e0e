"""Train the built-in features: `samgan evaluate --features radiograph`.

    samgan prepare XRAYS cxr256 --resolution 256
    python results/features/train.py cxr256 WORK_FOLDER [--steps 2000]

Only training patients of the prepared set are seen. The script can be stopped at any time and called again: it goes on
where it stopped. At its end it writes WORK_FOLDER/radiograph-features.safetensors and prints its SHA-256. One thread,
20 minutes on two cores that were busy with other work.

Every step takes 32 X-rays and makes two views of each, nearly the same cut-out, half of them with planted faults
(`faults.py`). From the features alone, linear heads have to tell which faults there are and how strong they are,
whether the X-ray was turned or mirrored and how far it was tilted, whether it shows pneumonia and of which kind (as the
file's name tells), and which two views are of one X-ray. Features that say the same twice are penalised.
"""

import argparse
import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from faults import FAULTS, chance
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from samgan.data import PreparedSet
from samgan.files import atomic_write
from samgan.metrics.radiograph import ANATOMY_FEATURES, SIDE, TEXTURE_FEATURES, Radiograph, resized

PICTURES = 32
RATE = 2e-3
SIZES = {64: 0.6, 128: 0.3, 256: 0.1}
"""Sides of the views of a step in pixels, and how often each is drawn."""
UPRIGHT, MIRRORED = 0.6, 0.2
"""Shares of X-rays that are neither turned nor mirrored, and only mirrored; the others are turned."""
CLEAN = 0.5
"""Share of views without a planted fault."""
TILT = 20.0
"""Degrees."""
VARIANCE, TEXTURE = 100.0, 1 / 8
"""Sum of the features' variances over real X-rays at 64 px, and how much of it texture has.

At an eighth, a blur of half a pixel to two lies about as many floors away as by the stand-in Inception. At a quarter,
precision and coverage fell to almost nothing with faults that a reader hardly sees.
"""
EVERY = 50
KINDS = ("normal", "bacteria", "virus")
"""Classes of Kermany's X-rays, and the kinds of pneumonia that their names tell."""


class Views(NamedTuple):
    """Views of one step, 0 to 255, and what there is to tell about each."""

    images: Tensor
    faults: Tensor
    """Strength of each fault from 0 to 1, [n faults]."""
    side: Tensor
    """Quarter turns, plus 4 if mirrored."""
    tilt: Tensor
    """From -1 to 1."""
    label: Tensor


class Trainee(nn.Module):
    """The network with batch norms, which are merged into its convolutions at the end, and with its heads."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = Radiograph()
        for stack in (self.network.texture, self.network.anatomy):
            for place, layer in enumerate(stack):
                if isinstance(layer, nn.Conv2d):
                    stack[place] = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))
        dim = TEXTURE_FEATURES + ANATOMY_FEATURES
        self.texture_norm = nn.BatchNorm1d(TEXTURE_FEATURES).requires_grad_(False)  # its scale stays 1
        self.anatomy_norm = nn.BatchNorm1d(ANATOMY_FEATURES).requires_grad_(False)
        self.faults = nn.Linear(dim, len(FAULTS))
        self.side, self.tilt, self.label = nn.Linear(dim, 8), nn.Linear(dim, 1), nn.Linear(dim, classes)
        self.projection = nn.Linear(ANATOMY_FEATURES, 128)

    def forward(self, images: Tensor, corner: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features of texture, from a part of each image as large as the whole is at 64 px, and of anatomy."""
        values = images / 127.5 - 1
        part = values[:, :, corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE]
        texture = self.network.texture_out(_in_half(self.network.texture, part).mean((2, 3)))
        found = torch.relu(self.network.squeeze(_in_half(self.network.anatomy, resized(values))))
        return self.texture_norm(texture), self.anatomy_norm(self.network.anatomy_out(found.flatten(1)))

    def merged(self) -> Radiograph:
        """The network alone, without batch norms."""
        plain = Radiograph()
        self.eval()
        for mine, stack in ((self.network.texture, plain.texture), (self.network.anatomy, plain.anatomy)):
            for place, layer in enumerate(mine):
                if isinstance(layer, nn.Sequential):
                    stack[place] = fuse_conv_bn_eval(layer[0], layer[1])
        plain.squeeze.load_state_dict(self.network.squeeze.state_dict())
        plain.texture_out = fuse_linear_bn_eval(self.network.texture_out, self.texture_norm)
        plain.anatomy_out = fuse_linear_bn_eval(self.network.anatomy_out, self.anatomy_norm)
        return plain.eval().requires_grad_(False)


def _in_half(stack: nn.Sequential, values: Tensor) -> Tensor:
    """Run a stack in bfloat16, all but its first convolution: half precision has no difference of one grey level."""
    values = stack[0](values)
    with torch.autocast("cpu", torch.bfloat16):
        return stack[1:](values).float()


def loss_of(trainee: Trainee, views: Views, generator: torch.Generator) -> dict[str, Tensor]:
    """The parts of the loss."""
    room = views.images.shape[2] - SIDE + 1
    texture, anatomy = trainee(views.images, (int(room * chance(generator)), int(room * chance(generator))))
    features = torch.cat([texture, anatomy], 1)
    points = F.normalize(trainee.projection(anatomy), dim=1)
    alike = (points @ points.T / 0.15).masked_fill(torch.eye(len(points), dtype=torch.bool), -math.inf)
    partner = torch.arange(len(points)).roll(len(points) // 2)
    correlation = features.T @ features / len(features)
    redundant = (correlation - torch.diag(correlation.diagonal())).square().sum() / len(correlation)
    return {
        "faults": 10 * F.mse_loss(trainee.faults(features), views.faults),
        "side": F.cross_entropy(trainee.side(features), views.side, label_smoothing=0.05),
        "tilt": F.mse_loss(trainee.tilt(features)[:, 0], views.tilt),
        "class": F.cross_entropy(trainee.label(features), views.label, label_smoothing=0.05),
        "instance": 0.5 * F.cross_entropy(alike, partner),
        "redundant": 0.02 * redundant,
    }


def make_views(images: Tensor, labels: Tensor, generator: torch.Generator) -> Views:
    """Two views of each of `PICTURES` random images [n 1 256 256]; the second half has the second views."""
    size = list(SIZES)[int(torch.multinomial(torch.tensor(list(SIZES.values())), 1, generator=generator))]
    chosen = torch.randint(len(images), (PICTURES,), generator=generator)
    drawn = torch.rand(PICTURES, generator=generator)
    turned = torch.tensor([1, 2, 3, 5, 6, 7])[torch.randint(6, (PICTURES,), generator=generator)]
    side = torch.where(drawn < UPRIGHT, 0, torch.where(drawn < UPRIGHT + MIRRORED, 4, turned))
    tilt = torch.rand(PICTURES, generator=generator) * 2 - 1
    tilt = torch.where(torch.rand(PICTURES, generator=generator) < 0.5, tilt, 0.0)
    chosen, side, tilt = (values.repeat(2) for values in (chosen, side, tilt))
    sources = images[chosen].float()
    if 2 * size < sources.shape[2]:
        sources = F.interpolate(sources, size=(2 * size, 2 * size), mode="bilinear", antialias=True)
    views = _cut_out(sources, side, tilt, generator)
    if size < views.shape[2]:
        views = F.interpolate(views, size=(size, size), mode="bilinear", antialias=True)
    gain = 1 + 0.06 * torch.randn(len(views), 1, 1, 1, generator=generator)
    views = (views - 128) * gain + 128 + 5 * torch.randn(len(views), 1, 1, 1, generator=generator)
    strengths = torch.zeros(len(views), len(FAULTS))
    faulty = views.clone()
    for place in range(len(views)):
        if chance(generator) < CLEAN:
            continue
        for _ in range(1 + int(2 * chance(generator))):
            fault = int(len(FAULTS) * chance(generator))
            strength = chance(generator)
            other = views[(place + 1) % len(views)][None]
            faulty[place] = list(FAULTS.values())[fault](faulty[place][None], other, strength, generator)[0]
            strengths[place, fault] = 0.25 + 0.75 * strength
    return Views(faulty.round().clamp(0, 255), strengths, side, tilt, labels[chosen])


def _cut_out(images: Tensor, side: Tensor, tilt: Tensor, generator: torch.Generator) -> Tensor:
    """Images turned, mirrored, tilted, and each shifted, enlarged and turned a little by itself."""
    count = len(images)
    angle = torch.deg2rad(90.0 * (side % 4) + TILT * tilt + torch.randn(count, generator=generator))
    zoom = 1 + 0.03 * torch.randn(count, generator=generator)
    shift = 0.03 * torch.randn(count, 2, generator=generator)
    flip = torch.where(side >= 4, -1.0, 1.0)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    rows = torch.stack([flip * cos, -flip * sin, shift[:, 0], sin, cos, shift[:, 1]], 1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def kind_of(source: str) -> str:
    """What a file's name says that the X-ray shows."""
    return next((kind for kind in KINDS if kind in source), KINDS[0])


def scaled(network: Radiograph, images: Tensor) -> Radiograph:
    """The network, both parts of its features centred on real images, with their shares of the variance."""
    small = F.interpolate(images.float(), size=(SIDE, SIDE), mode="bilinear", antialias=True).round().clamp(0, 255)
    features = torch.cat([network(part / 127.5 - 1) for part in small.split(64)])
    parts = features.split([TEXTURE_FEATURES, ANATOMY_FEATURES], 1)
    layers, shares = (network.texture_out, network.anatomy_out), (TEXTURE, 1 - TEXTURE)
    for layer, part, share in zip(layers, parts, shares, strict=True):
        factor = (VARIANCE * share / part.var(0).sum()).sqrt()
        layer.bias.copy_((layer.bias - part.mean(0)) * factor)
        layer.weight.mul_(factor)
    return network


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = PreparedSet.open(options.data)
    chosen = data.indices("train")
    images = torch.from_numpy(data.images[chosen])
    kinds = [kind_of(data.manifest[index].source) for index in chosen]
    labels = torch.tensor([KINDS.index(kind) for kind in kinds])
    trainee = Trainee(len(KINDS)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(trainee.parameters(), RATE, weight_decay=0.02)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=options.steps + 1, pct_start=0.1)
    parts = {"trainee": trainee, "optimizer": optimizer, "rates": rates}
    checkpoint, start = options.work / "checkpoint.pt", 0
    options.work.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        start = saved.pop("step")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    seen: list[dict[str, float]] = []
    trainee.train()
    for step in range(start, options.steps):
        generator = torch.Generator().manual_seed(step)  # a step's views do not depend on where training began
        losses = loss_of(trainee, make_views(images, labels, generator), generator)
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        optimizer.step()
        rates.step()
        seen.append({name: loss.item() for name, loss in losses.items()})
        if (step + 1) % EVERY == 0 or step + 1 == options.steps:
            means = {name: sum(line[name] for line in seen) / len(seen) for name in losses}
            print(step + 1, ", ".join(f"{name} {mean:.3f}" for name, mean in means.items()), flush=True)
            seen.clear()
            with atomic_write(checkpoint) as file:
                torch.save({"step": step + 1, **{name: part.state_dict() for name, part in parts.items()}}, file)
    network = scaled(trainee.merged(), images)
    weights = {name: weight.half().contiguous() for name, weight in network.state_dict().items()}
    content = safetensors.torch.save(weights, {"data": data.sha256})  # two entries would have no fixed order
    out = options.work / "radiograph-features.safetensors"
    with atomic_write(out) as file:
        file.write(content)
    print(f"{out}: {len(content) / 1e6:.2f} MB, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
