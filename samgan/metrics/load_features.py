"""Choose and load what turns images into features: a named network, or a module of the user's own."""

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samgan.errors import SamganError, UsageError, first_line
from samgan.files import Location
from samgan.metrics.feature_networks import NETWORKS, FeatureNetwork, FeaturesUnavailable
from samgan.metrics.feature_networks.inception import INCEPTION
from samgan.metrics.feature_networks.radiograph import RADIOGRAPH
from samgan.metrics.feature_networks.weights import (
    file_name,
    name_with,
    not_the_weights,
    read_file,
    read_weights,
)
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.weights_here import has_inception, torch_hub_folder
from samgan.terminal import say


@dataclass(frozen=True)
class Default:
    """What is taken if no features are named."""

    name: str | None
    """A named network; None if there is none for these images."""
    why: str
    """What to tell the user, without a full stop."""


def default_features(shape: Sequence[int]) -> Default:
    """What is taken if no features are named: nothing that has to be downloaded first.

    It is the FID Inception if its weights are in torch.hub's folder, and whole; otherwise the radiograph features that
    come with samgan. So it depends on that folder, and not on whether there is a network at the moment.

    Args:
        shape: [c h w] of the images.
    """
    name = RADIOGRAPH.name
    if has_inception():
        return Default(INCEPTION.name, f"features: {INCEPTION.name}, whose weights are in {torch_hub_folder()}")
    damaged = (torch_hub_folder() / file_name(INCEPTION)).is_file()
    inception = f"the weights of {INCEPTION.name} in {torch_hub_folder()} are damaged; " if damaged else ""
    inception += f"--features {INCEPTION.name} downloads the FID Inception ({INCEPTION.megabytes} MB)"
    inception += ", --features-file names its file"
    if shape[0] != 1:
        return Default(None, f"{name} features are of grey images; {inception}")
    enlarged = ""
    if shape[-1] < (side := RADIOGRAPH.input.at_least):
        enlarged = f"; images of {shape[-1]} px are enlarged to {side} px, and how they do on such images is not known"
    return Default(name, f"features: {name}, which come with samgan; {inception}{enlarged}")


def choose_features(
    named: str | Path | None,
    shape: Sequence[int],
    *,
    default: str | None = None,
    features_file: Location | None = None,
    device: str | torch.device = "cpu",
) -> tuple[FeatureExtractor | None, str]:
    """Load the features that were named, or else those that are there.

    Args:
        named: As `spec` of `load_features`; None or "" for the default.
        shape: [c h w] of the images.
        default: The network to take if none is named, if it is available; None: that of `default_features`.
        features_file: As for `load_features`.
        device: As for `load_features`.

    Returns:
        The extractor and, if the choice was not the user's, a sentence that says which and why; or None and the reason
        why there is none.

    Raises:
        FeaturesUnavailable: What was named is not available.
        UsageError: There is a file, but no name of its network; or the network does not take such images.
        SamganError: As for `load_features`.
    """
    why = ""
    if not named and not default:
        if features_file:
            raise UsageError(f"--features-file {features_file}: name its network with --features ({_names()})")
        chosen = default_features(shape)
        default, why = chosen.name, chosen.why
        if default is None:
            return None, why
    spec = str(named or default)
    if spec in NETWORKS:
        try:
            NETWORKS[spec].input.check(shape[0])
        except UsageError as error:
            raise UsageError(f"--features {spec}: {error}") from error
    try:
        return load_features(spec, features_file=features_file, device=device), why
    except FeaturesUnavailable as error:
        if named or features_file:
            raise
        return None, str(error)


def say_features(extractor: FeatureExtractor | None, why: str) -> None:
    """Print what `choose_features` chose, if the choice was not the user's."""
    if extractor is None:
        say(f"samgan: scores that need features are skipped: {why}")
    elif why:
        say(f"samgan: {why}")


