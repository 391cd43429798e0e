"""Whether the discriminator's logits tell training images from held-out ones."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from samgan.config import Config, NetworkConfig
from samgan.errors import SamganError
from samgan.metrics.memorisation import membership_auc
from samgan.networks import Discriminator, image_pyramid
from samgan.pictures import from_uint8
from samgan.sampling import Source
from samgan.trust.documents import Estimate, Membership
from samgan.trust.real_images import RealImages

JUDGED = 64  # about how many images the discriminator takes at once
ROUNDING = 1e-6
"""A judge whose logits spread by less than this share of the other's says the same of all images."""


def find_membership(
    source: Source, training: RealImages, held_out: RealImages, fake: UInt8[Tensor, "m c h w"], *, seed: int
) -> Membership:
    """Attack the membership of training images with the logits of the run's discriminator.

    Images are compared class by class, equally many of both kinds.

    Args:
        source: The run; its discriminator runs on the device of its generator.
        training: Images that it was trained on.
        held_out: Images that it was not trained on.
        fake: Synthetic images, to complete groups of an odd size.
        seed: Seed of the random choice among the images of the larger kind.

    Raises:
        SamganError: There is no discriminator, or no class has images of both kinds.

    Source: Hayes et al. 2019 (LOGAN, arXiv:1705.07663), white-box attack.
    """
    if source.checkpoint is None or source.model is None:
        raise SamganError(
            f"{source.described.name} is not a run folder: only the checkpoints of a run hold the discriminator"
        )
    weights = source.checkpoint.discriminator_weights
    if weights is None:
        raise SamganError(f"{source.checkpoint.path.name} holds no discriminator")
    config = source.model.config
    discriminator = _load(config.network, weights, source.checkpoint.path.name).to(source.model.device)
    draw = np.random.default_rng(seed)
    kinds = training, held_out
    conditional = bool(config.network.num_classes)
    labels = [real.labels(config.data.classes) if conditional else torch.zeros(len(real)) for real in kinds]
    patients: list[list[str]] = [[], []]
    logits: list[list[Tensor]] = [[], []]
    for label in sorted(set(labels[0].tolist()) & set(labels[1].tolist())):
        places = [np.flatnonzero(of_kind.numpy() == label) for of_kind in labels]
        count = min(map(len, places))
        chosen = [draw.permutation(own)[:count] for own in places]
        members, others = (real.images[index] for real, index in zip(kinds, chosen, strict=True))
        found = judge(discriminator, config, members, others, fake, int(label) if conditional else None)
        for k, real in enumerate(kinds):
            logits[k].append(found[k])
            patients[k] += [real.patients[i] for i in chosen[k]]
    if not logits[0]:
        raise SamganError("no class has both training and held-out images")
    of_members, of_others = _together(*(torch.cat(parts) for parts in logits))
    auc = membership_auc(of_members.numpy(), of_others.numpy(), *patients)
    return Membership(Estimate(*auc), len(of_members), not auc.low <= 0.5 <= auc.high)


def _together(
    members: Float[Tensor, "n judges"], others: Float[Tensor, "m judges"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """One number for each image. Logits of several judges have different scales, so each counts by its own spread.

    A judge who says the same of all images does not count.
    """
    both = torch.cat([members, others]).double()
    if both.shape[1] > 1:
        both = both - both.mean(dim=0)
        spread = both.std(dim=0)
        both = torch.where(spread > ROUNDING * spread.amax(), both / spread, torch.zeros_like(both))
    of_members, of_others = both.sum(dim=1).split([len(members), len(others)])
    return of_members, of_others


def _load(config: NetworkConfig, weights: dict[str, Tensor], name: str) -> Discriminator:
    discriminator = Discriminator(config)
    try:
        discriminator.load_state_dict(weights)
    except (AttributeError, RuntimeError, TypeError):
        raise SamganError(f"the discriminator in {name} does not fit its configuration") from None
    for key, value in discriminator.state_dict().items():
        if not torch.isfinite(value).all():
            raise SamganError(f"the discriminator in {name} is damaged: {key} is NaN or infinite; use another")
    return discriminator.eval().requires_grad_(False)


@torch.inference_mode()
def judge(
    discriminator: Discriminator,
    config: Config,
    members: UInt8[Tensor, "n c h w"],
    others: UInt8[Tensor, "n _ _ _"],
    fill: UInt8[Tensor, "m _ _ _"],
    label: int | None = None,
) -> tuple[Float[Tensor, "n judges"], Float[Tensor, "n judges"]]:
    """Compute the discriminator's logits of training and held-out images so that only the image itself can matter.

    A discriminator with pretrained eyes beside it has two judges: itself, and the mean of what the eyes say.

    Through the minibatch standard deviation, a logit depends on the other images of its group. So every group holds
    as many training images as held-out ones, both in random order: the statistic of a group is then the same for both
    kinds. A group of an odd size is completed with a synthetic image, whose logit is not used.

    Args:
        discriminator: The run's discriminator, on any device.
        config: The run's configuration.
        members: Training images.
        others: As many held-out images.
        fill: Synthetic images.
        label: Class of all these images, for a discriminator with class labels.

    Returns:
        Logits of `members` and of `others`, in their order.
    """
    network = config.network
    size = max(2, _group_size(network, config.training.batch_size))
    half = size // 2
    groups = -(-len(members) // half)
    index = torch.arange(groups * half) % len(members)  # the last group starts again from the first image
    at_once = max(1, JUDGED // size)
    device = next(discriminator.parameters()).device
    logits: list[list[Tensor]] = [[], []]
    for some in index.view(groups, half).split(at_once):
        kinds = [members[some], others[some]]
        if size % 2:
            kinds.append(fill[:1].expand(len(some), 1, *fill.shape[1:]))
        batch = from_uint8(torch.cat(kinds, dim=1).flatten(0, 1)).to(device)
        own = None if label is None else torch.full((len(batch),), label, device=device)
        pyramid = image_pyramid(batch, network.image_sides)
        found = [one(pyramid, own, batches=len(some)) for one in (discriminator, discriminator.beside) if one]
        # Over the logits of an image, if it has a map of them.
        judged = torch.stack([one.float().cpu().view(len(some), size, -1).mean(dim=2) for one in found], dim=2)
        logits[0].append(judged[:, :half].flatten(0, 1))
        logits[1].append(judged[:, half : 2 * half].flatten(0, 1))
    of_members, of_others = (torch.cat(parts)[: len(members)] for parts in logits)
    return of_members, of_others


def _group_size(network: NetworkConfig, batch_size: int) -> int:
    """Images that share a minibatch standard deviation."""
    return network.minibatch_std_group or max(1, batch_size // (network.num_classes or 1))
