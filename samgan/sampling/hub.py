"""Models on the Hugging Face Hub: named hf:OWNER/NAME[@REVISION], fetched into its cache, sent from a folder.

`huggingface_hub` does the work, so its own settings hold: HF_TOKEN or `hf auth login` for who you are, HF_ENDPOINT for
a mirror, HF_HOME for the cache, HF_HUB_OFFLINE for no network. It is imported only when it is needed.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from samgan.errors import SamganError, UsageError, one_line

PREFIX = "hf:"
WEIGHTS_FILE = "model.safetensors"
"""The file of a repository, or of a folder of `samgan publish`, that is the model."""
REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"({REPOSITORY})(?:@(\w[\w./-]*))?", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class HubModel:
    """A repository of the Hub, and which of its revisions."""

    repository: str
    """OWNER/NAME."""
    revision: str = ""
    """A branch, a tag or a commit; empty: the newest commit of the main branch."""

    def __str__(self) -> str:
        """As it is typed."""
        return f"{PREFIX}{self.repository}{'@' if self.revision else ''}{self.revision}"


@dataclass(frozen=True)
class Sent:
    """What was uploaded."""

    repository: str
    commit: str
    url: str
    private: bool


def is_hub_name(source: Path) -> bool:
    """Whether `source` is meant as a model on the Hub; `hub_model` checks the rest of it."""
    return str(source).startswith(PREFIX)


def hub_model(source: Path) -> HubModel:
    """The model that a name on the command line, which is a path there, stands for.

    Raises:
        UsageError: It is no name of a model on the Hub.
    """
    found = _NAME.fullmatch(source.as_posix().removeprefix(PREFIX))
    if found is None or ".." in source.as_posix():
        raise UsageError(f"{source.as_posix()}: expected {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    return HubModel(found[1], found[2] or "")


def fetch(model: HubModel) -> tuple[Path, HubModel]:
    """The file of a model in the cache of the Hub, downloaded if it is not there yet.

    Without network, the newest revision that was downloaded before.

    Returns:
        The file, and the model with its commit as revision.

    Raises:
        UsageError: huggingface_hub is not installed.
        SamganError: There is no such model, it may not be read, or it cannot be reached.
    """
    _check_installed(str(model))
    import huggingface_hub

    with _explained(model):
        path = Path(huggingface_hub.hf_hub_download(model.repository, WEIGHTS_FILE, revision=model.revision or None))
    commit = path.parent.name  # snapshots/COMMIT/model.safetensors
    if not _COMMIT.fullmatch(commit):
        raise SamganError(f"{model}: {path} is not where the cache of the Hub keeps files; update huggingface_hub")
    _check_content(path, model)
    return path, HubModel(model.repository, commit)


def _check_content(path: Path, model: HubModel) -> None:
    """Refuse a large file that is not what the Hub said: the cache names its target by SHA-256, where it has links."""
    target = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
    if not _SHA256.fullmatch(target):
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != target:
        raise SamganError(
            f"{model}: {path} is damaged: its SHA-256 is {found[:12]}, and the Hub said {target[:12]}; delete "
            f"{path.resolve()}, then it is downloaded again"
        )


def send(folder: Path, names: Sequence[str], repository: str, message: str, *, public: bool) -> Sent:
    """Upload files of a folder as one commit, to a repository that is made if it is not there.

    A new repository is private, unless `public`. One that is there stays what it is.

    Raises:
        UsageError: The name is none, huggingface_hub is not installed, or the repository is public and `public` is not
            set.
        SamganError: You may not write to it, or it cannot be reached.
    """
    check_repository(repository)
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    model, api = HubModel(repository), huggingface_hub.HfApi()
    with _explained(model):
        try:
            private = bool(api.model_info(repository).private)
        except RepositoryNotFoundError:
            private = not public
            api.create_repo(repository, private=private, repo_type="model")
    if not private and not public:
        raise UsageError(f"{repository} is public on the Hub: to upload to it, say --public as well")
    with _explained(model):
        files = [huggingface_hub.CommitOperationAdd(name, folder / name) for name in names]
        commit = api.create_commit(repository, files, commit_message=message).oid
    return Sent(repository, commit, f"{api.endpoint}/{repository}", private)


def check_repository(repository: str) -> None:
    """Raise a UsageError if `repository` is no OWNER/NAME, or if huggingface_hub is not installed."""
    if not re.fullmatch(REPOSITORY, repository, re.ASCII):
        raise UsageError(f"--push {repository}: expected OWNER/NAME, as in a repository's address on the Hub")
    _check_installed(f"--push {repository}")


def _check_installed(what: str) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError(f"{what}: huggingface_hub is missing: pip install 'samgan[hub]'")


@contextlib.contextmanager
def _explained(model: HubModel) -> Iterator[None]:
    """Turn an error of the client into one line. It hands on errors of several HTTP libraries, which no type unites."""
    try:
        yield
    except Exception as error:
        raise SamganError(f"{model}: {_reason(error, model)}") from None


def _reason(error: Exception, model: HubModel) -> str:
    """What an error of the client means, and what to do."""
    from huggingface_hub import constants, errors

    sign_in = "set HF_TOKEN, or run hf auth login"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{model.repository}"
        return f"its owner grants access on request: ask for it at {page}, then {sign_in}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository at {constants.ENDPOINT}, or it is private: check the name; {sign_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no branch, tag or commit {model.revision}"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        if constants.HF_HUB_OFFLINE:
            return "it was not downloaded before, and HF_HUB_OFFLINE is set: unset it, or copy the file by hand"
        return f"{constants.ENDPOINT} cannot be reached, and it was not downloaded before ({_root(error)})"
    if isinstance(error, errors.EntryNotFoundError):
        return f"it holds no {WEIGHTS_FILE}, so it is not a model of samgan"
    if status in (401, 403):
        return f"{constants.ENDPOINT} refuses ({status}): {sign_in}, with a token that may do this"
    if "xet-" in str(error):  # the storage of the Hub itself
        return f"{constants.ENDPOINT} has no Xet storage ({_root(error)}): set HF_HUB_DISABLE_XET=1"
    return one_line(error) if isinstance(error, ValueError) else _root(error)  # it tells what is wrong with a card


def _root(error: BaseException) -> str:
    """The first cause of an error, as one line: what the client says above it is advice for programmers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)