def load_features(
    spec: str | Path, *, features_file: Location | None = None, device: str | torch.device = "cpu"
) -> FeatureExtractor:
    """Load a feature extractor.

    A name is that of a network in `samgan.metrics.feature_networks.NETWORKS`; docs/features.md describes them. The
    SHA-256 of its weights is compared with the published one, where there is one.

    A path names a network of your own that takes uint8 [n c h w], any n, and gives features [n d]: TorchScript
    (.pt) or an exported program (.pt2). Loading either may run code from the file: TorchScript is a program, and
    torch.export.load falls back to unrestricted unpickling. Use only files from sources that you trust.

    Args:
        spec: A name, or the path of a .pt or .pt2 file.
        features_file: The weights of the named network, instead of those that are found or downloaded: a file of
            torch.save or safetensors. A SHA-256 that is not the published one is accepted and becomes part of the
            name: such numbers cannot be compared with published ones.
        device: where to run the network.

    Returns:
        The extractor.

    Raises:
        FeaturesUnavailable: the weights are missing and cannot be downloaded.
        UsageError: `spec` is none of the above, or there are weights for a network of your own.
        SamganError: a file that was given cannot be read, or does not hold what it should.
    """
    device = torch.device(device)
    if spec in NETWORKS:
        return _load_network(NETWORKS[str(spec)], Path(features_file) if features_file else None, device)
    path = Path(spec)
    if path.suffix not in MODULE_LOADERS:
        raise UsageError(f"--features {spec}: expected one of {_names()}, a .pt file, a .pt2 file")
    if features_file:
        raise UsageError(f"--features-file {features_file}: {path} has its own weights; name one of {_names()} instead")
    data = read_file(path)
    try:
        network = MODULE_LOADERS[path.suffix](io.BytesIO(data), device)
    except Exception as error:
        raise SamganError(f"{path} cannot be loaded as a {path.suffix} module: {first_line(error)}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    return FeatureExtractor(network, name=f"{path.name} (sha256:{sha256[:8]})", sha256=sha256, device=device)


def weights_sha256(spec: str, features_file: Path | None) -> str | None:
    """SHA-256 of the weights that a named network would have, without loading them; None if only loading can tell."""
    if features_file:
        return hashlib.sha256(read_file(features_file)).hexdigest()
    return NETWORKS[spec].sha256


def load_network(record: FeatureNetwork, file: Path | None = None) -> tuple[nn.Module, str]:
    """A named network with its weights, and the SHA-256 of their file.

    Args:
        record: One of `NETWORKS`.
        file: Its weights, instead of those that are found or downloaded.

    Raises:
        FeaturesUnavailable, SamganError: As for `load_features`.
    """
    path = file or record.find(record)
    state, sha256 = read_weights(path, record)
    try:
        with torch.random.fork_rng(devices=[]):  # its weights are drawn before they are replaced
            return record.build(state), sha256
    except (RuntimeError, TypeError, KeyError) as error:
        raise not_the_weights(path, sha256, record) from error


def _load_network(record: FeatureNetwork, file: Path | None, device: torch.device) -> FeatureExtractor:
    network, sha256 = load_network(record, file)
    network = network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)

    def features(images: Tensor) -> Tensor:
        return network(record.input(images))

    return FeatureExtractor(features, name=name_with(record, sha256), sha256=sha256, device=device, dim=record.dim)


def _names() -> str:
    return ", ".join(NETWORKS)


def _load_torchscript(file: io.BytesIO, device: torch.device) -> Callable[[Tensor], Any]:
    with warnings.catch_warnings():
        # Deprecated for new programs, but existing files have no other loader.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is (deprecated|not supported)")
        return torch.jit.load(file, map_location=device).eval()


def _load_exported(file: io.BytesIO, device: torch.device) -> Callable[[Tensor], Any]:
    return torch.export.load(file).module().to(device)


MODULE_LOADERS = {".pt": _load_torchscript, ".pt2": _load_exported}
