"""Train and score many configurations: one after another in this process, or as jobs of Ray on one machine or many.

A sweep is a folder. Of each job it holds the run while it trains (`runs/KEY/`), and when it is scored one document
(`rows/KEY.json`) and one picture (`rows/KEY.png`). KEY ends in a hash of configuration, data, length and version, so
the same command goes on where it was stopped, in whatever way, and nothing is computed twice.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from samgan import __version__, api
from samgan.config import Config
from samgan.data import PreparedSet
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write, write_json
from samgan.metrics.features import load_features
from samgan.pictures import SYNTHETIC, image_grid, to_uint8, write_png
from samgan.runs import Run, find_collapse
from samgan.sampling import load_model, sample
from samgan.scoring import schema_0
from samgan.training import Interrupted

PICTURE_SEEDS = 16
CURVE_POINTS = 60
CURVES = ("loss_discriminator", "loss_generator", "sign_real", "gradient_discriminator", "gradient_generator")
QUICK = ("swd", "ms_ssim_real", "ms_ssim_generated", "ms_ssim_gap")
REFRESH_SECONDS = 2.0
QUIET_SECONDS = 60.0
IDLE_SECONDS = 600.0  # since its last line: a job that is not running, or is being scored
LOST_WORKERS = 20
LOST_LOCK_SECONDS = 120.0  # a network file system takes a while to see that a machine is gone


@dataclasses.dataclass(frozen=True)
class Job:
    """One configuration, trained on one prepared set."""

    name: str
    config: Config
    data: str
    data_sha256: str
    minutes: float | None
    """Length, where it is not `training.kimg`."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.training.seed

    @property
    def key(self) -> str:
        """Name, seed and a hash of all that decides what the run computes."""
        document = {"config": self.config.to_dict(), "data": self.data_sha256, "minutes": self.minutes}
        return f"{self.name}-seed{self.seed}-{_hash({**document, 'version': __version__})[:8]}"


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How a run is scored: arguments of `samgan.api.evaluate`."""

    features: str | None = None
    inception_weights: str | None = None
    count: int | None = None
    shape: tuple[int, int, int] = (1, 64, 64)
    """[c h w] of the images that a module of `features` is tried on."""

    @functools.cached_property
    def key(self) -> dict[str, Any]:
        """What decides the scores: a module by what it computes, a file of weights by its content."""
        features: str | list[float] | None = self.features
        if self.features and Path(self.features).is_file():
            features = load_features(self.features).fingerprint(self.shape)
        weights = self.inception_weights and _file_hash(self.inception_weights)
        return {"features": features, "inception_weights": weights, "count": self.count, "version": __version__}

    def scored(self, document: dict[str, Any]) -> bool:
        """Whether a document's scores were taken in this way; features of equal modules differ by their rounding."""
        own, other = self.key, document.get("scoring") or {}
        numbers, others = own["features"], other.get("features")
        if not (isinstance(numbers, list) and isinstance(others, list) and len(numbers) == len(others)):
            return own == other
        return bool(np.allclose(numbers, others, rtol=1e-3)) and {**own, "features": others} == other


@dataclasses.dataclass(frozen=True)
class Resources:
    """Where jobs run, and what each takes."""

    ray: str | None = None
    """None: in this process. "local": workers of this machine. Else the address of a Ray cluster, or "auto"."""
    cores: int | None = None
    """Of each job; None: all of this machine."""
    gpus: float = 0.0
    device: str = "auto"


