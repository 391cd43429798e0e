"""Features of sets of images by a frozen network, named by the hash of its weights; they are cached."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from rich.progress import track
from torch import Tensor

from samgan.cache import cache_folder, tell_without_cache
from samgan.errors import SamganError
from samgan.files import atomic_write
from samgan.terminal import console

CACHE_CHUNK = 256


class FeatureExtractor:
    """A frozen network from uint8 images to features, with the name and hash to print beside every number.

    Attributes:
        name: what to print, such as "inception".
        sha256: of the file that the network or its weights came from.
        dim: features per image; None until the first call, if the file does not say.
        device: where the network runs.
    """

    def __init__(
        self, network: Callable[[Tensor], Any], *, name: str, sha256: str, device: torch.device, dim: int | None = None
    ) -> None:
        """Keep `network`, a function from uint8 [n c h w] to features [n d] on `device`."""
        self.network = network
        self.name = name
        self.sha256 = sha256
        self.device = device
        self.dim = dim

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n d"]:
        """Compute the features of one batch.

        Args:
            images: one batch.

        Returns:
            Features, on the CPU.

        Raises:
            SamganError: the network fails on such images, or returns anything but finite numbers [n d].
        """
        try:
            features = self.network(images.to(self.device))
        except SamganError as error:
            raise SamganError(f"{self.name} features: {error}") from error
        except Exception as error:  # a user's own network may raise anything
            last_line = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise SamganError(
                f"{self.name} failed on uint8 images {list(images.shape)}; it must take any number: {last_line[0]}"
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise SamganError(f"{self.name}: expected features [{len(images)}, d] of {len(images)} images, found {got}")
        if not features.isfinite().all():
            raise SamganError(f"{self.name} returned features that are not finite")
        self.dim = features.shape[1]
        return features.float().cpu()

    def fingerprint(self, shape: tuple[int, int, int]) -> list[float]:
        """Mean and root mean square of the features of four fixed images, to tell this network from others.

        The hash of a file changes with the version of torch that wrote it. These numbers change only by rounding.

        Args:
            shape: [c h w] of the images.

        Returns:
            Eight numbers.

        Raises:
            SamganError: As for a call.
        """
        channels, height, width = shape
        y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
        waves = [torch.sin(2 * torch.pi * ((k + 1) * x + k * y)) for k in range(4)]
        images = (127.5 + 127.5 * torch.stack(waves)).round().to(torch.uint8)
        features = self(images[:, None].repeat(1, channels, 1, 1)).double()
        numbers = torch.stack([features.mean(1), features.square().mean(1).sqrt()], 1).flatten()
        return [float(f"{number:.6g}") for number in numbers.tolist()]


def extract(
    extractor: FeatureExtractor, images: UInt8[Tensor, "n c h w"], *, batch_size: int = 64, cache: bool = True
) -> Float32[Tensor, "n d"]:
    """Compute the features of a set, and cache them so that they are not computed again for the same images.

    The cache ($SAMGAN_CACHE, otherwise ~/.cache/samgan) is keyed by content, in chunks of 256 images. An interrupted
    run continues where it stopped, and a longer series that begins with the same images uses their chunks again. The
    cache may be deleted at any time.

    Args:
        extractor: from `samgan.metrics.load_features.load_features`.
        images: the set.
        batch_size: images per call of the network; the features depend on it only by rounding.
        cache: False neither reads nor writes the cache, for images that will not be scored again.

    Returns:
        Features in the order of the images.

    Raises:
        SamganError: no images, or as for `FeatureExtractor`.
    """
    if not len(images):
        raise SamganError("expected images to compute features of, found none")
    chunks = []
    progress = console()
    parts = images.split(CACHE_CHUNK)
    label = f"features of {len(images)} images"
    for part in track(parts, description=label, console=progress, transient=True, disable=not progress.is_terminal):
        path = _cache_path(extractor, part) if cache else None
        features = _load_cached(path, len(part)) if path else None
        if features is None:
            features = torch.cat([extractor(batch) for batch in part.split(batch_size)])
            if path:
                _store(path, features)
        chunks.append(features)
    features = torch.cat(chunks)
    extractor.dim = features.shape[1]
    return features


def _cache_path(extractor: FeatureExtractor, images: Tensor) -> Path | None:
    """Where the features of exactly these images by exactly this network are kept; None without a cache."""
    folder = cache_folder()
    if folder is None:
        return None
    content = hashlib.sha256(f"{extractor.name} {extractor.sha256} {list(images.shape)}".encode())
    content.update(images.cpu().contiguous().numpy().data)
    return folder / "features" / f"{content.hexdigest()}.npz"


def _load_cached(path: Path, count: int) -> Tensor | None:
    """Cached features, or None if there are none or the archive's checksum is wrong."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            features = archive["features"]
    except Exception:  # whatever is wrong with a cached file, the features can be computed again
        return None
    usable = features.dtype == np.float32 and features.ndim == 2 and len(features) == count
    return torch.from_numpy(features) if usable and np.isfinite(features).all() else None


def _store(path: Path, features: Tensor) -> None:
    """Cache features; on a full or read-only disk only the cache fails, not the evaluation."""
    try:
        with atomic_write(path) as file:
            np.savez(file, features=features.numpy())
    except OSError as error:
        tell_without_cache(error.strerror or str(error))
