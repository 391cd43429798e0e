"""Minibatch standard deviation: tell the discriminator how much the images of a batch differ."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from samgan.distributed import gather, rank


class MinibatchStdDev(nn.Module):
    """Append one map: the standard deviation over the batch, averaged over features and pixels.

    The batch is the global batch of all processes. With groups, image i belongs to group i mod (n / group), and each
    group has its own value. With labels, each class counts as its own batch and is split into as many groups of at
    least `group` images as it can fill. Images of two classes differ even if those of each class are all alike, so a
    value over both would hide a class that has collapsed.

    Args:
        group: Images per group; 0: the whole batch, as in MSG-GAN.

    Source: Karras et al. 2018 (ProGAN), section 3; groups: its code.
    """

    def __init__(self, group: int = 0) -> None:
        super().__init__()
        self.group = group

    def forward(
        self, x: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"] | None = None, batches: int = 1
    ) -> Float[Tensor, "n d h w"]:
        """Return [n, c + 1, h, w]; if x holds several batches, each has its own statistics."""
        classes = [None] * batches if labels is None else labels.chunk(batches)
        return torch.cat([self._append(*batch) for batch in zip(x.chunk(batches), classes, strict=True)])

    def _append(self, x: Tensor, labels: Tensor | None) -> Tensor:
        batch = gather(x)
        y = self._of_groups(batch) if labels is None else self._of_classes(batch, gather(labels))
        own = y[rank() * len(x) : (rank() + 1) * len(x)]
        return torch.cat([x, own.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])], dim=1)

    def _of_groups(self, batch: Tensor) -> Float[Tensor, " n"]:
        group = self.group or len(batch)
        if len(batch) % group:
            raise ValueError(f"minibatch std: a batch of {len(batch)} images cannot be divided into groups of {group}")
        y = batch.reshape(group, -1, *batch.shape[1:])
        variance = (y - y.mean(dim=0)).square().mean(dim=0)  # many times faster than y.var(dim=0)
        return (variance + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(group)

    def _of_classes(self, batch: Tensor, labels: Tensor) -> Float[Tensor, " n"]:
        same = labels[:, None] == labels
        place, count = same.tril(-1).sum(dim=1), same.sum(dim=1)  # an image's place in its class; the size of the class
        number = place % (count // (self.group or len(labels))).clamp(min=1)
        together = (same & (number[:, None] == number)).to(torch.promote_types(batch.dtype, torch.float32))
        together = together / together.sum(dim=1, keepdim=True)
        with torch.autocast(batch.device.type, enabled=False):  # equal images must have a difference of exactly 0
            y = batch.flatten(1).to(together.dtype)
            variance = together @ (y - together @ y).square()
            return (variance + 1e-8).sqrt().mean(dim=1).to(batch.dtype)