def run_sweep(
    jobs: Sequence[Job],
    out: Path,
    scoring: Scoring,
    resources: Resources,
    *,
    on_collapse: str = "warn",
    report: Callable[[list[dict[str, Any]]], Any] | None = None,
) -> list[dict[str, Any]]:
    """Run all jobs that are not finished yet, and return the documents of all.

    Args:
        jobs: What to run, in this order.
        out: The sweep's folder, new or to be continued; with several machines on a file system that all of them see,
            as the prepared sets.
        scoring: How to score.
        resources: Where to run.
        on_collapse: As for `samgan.api.train`.
        report: Called with the documents there are, whenever a job has ended.

    Returns:
        One document for each job: `name`, `seed`, `key`, `scoring`, `commit`, `config`, `processor`, `device`, `kimg`,
        `wall_minutes`, `images_per_second`, `gamma`, `curves`, `collapse`, `ended_early`, `scores` (of
        `samgan.scoring.evaluate`); of a job that failed `failed` (the reason) instead of scores. Failed jobs are
        tried again by the next call.

    Raises:
        UsageError: Ray is not installed, or a job asks for more than there is.
        SamganError: The folder is in use by another sweep, the cluster cannot be reached, or a row was scored in
            another way and its run is not there to be scored again, or there are no features to do it with.
        Interrupted: A signal came; the same call goes on.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        found = {job.key: finished(job, out, scoring, on_collapse) for job in jobs}
        for job in jobs:
            if found[job.key] is None:
                _refuse_to_lose(job, out, scoring)
        pending = [job for job in jobs if found[job.key] is None]
        with _Status(jobs, out, found, 1 if resources.ray is None else None) as status:
            work = _here if resources.ray is None else _on_ray
            for key, document in work(pending, out, scoring, resources, on_collapse):
                status.found[key] = document
                if report:
                    report([document for document in found.values() if document])
        return [document for document in found.values() if document]


def finished(job: Job, out: Path, scoring: Scoring, on_collapse: str = "warn") -> dict[str, Any] | None:
    """The document of a job that was trained and scored in this way, or None."""
    document = _read_row(job, out)
    whole = not ended_early(document) or on_collapse == "stop"
    return document if "scores" in document and whole and scoring.scored(document) else None


def ended_early(document: dict[str, Any]) -> bool:
    """Whether a run was ended at the alarm of its collapse."""
    return document.get("ended_early", False)


def _read_row(job: Job, out: Path) -> dict[str, Any]:
    try:
        document = json.loads((out / "rows" / f"{job.key}.json").read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _refuse_to_lose(job: Job, out: Path, scoring: Scoring) -> None:
    row = _read_row(job, out)
    if "scores" not in row:
        return
    path = out / "rows" / f"{job.key}.json"
    if not Run(out / "runs" / job.key).last_step():
        raise SamganError(
            f"{path} was made with other --features, --inception-weights, --count or "
            "--on-collapse, and its run is not here to do it anew; give the same, or delete the row to train it again"
        )
    if row["scores"].get("features") and not scoring.features:
        raise SamganError(
            f"{path} has scores of features, which cannot be had now: give --features or --inception-weights, or take "
            "another folder"
        )


def run_job(job: Job, out: Path, scoring: Scoring, resources: Resources, on_collapse: str = "warn") -> dict[str, Any]:
    """Train one job, or go on training it, and score it; what is there already is not done again.

    Returns:
        The document that `run_sweep` describes, which also lies in `rows/` then.
    """
    if resources.cores is not None:
        _limit_threads(resources.cores)
    path = out / "runs" / job.key
    document: dict[str, Any] = {"name": job.name, "seed": job.seed, "key": job.key, "scoring": scoring.key}
    document["on_collapse"] = on_collapse
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of collapses, and of paper's widths on a CPU: the table tells
            data = PreparedSet.open(job.data)
            run = _train(job, path, data, resources, on_collapse)
            document |= _describe(run)
            collapsed = on_collapse == "stop" and bool(document["collapse"])
            document["ended_early"] = collapsed and not run.is_over(job.minutes)
            weights = Path(scoring.inception_weights) if scoring.inception_weights else None
            scored, _ = api.evaluate(
                path,
                data,
                count=scoring.count,
                features=scoring.features,
                inception_weights=weights,
                device=resources.device,
            )
            document["scores"] = schema_0(scored)
        picture = to_uint8(sample(load_model(run), range(PICTURE_SEEDS))).numpy()
        with atomic_write(out / "rows" / f"{job.key}.png") as file:
            write_png(file, image_grid(picture, PICTURE_SEEDS), {"Description": SYNTHETIC})
    except (SamganError, MemoryError, RuntimeError, ValueError) as error:  # of one row; others may do
        if getattr(error, "signal_number", None):  # stopped from outside, not failed
            raise
        reason = (str(error).splitlines() or [""])[0]
        document["failed"] = reason if isinstance(error, SamganError) else f"{type(error).__name__}: {reason}"
        if "scores" in _read_row(job, out):  # of another way to score, and not to be lost
            return document
    write_json(out / "rows" / f"{job.key}.json", document)
    return document


def _train(job: Job, path: Path, data: PreparedSet, resources: Resources, on_collapse: str) -> Run:
    begun = (path / "config.json").is_file()
    config = job.config
    if begun:
        _wait_for(Run(path))
        if _is_trained(Run(path), job, on_collapse):
            return Run(path)
        if config.training.precision == "auto":  # whatever the machine had that began it
            config = config.override({"training.precision": Run(path).config.training.precision})
    return api.train(
        config,
        data,
        path,
        resume=begun,
        minutes=job.minutes,
        device=resources.device,
        on_collapse=on_collapse,
        quiet=True,
    )


def _wait_for(run: Run) -> None:
    """Let a lost worker's lock go: the sweep is ours alone, so nobody else has a right to it."""
    end = time.monotonic() + LOST_LOCK_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(SamganError), run.locked():
            return
        time.sleep(1)


