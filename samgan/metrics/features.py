"""Feature extractors for the distribution scores, named by the hash of their weights; features are cached."""

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from samgan.cache import cache_folder, download_folder, tell_without_cache
from samgan.errors import SamganError, UsageError, first_line
from samgan.files import atomic_write
from samgan.terminal import console

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
IMAGENET_INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
IMAGENET_INCEPTION_URL = f"https://download.pytorch.org/models/{IMAGENET_INCEPTION_FILE}"
# The eight digits in the file's name: its publisher states no more of the hash.
IMAGENET_INCEPTION_SHA256_PREFIX = "0cc3c7bd"
CACHE_CHUNK = 256


class FeaturesUnavailable(SamganError):
    """The weights of a feature extractor are neither here nor can be downloaded; scores that need them are left out."""


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


def load_features(
    spec: str | Path, *, inception_weights: Path | None = None, device: str | torch.device = "cpu"
) -> FeatureExtractor:
    """Load a feature extractor.

    "inception" is the network of every published FID (2048 features, images of one channel repeated to three); its
    weights are taken from torch.hub's folder, or are downloaded there once. Their SHA-256 is checked.
    "imagenet-inception" is torchvision's Inception v3 (768 features), for `--protocol legacy` only.

    A path names a network of your own that takes uint8 [n c h w], any n, and gives features [n d]: TorchScript
    (.pt) or an exported program (.pt2). Loading either may run code from the file: TorchScript is a program, and
    torch.export.load falls back to unrestricted unpickling. Use only files from sources that you trust.

    Args:
        spec: "inception", "imagenet-inception" or the path of a .pt or .pt2 file.
        inception_weights: the weights file of either Inception, instead of the cached one. A SHA-256 that is not the
            standard one is accepted and becomes part of the name: such numbers cannot be compared with published ones.
        device: where to run the network.

    Returns:
        The extractor.

    Raises:
        FeaturesUnavailable: the weights are missing and cannot be downloaded.
        UsageError: `spec` is none of the above.
        SamganError: a file that was given cannot be read, or does not hold what it should.

    Source: Heusel et al. 2017 (arXiv:1706.08500), with the weights that torch-fidelity converted from TensorFlow.
    """
    device = torch.device(device)
    if spec in INCEPTIONS:
        return INCEPTIONS[str(spec)](inception_weights, device)
    path = Path(spec)
    if path.suffix not in MODULE_LOADERS:
        known = ", ".join([*INCEPTIONS, *(f"a {suffix} file" for suffix in MODULE_LOADERS)])
        raise UsageError(f"--features {spec}: expected one of {known}")
    data = _read(path)
    try:
        network = MODULE_LOADERS[path.suffix](io.BytesIO(data), device)
    except Exception as error:
        raise SamganError(f"{path} cannot be loaded as a {path.suffix} module: {first_line(error)}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    return FeatureExtractor(network, name=f"{path.name} (sha256:{sha256[:8]})", sha256=sha256, device=device)


def find_features(
    named: str | Path | None,
    default: str = "inception",
    *,
    inception_weights: Path | None = None,
    device: str | torch.device = "cpu",
) -> tuple[FeatureExtractor | None, str]:
    """Load the extractor that was named, or else the default one if its weights are available.

    Args:
        named: As `spec` of `load_features`; None or "" for the default.
        default: As `spec` of `load_features`.
        inception_weights: As for `load_features`; if they are given, they must be found.
        device: As for `load_features`.

    Returns:
        The extractor and an empty text, or None and the reason why there is none.

    Raises:
        FeaturesUnavailable: What was named is not available.
        UsageError, SamganError: As `load_features`.
    """
    try:
        return load_features(named or default, inception_weights=inception_weights, device=device), ""
    except FeaturesUnavailable as error:
        if named or inception_weights:
            raise
        return None, str(error)


def extract(
    extractor: FeatureExtractor, images: UInt8[Tensor, "n c h w"], *, batch_size: int = 64, cache: bool = True
) -> Float32[Tensor, "n d"]:
    """Compute the features of a set, and cache them so that they are not computed again for the same images.

    The cache ($SAMGAN_CACHE, otherwise ~/.cache/samgan) is keyed by content, in chunks of 256 images. An interrupted
    run continues where it stopped, and a longer series that begins with the same images uses their chunks again. The
    cache may be deleted at any time.

    Args:
        extractor: from `load_features`.
        images: the set.
        batch_size: images per call of the network; the features do not depend on it.
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


def _load_inception(weights: Path | None, device: torch.device) -> FeatureExtractor:
    """Load the standard FID network."""
    # The import takes a second, and only the standard features need it.
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = weights or _download_inception()
    state, sha256 = _read_weights(path, "inception")
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    # The constructor unpickles whatever it is given, so it gets a file of our own that holds only tensors.
    try:
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file).to(device)
    except (RuntimeError, TypeError) as error:
        raise _not_the_weights(path, sha256, "inception") from error

    network = _for_inference(network)

    def features(images: Tensor) -> Tensor:
        return network(_three_channels(images))[0]

    name = _inception_name("inception", sha256, standard=sha256 == INCEPTION_SHA256)
    return FeatureExtractor(features, name=name, sha256=sha256, device=device, dim=2048)


def _download_inception() -> Path:
    """Return the cached weights of the standard network, downloaded and verified."""
    import pooch

    folder = download_folder(Path(torch.hub.get_dir()) / "checkpoints", INCEPTION_FILE)
    try:
        return Path(pooch.retrieve(INCEPTION_URL, f"sha256:{INCEPTION_SHA256}", INCEPTION_FILE, folder))
    except (OSError, ValueError) as error:
        raise FeaturesUnavailable(
            f"the FID Inception is not in {folder} and cannot be downloaded ({type(error).__name__}); fetch "
            f"{INCEPTION_URL} on another machine and give the file with --inception-weights"
        ) from error


def _load_imagenet_inception(weights: Path | None, device: torch.device) -> FeatureExtractor:
    """Load torchvision's Inception v3 up to Mixed_6e (768 features), as pytorch-fid lays it out."""
    from torchvision.models import inception_v3

    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET_INCEPTION_FILE
    if weights is None and not path.exists():
        raise FeaturesUnavailable(
            f"the ImageNet Inception is not at {path}; fetch {IMAGENET_INCEPTION_URL} and give the file "
            "with --inception-weights"
        )
    state, sha256 = _read_weights(path, "imagenet-inception")
    whole = inception_v3(weights=None, init_weights=False, transform_input=False)
    try:
        whole.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise _not_the_weights(path, sha256, "imagenet-inception") from error
    names = [name for name, _ in whole.named_children()]  # in the order of the forward pass up to here
    layers = [whole.get_submodule(name) for name in names[: names.index("Mixed_6e") + 1]]
    network = _for_inference(torch.nn.Sequential(*layers).eval().requires_grad_(False).to(device))

    def features(images: Tensor) -> Tensor:
        images = _three_channels(images).float() / 127.5 - 1
        images = F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False)
        return network(images).mean(dim=(2, 3))

    standard = sha256.startswith(IMAGENET_INCEPTION_SHA256_PREFIX)
    name = _inception_name("imagenet-inception", sha256, standard=standard)
    return FeatureExtractor(features, name=name, sha256=sha256, device=device, dim=768)


