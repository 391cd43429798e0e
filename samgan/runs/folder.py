"""The run folder: the interface between training, sampling, evaluation and reports. docs/run-folder.md describes it."""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from samgan import __version__
from samgan.config import Config
from samgan.documents import parse_json
from samgan.errors import SamganError
from samgan.files import (
    NO_FOLLOW,
    PRIVATE,
    Location,
    atomic_write,
    holds_something,
    is_system_name,
    locked,
    naming,
    without_folders,
    write_json,
)
from samgan.runs.documents import Best, Environment, Start, TrainedOn

LAST_BYTES = 16384  # holds several lines
NUMBERS = {"train": ("wall_seconds", "images_per_second")}
"""Numbers that every line of a kind in `stats.jsonl` has, besides step and images seen."""
OPTIONAL_NUMBERS = {
    *("loss_discriminator", "loss_generator", "gradient_discriminator", "gradient_generator", "sign_real", "augment"),
    *("quick_score", "swd", "ms_ssim_gap", "ms_ssim_real", "ms_ssim_generated"),
}
"""Values of a line that are numbers, if they are there."""
CHECKPOINT_NAME = re.compile(r"step-([0-9]+)\.pt")


class Run:
    """One training run on disk.

    Files: `config.json` (resolved configuration), `environment.json` (versions, device, data), `stats.jsonl`
    (the log; each kind of line in order of step), `checkpoints/step-*.pt`, `checkpoints/best.json`, `grids/*.png`,
    `scores.json`, `report.html`.
    """

    def __init__(self, path: Location) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: Location, config: Config, environment: Environment | None = None) -> "Run":
        """Start a run: write its configuration and environment before anything else happens.

        Raises:
            SamganError: The folder exists and is not empty.
        """
        run = cls(path)
        if run.path.exists() and (not run.path.is_dir() or any(not _is_unfinished(p) for p in run.path.iterdir())):
            raise SamganError(
                f"{run.path} exists and is not empty; name a new folder, or continue the run in it with --resume"
            )
        run.path.mkdir(PRIVATE, parents=True, exist_ok=True)  # a grid of real images will be in it
        run.checkpoint_folder.mkdir(exist_ok=True)
        (environment or Environment()).write(run.path / "environment.json")
        write_json(run.path / "config.json", config.to_dict())  # last, since it makes the folder a run
        return run

    @classmethod
    def open(cls, path: Location) -> "Run":
        """Open an existing run.

        Raises:
            SamganError: The folder holds no `config.json`.
        """
        run = cls(path)
        if not (run.path / "config.json").is_file():
            raise SamganError(f"{run.path} is not a run folder: expected a config.json in it, written by samgan train")
        return run

    @property
    def config(self) -> Config:
        """The configuration the run was started with."""
        return Config.from_dict(self._read("config.json"))

    def rewrite_config(self, config: Config) -> None:
        """Replace `config.json`: a resumed run may be longer than first planned."""
        write_json(self.path / "config.json", config.to_dict())

    @property
    def environment(self) -> Environment:
        """Versions, device and data of the run's first start."""
        return Environment.read(self.path / "environment.json")

    @property
    def trained_on(self) -> list[str]:
        """SHA-256 of the prepared set, and of the sets of the runs that this one began with, newest first."""
        found: list[str] = []
        begun: Environment | Start | None = self.environment
        while begun is not None:
            if begun.data is not None:
                found.append(begun.data.sha256)
            begun = begun.start
        return found

    @property
    def checkpoint_folder(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def checkpoint_path(self, step: int) -> Path:
        """The checkpoint after `step` steps."""
        return self.checkpoint_folder / f"step-{step:08d}.pt"

    def checkpoints(self) -> list[Path]:
        """All checkpoints, oldest first; other files in the folder are ignored."""
        return sorted(path for path in self.checkpoint_folder.glob("*") if CHECKPOINT_NAME.fullmatch(path.name))

    def last_step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        return max((int(path.stem.removeprefix("step-")) for path in self.checkpoints()), default=0)

    def grid_path(self, images_seen: int) -> Path:
        """The grid of a snapshot; it is the last file of a snapshot to be written."""
        return self.path / "grids" / f"kimg-{images_seen / 1000:010.3f}.png"

    def grids(self) -> list[Path]:
        """The grids of all snapshots, oldest first."""
        return sorted((self.path / "grids").glob("kimg-*.png"))

    def best(self) -> Best | None:
        """The best snapshot, or None before the first score."""
        path = self.checkpoint_folder / "best.json"
        return Best.read(path) if path.is_file() else None

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to `stats.jsonl`; a line torn by a crash stays as it is."""
        path = self.path / "stats.jsonl"
        text = json.dumps(line, allow_nan=False) + "\n"
        with naming(path), open(path, "ab+", opener=_open_itself) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = "\n" + text
            file.write(text.encode())

    def cut_log(self, step: int, *, scored: bool) -> None:
        """Remove what a run that continues after `step` will write again, and lines that a crash has torn.

        Args:
            step: The step that the run continues after.
            scored: Whether the snapshot of that step is complete; otherwise its scores are written again too.
        """
        path = self.path / "stats.jsonl"
        if path.is_file():
            lines = [line for line in self.stats() if line["step"] < step + (scored or line["kind"] != "scores")]
            text = "".join(json.dumps(line) + "\n" for line in lines).encode()
            if text != path.read_bytes():
                with atomic_write(path) as file:
                    file.write(text)

    def stats(self) -> Iterator[dict[str, Any]]:
        """Lines of `stats.jsonl` in order of step; the last line of a kind for a step counts.

        Lines that are torn by a crash, or lack what every line of their kind has, are left out.
        """
        path = self.path / "stats.jsonl"
        lines: dict[tuple[int, str], dict[str, Any]] = {}
        if path.is_file():
            for text in path.read_text("utf-8", errors="replace").splitlines():
                line = _line(text)
                if line is not None:
                    lines[line["step"], line["kind"]] = line
        yield from (lines[key] for key in sorted(lines))

    def last_line(self) -> dict[str, Any] | None:
        """The newest line of kind `train`, without reading the whole log."""
        try:
            with open(self.path / "stats.jsonl", "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return None
        for text in reversed(lines):
            line = _line(text)
            if line is not None and line["kind"] == "train":
                return line
        return None

    def is_over(self, minutes: float | None = None) -> bool:
        """Whether training has finished, by the run's settings or after `minutes`, and everything is saved."""
        last, done = self.last_line(), self.last_step()
        if not done or last is None or last["step"] > done:
            return False
        out_of_time = minutes is not None and last["wall_seconds"] >= 60 * minutes
        return out_of_time or done >= self.config.training.total_steps

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; the lock ends with the process that holds it.

        Raises:
            SamganError: Another process holds it, or a file of the run is a link to another place.
        """
        with locked(self.path, f"another process is training in {self.path}; wait for it or stop it"):
            self._check_inside()
            yield

    def _check_inside(self) -> None:
        """Refuse a run whose files lie elsewhere, by links: training would write there, and delete checkpoints."""
        own = self.path.resolve()
        for name in ("checkpoints", "grids", "tensorboard", "mlruns", "wandb", "stats.jsonl"):
            path = self.path / name
            if path.is_symlink() and not path.resolve().is_relative_to(own):
                raise SamganError(
                    f"{path} is a link to {path.resolve()}, outside of the run: put what it leads to in its place, or "
                    "link to the whole run instead"
                )
            if path.exists() and path.is_file() != (name == "stats.jsonl"):
                kind = "file" if name == "stats.jsonl" else "folder"
                raise SamganError(f"{path}: expected a {kind}, found something else; move it away")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            document = parse_json(path.read_bytes())
        except FileNotFoundError:
            raise SamganError(f"{path} is missing; is {self.path} a run folder?") from None
        except (ValueError, RecursionError) as error:
            raise SamganError(f"{path} is not valid JSON ({error}); restore it from a copy") from None
        if not isinstance(document, dict):
            raise SamganError(f"{path} is damaged: expected a JSON object with settings; restore it from a copy")
        return document


def _line(text: str) -> dict[str, Any] | None:
    """A line of `stats.jsonl`; None if it is torn, or has not what every line has: its readers rely on that."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return None
    whole = ("step", "images_seen")
    needed = (*whole, *NUMBERS.get(line["kind"], ()))
    fits = all(_is_number(line.get(name)) for name in needed) and all(type(line[name]) is int for name in whole)
    fits = fits and all(_is_number(line[name]) for name in line.keys() & OPTIONAL_NUMBERS)
    gammas = line.get("gamma", {})
    fits = fits and isinstance(gammas, dict) and all(map(_is_number, gammas.values()))
    return line if fits else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1 << 62  # NaN and infinity are not


def _open_itself(path: str, flags: int) -> int:
    """Open a file, but not what a link leads to."""
    return os.open(path, flags | NO_FOLLOW, 0o666)


def _is_unfinished(path: Path) -> bool:
    """Whether a start that was cut off before it wrote `config.json` may have left this file."""
    if path.name == "checkpoints":
        return path.is_dir() and not holds_something(path)
    is_ours = path.name in ("environment.json", ".lock") or (path.name[0] == "." and path.suffix == ".tmp")
    return is_ours or is_system_name(path.name)


def describe_environment(device: str, data: TrainedOn | None, start: Start | None = None) -> Environment:
    """Describe what is needed to repeat a run: versions, machine, command, source commit, data."""
    commit = None
    source = Path(__file__).parents[1]
    if (source.parent / ".git").exists() and shutil.which("git"):
        result = subprocess.run(
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        commit = result.stdout.strip() or None
    program = Path(sys.argv[0])
    packages = ("torch", "torchvision", "lightning-fabric", "numpy", "pillow", "pydicom")
    return Environment(
        samgan=__version__,
        commit=commit,
        python=platform.python_version(),
        packages={name: metadata.version(name) for name in packages} | _kernels(),
        platform=platform.platform(),
        processor=processor_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        device=device,
        command=("samgan" if program.stem == "__main__" else program.name, *without_folders(sys.argv[1:])),
        data=data,
        start=start,
    )


def _kernels() -> dict[str, str]:
    from samgan.kernels import kernels_version  # imports torch

    version = kernels_version()
    return {} if version is None else {"samgan-kernels": version}


def processor_name() -> str:
    """The processor of this machine, as environment.json has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