def _is_trained(run: Run, job: Job, on_collapse: str) -> bool:
    """Whether nothing is left to train; a run that was stopped for its collapse would go on otherwise."""
    last = run.last_line()
    step = run.last_step()
    if not step or last is None or last["step"] > step or not run.grid_path(last["images_seen"]).exists():
        return False
    return run.is_over(job.minutes) or (on_collapse == "stop" and find_collapse(run.stats()) is not None)


def _describe(run: Run) -> dict[str, Any]:
    lines = [line for line in run.stats() if line["step"] <= run.last_step()]  # a resumed run may end before a halt
    train = [line for line in lines if line["kind"] == "train"]
    quick = [line for line in lines if line["kind"] == "scores"]
    collapse = find_collapse(lines)
    environment = run.environment
    speed = np.median([line["images_per_second"] for line in train])
    return {
        "config": run.config.to_dict(),
        "commit": environment.commit,
        "processor": environment.processor,
        "device": environment.device,
        "kimg": train[-1]["images_seen"] / 1000,
        "wall_minutes": round(train[-1]["wall_seconds"] / 60, 2),
        "images_per_second": round(float(speed), 2),
        "gamma": train[-1]["gamma"],
        "curves": {
            **{name: _curve(train, name) for name in CURVES},
            **{name: _curve(quick, name) for name in QUICK},
        },
        "collapse": collapse._asdict() if collapse else None,
    }


def _curve(lines: list[dict[str, Any]], name: str) -> list[list[float]]:
    """Points (kimg, value): means of at most `CURVE_POINTS` stretches."""
    points = [(line["images_seen"] / 1000, line[name]) for line in lines if name in line]
    stretches = np.array_split(np.array(points).reshape(-1, 2), max(1, min(CURVE_POINTS, len(points))))
    return [[round(float(part[-1, 0]), 3), round(float(part[:, 1].mean()), 5)] for part in stretches if len(part)]


def _here(pending: Sequence[Job], out: Path, scoring: Scoring, resources: Resources, on_collapse: str) -> Iterator:
    for job in pending:
        yield job.key, run_job(job, out, scoring, resources, on_collapse)


def _on_ray(pending: Sequence[Job], out: Path, scoring: Scoring, resources: Resources, on_collapse: str) -> Iterator:
    """Jobs as tasks of Ray: one whose worker is lost is started again elsewhere, and goes on from its checkpoint."""
    ray = _start_ray(resources)
    try:
        cores = _cores_of_a_job(ray.nodes(), resources)
        task = ray.remote(
            num_cpus=cores, num_gpus=resources.gpus, max_retries=LOST_WORKERS, retry_exceptions=[Interrupted]
        )(run_job)
        device = "cpu" if resources.device == "auto" and not resources.gpus else resources.device
        resources = dataclasses.replace(resources, cores=cores, device=device)
        waiting = {
            task.options(name=job.key).remote(job, out.resolve(), scoring, resources, on_collapse): job
            for job in pending
        }
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=REFRESH_SECONDS)
            for reference in done:
                job = waiting.pop(reference)
                try:
                    yield job.key, ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                    yield job.key, {"name": job.name, "seed": job.seed, "key": job.key, "failed": reason}
    finally:
        ray.shutdown()