def _for_inference(network: torch.nn.Module) -> torch.nn.Module:
    """The same features up to rounding, but faster: batch norms are merged into convolutions; channels last."""
    for block in network.modules():
        conv, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
            block.conv, block.bn = fuse_conv_bn_eval(conv, norm), torch.nn.Identity()
    return network.to(memory_format=torch.channels_last)


def _inception_name(name: str, sha256: str, *, standard: bool) -> str:
    return name if standard else f"{name} (non-standard weights sha256:{sha256[:8]})"


def _three_channels(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SamganError(f"cannot read {path}: {error.strerror}") from error


def _read_weights(path: Path, name: str) -> tuple[Any, str]:
    """A file of tensors and its SHA-256; the bytes that are hashed are the bytes that are loaded."""
    data = _read(path)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a broken file
        raise _not_the_weights(path, sha256, name) from error
    return state, sha256


def _not_the_weights(path: Path, sha256: str, name: str) -> SamganError:
    """The error for a wrong or damaged file; torch's own message advises to load it without protection."""
    network, expected, url = {
        "inception": ("the FID Inception", INCEPTION_SHA256, INCEPTION_URL),
        "imagenet-inception": (
            "torchvision's Inception v3",
            f"{IMAGENET_INCEPTION_SHA256_PREFIX}...",
            IMAGENET_INCEPTION_URL,
        ),
    }[name]
    return SamganError(
        f"{path} does not hold the weights of {network}: expected sha256 {expected}, found {sha256}; fetch {url} again"
    )


def _load_torchscript(file: io.BytesIO, device: torch.device) -> Callable[[Tensor], Any]:
    with warnings.catch_warnings():
        # Deprecated for new programs, but existing files have no other loader.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is (deprecated|not supported)")
        return torch.jit.load(file, map_location=device).eval()


def _load_exported(file: io.BytesIO, device: torch.device) -> Callable[[Tensor], Any]:
    return torch.export.load(file).module().to(device)


INCEPTIONS = {"inception": _load_inception, "imagenet-inception": _load_imagenet_inception}
MODULE_LOADERS = {".pt": _load_torchscript, ".pt2": _load_exported}
