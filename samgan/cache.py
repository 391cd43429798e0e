"""Where things that can be made or fetched again are kept. Without such a folder everything works, but takes longer."""

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path

_told: list[str] = []


def cache_folder() -> Path | None:
    """The cache folder: $SAMGAN_CACHE, otherwise ~/.cache/samgan; None, with a warning, where a user has no home."""
    named = os.environ.get("SAMGAN_CACHE")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "samgan"
    except RuntimeError:  # no HOME, and the user has no entry in the system's list (docker run --user 12345)
        tell_without_cache("this user has no home folder")
        return None


def download_folder(usual: Path, name: str) -> Path:
    """Where to download the file `name`: the usual folder, or, with a warning, one that is removed when Python ends.

    Args:
        usual: May begin with "~", as it does for a user without a home folder.
        name: If the usual folder holds this file already, that folder is right even if it cannot be written to.
    """
    if (usual / name).is_file():
        return usual
    if not str(usual).startswith("~"):
        try:
            usual.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=usual):
                return usual
        except OSError as error:
            tell_without_cache(f"{usual}: {error.strerror}")
    else:
        tell_without_cache("this user has no home folder")
    folder = tempfile.mkdtemp(prefix="samgan-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def tell_without_cache(reason: str) -> None:
    """Warn, once in a process, that nothing is kept for the next time."""
    if not _told:
        _told.append(reason)
        warnings.warn(
            f"nothing is cached ({reason}), so the next time will take as long; to change this, let SAMGAN_CACHE name "
            "a folder that can be written to",
            stacklevel=2,
        )