def _cores_of_a_job(nodes: Sequence[dict[str, Any]], resources: Resources) -> int:
    """The cores asked for, else those of the largest machine, or their share that goes with the GPUs of a job.

    Raises:
        UsageError: No machine has what a job takes.
    """
    there = [node["Resources"] for node in nodes if node["Alive"]]
    sizes = [(int(node.get("CPU", 0)), node.get("GPU", 0.0)) for node in there]
    fitting = [(cpus, gpus) for cpus, gpus in sizes if cpus >= (resources.cores or 1) and gpus >= resources.gpus]
    if not fitting:
        has = ", ".join(f"{cpus} CPU and {gpus:g} GPU" for cpus, gpus in sorted(set(sizes))) or "none"
        wanted = f"{resources.cores or 1} CPU and {resources.gpus:g} GPU"
        raise UsageError(f"a job takes {wanted} of one machine; there are machines of {has}")
    if resources.cores:
        return resources.cores
    cpus, gpus = max(fitting)
    return max(1, int(cpus * resources.gpus / gpus)) if resources.gpus else cpus


def _start_ray(resources: Resources) -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed: pip install 'samgan[sweep]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if resources.ray == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=resources.ray, **quiet)
    except Exception as error:  # whatever stands between us and the cluster
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SamganError(
            f"--ray {resources.ray}: no Ray cluster there ({reason}); `ray start` makes one, and "
            "RAY_AUTH_MODE=token reaches one that asks for a token"
        ) from None
    return ray


def _limit_threads(cores: int) -> None:
    import torch

    torch.set_num_threads(cores)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second sweep out of the folder; the lock goes with the process."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(Run(out).locked())
        except SamganError:
            raise SamganError(f"{out} is being filled by another sweep; wait for it or stop it") from None
        yield


class _Status:
    """What runs, what is done and when the rest will be: a live table on a terminal, else a line a minute."""

    def __init__(
        self, jobs: Sequence[Job], out: Path, found: dict[str, dict[str, Any] | None], parallel: int | None
    ) -> None:
        self.jobs, self.out, self.found, self.parallel = jobs, out, found, parallel
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "_Status":
        if self.live:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self._show()
        if self.live:
            self.live.stop()

    def _follow(self) -> None:
        while not self.over.wait(REFRESH_SECONDS if self.live else QUIET_SECONDS):
            self._show()

    def _show(self) -> None:
        table, summary = self.table()
        if self.live:
            self.live.update(Group(table, summary), refresh=True)
        else:
            print(summary, file=sys.stderr, flush=True)

    def table(self) -> tuple[Table, str]:
        """Jobs that run, and one line of how far the sweep is."""
        table = Table(*("job", "kimg", "minutes", "images/s", "loss D", "loss G", "done", "minutes left"))
        left, running = 0.0, []
        for job in self.jobs:
            if self.found[job.key] is not None:
                continue
            line = Run(self.out / "runs" / job.key).last_line()
            share = _share_done(job, line)
            left += 1 - share
            if line is None or time.time() - _touched(self.out / "runs" / job.key) > IDLE_SECONDS:
                continue
            running.append(job)
            minutes = line["wall_seconds"] / 60
            cells = [f"{cell:.1f}" for cell in (line["images_seen"] / 1000, minutes, line["images_per_second"])]
            cells += [f"{line[name]:.3f}" for name in ("loss_discriminator", "loss_generator")]
            table.add_row(job.key, *cells, f"{share:.0%}", f"{minutes * (1 - share) / share:.0f}" if share else "")
        done = [document for document in self.found.values() if document is not None]
        failed = sum("failed" in document for document in done)
        lengths = [document["wall_minutes"] for document in done if "wall_minutes" in document]
        known = [job.minutes for job in self.jobs if job.minutes is not None]
        each = float(np.mean(known)) if known else float(np.mean(lengths)) if lengths else None
        parallel = self.parallel or max(1, len(running))
        eta = f", about {left * each / parallel:.0f} minutes left" if each is not None and left else ""
        summary = f"{len(done) - failed} of {len(self.jobs)} jobs done" + f", {failed} failed" * bool(failed)
        return table, f"{summary}, {len(running)} running{eta}"


def _share_done(job: Job, line: dict[str, Any] | None) -> float:
    if line is None:
        return 0.0
    share = line["step"] / job.config.training.total_steps
    if job.minutes is not None:
        share = max(share, line["wall_seconds"] / 60 / job.minutes)
    return min(share, 1.0)


def _touched(path: Path) -> float:
    try:
        return (path / "stats.jsonl").stat().st_mtime
    except OSError:
        return 0.0


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _file_hash(name: str) -> str:
    """The hash of the file that a name stands for, or the name."""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest() if Path(name).is_file() else name
