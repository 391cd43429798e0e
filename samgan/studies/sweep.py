"""Train and score many configurations: one after another in this process, or as jobs of Ray or Slurm on many machines.

A sweep is a folder. While a job trains, its run is in `runs/KEY/`. When it has been scored, the folder has one document
(`rows/KEY.json`) and one picture (`rows/KEY.png`) of it. KEY ends in a hash of everything that decides what is computed
(`Job.key`). So the same command continues however it was stopped, and nothing is computed twice.
"""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samgan import api
from samgan.data import PreparedSet
from samgan.errors import SamganError, first_line
from samgan.files import PRIVATE, atomic_write, is_full, locked
from samgan.pictures import SYNTHETIC, image_grid, to_uint8, write_png
from samgan.runs import Run, find_collapse
from samgan.sampling import load_model, sample
from samgan.scoring import SCORING, Scores, scores_file
from samgan.studies.sweep_job import Job, Resources, Scoring
from samgan.studies.sweep_ray import run_on_ray
from samgan.studies.sweep_row import Curve, RowDocument, ScoredAt, Trained, keep_row, row_path
from samgan.studies.sweep_slurm import refuse_queued, run_on_slurm
from samgan.studies.sweep_status import Status
from samgan.terminal import say

PICTURE_SEEDS = 16
CURVE_POINTS = 60
CURVES = ("loss_discriminator", "loss_generator", "sign_real", "gradient_discriminator", "gradient_generator")
QUICK = ("swd", "ms_ssim_real", "ms_ssim_generated", "ms_ssim_gap")
LOST_LOCK_SECONDS = 120.0  # a network file system takes a while to notice that a machine is gone


def run_sweep(
    jobs: Sequence[Job],
    out: Path,
    scoring: Scoring,
    resources: Resources,
    *,
    on_collapse: str = "warn",
    report: Callable[[list[RowDocument]], Any] | None = None,
) -> list[RowDocument]:
    """Run all jobs that are not finished yet, and return the rows of all.

    Args:
        jobs: What to run, in this order.
        out: The sweep's folder: new, or one to continue. With several machines it and the prepared sets must be on a
            file system that all of them see.
        scoring: How to score.
        resources: Where to run.
        on_collapse: As for `samgan.api.train`.
        report: Called with all rows so far, each time a job has ended.

    Returns:
        One row for each job. The next call tries failed jobs again.

    Raises:
        UsageError: Ray is not installed, there is no Slurm, or a job asks for more than any machine has.
        SamganError: Another sweep uses the folder; Slurm has jobs that are to run elsewhere now; the cluster cannot be
            reached; a row cannot be read; or a row was scored in another way and cannot be scored again, because its
            run is gone or features are missing.
        Interrupted: A signal arrived; the same call continues.
    """
    out.mkdir(PRIVATE, parents=True, exist_ok=True)
    with locked(out, f"{out} is in use by another sweep; wait for it to end, or stop it"):
        found = {job.key: finished(job, out, scoring, on_collapse) for job in jobs}
        pending = [job for job in jobs if found[job.key] is None]
        for job in pending:
            _refuse_to_lose(job, out, scoring)
        if not resources.slurm:
            refuse_queued(pending, out)
        with Status(jobs, out, found, 1 if resources.here else None):
            for row in _run(pending, out, scoring, resources, on_collapse):
                found[row.key] = row
                if report:
                    report([row for row in found.values() if row])
        rows = [row for row in found.values() if row]
    _say_unscored(jobs, rows)
    return rows


def _say_unscored(jobs: Sequence[Job], rows: Sequence[RowDocument]) -> None:
    """Say which scores on the way a table lacks: a run that has passed a length is not trained again for it."""
    lengths = {row.key: {one.kimg for one in row.scored_at} for row in rows if not row.failed}
    for job in jobs:
        there = lengths.get(job.key)
        missing = [] if there is None else [kimg for kimg in job.score_at if kimg not in there]
        if missing:
            told = ", ".join(f"{kimg:g}" for kimg in missing)
            say(
                f"samgan: {job.key} has no scores at {told} kimg: it ended before, or had passed them when they were "
                "asked for in this way"
            )


def _run(
    pending: Sequence[Job], out: Path, scoring: Scoring, resources: Resources, on_collapse: str
) -> Iterator[RowDocument]:
    if resources.here:
        return (run_job(job, out, scoring, resources, on_collapse) for job in pending)
    if resources.slurm:
        return run_on_slurm(pending, out, scoring, resources, on_collapse)
    return run_on_ray(run_job, pending, out, scoring, resources, on_collapse)


def finished(job: Job, out: Path, scoring: Scoring, on_collapse: str = "warn") -> RowDocument | None:
    """The row of a job that was trained and scored in this way, or None.

    Raises:
        SamganError: The row cannot be read, is that of another job, or was scored on another set.
    """
    row = _read_row(job, out)
    data = row.scores.data if row and row.scores else None
    if data and data.sha256 != job.data_sha256:
        raise SamganError(
            f"{row_path(out, job.key)}: expected scores of the set {job.data_sha256[:12]}, found those of "
            f"{data.sha256[:12]}; delete this file and {out / 'runs' / job.key} to train the row again"
        )
    if row is None or row.trained is None or row.scores is None or not scoring.scored(row):
        return None
    return row if on_collapse == "stop" or not row.trained.ended_early else None


def _read_row(job: Job, out: Path) -> RowDocument | None:
    path = row_path(out, job.key)
    if not path.exists():
        return None
    row = RowDocument.read(path)
    if row.key != job.key:
        raise SamganError(
            f"{path}: expected the row {job.key}, found {row.key}; rename the file to {row.key}.json, or delete it to "
            "train the expected one again"
        )
    return row


def _refuse_to_lose(job: Job, out: Path, scoring: Scoring) -> None:
    row = _read_row(job, out)
    if row is None or row.scores is None:
        return
    path = row_path(out, job.key)
    if not Run(out / "runs" / job.key).last_step():
        raise SamganError(
            f"{path} was made with other --features, --features-file, --count, --protocol or --on-collapse, and its "
            "run is no longer here to be scored again; give the same options as before, or delete the row to train it "
            "again"
        )
    if row.scores.features and not scoring.features:
        raise SamganError(
            f"{path} has scores that need features, but no features are available now; give --features or "
            "--features-file, or name another folder with --out"
        )


def run_job(job: Job, out: Path, scoring: Scoring, resources: Resources, on_collapse: str = "warn") -> RowDocument:
    """Train one job, or continue its training, and score it; what is done already is not done again.

    Returns:
        The row, which is then also in `rows/`. If this way of scoring failed, earlier scores stay there instead.
    """
    if resources.cores is not None:
        torch.set_num_threads(resources.cores)
    trained = scores = second = failed = None
    on_the_way: list[ScoredAt] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about collapses and slow networks: the table shows both
            data = _open(job)
            path = out / "runs" / job.key
            for kimg in job.score_at:
                on_the_way += _score_at(kimg, job, path, data, scoring, resources, on_collapse)
            run = _train(job, path, data, resources, on_collapse)
            trained = _describe(run)
            if on_collapse == "stop" and trained.collapse:
                trained = dataclasses.replace(trained, ended_early=not run.is_over(job.minutes))
            scores = _score(run, data, scoring, resources.device)
            if other := _second(scoring):
                second = _score(run, data, other, resources.device, run.path / "second-scores")
            on_the_way = _scored_alike(on_the_way, scores, second)
        picture = to_uint8(sample(load_model(run), range(PICTURE_SEEDS))).numpy()
        with atomic_write(row_path(out, job.key).with_suffix(".png")) as file:
            write_png(file, image_grid(picture, PICTURE_SEEDS), {"Description": SYNTHETIC})
    except (SamganError, MemoryError, OSError, RuntimeError, ValueError) as error:  # ends this row; others may succeed
        if getattr(error, "signal_number", None):  # stopped from outside, not failed
            raise
        if isinstance(error, OSError) and is_full(error):  # no other row could be written
            raise
        name = "" if isinstance(error, SamganError) else f"{type(error).__name__}: "
        failed = name + first_line(error)
        with contextlib.suppress(SamganError, OSError, ValueError):
            trained = trained or _described_so_far(job, out / "runs" / job.key)
    row = RowDocument(
        name=job.name,
        seed=job.seed,
        key=job.key,
        scoring=scoring.key,
        on_collapse=on_collapse,  # type: ignore[arg-type]  # `train` has checked it
        trained=trained,
        scores=None if failed else scores,
        second_scores=None if failed else second,
        scored_at=tuple(on_the_way),
        failed=failed,
    )
    return keep_row(row, out)


def _open(job: Job) -> PreparedSet:
    """Open the set of a job, which must still be the one that is in the job's key."""
    data = PreparedSet.open(job.data)
    if data.sha256 != job.data_sha256:
        raise SamganError(
            f"{job.data}: expected the set {job.data_sha256[:12]} that this sweep began with, found "
            f"{data.sha256[:12]}: it was prepared again; give the same command again, which trains this set anew"
        )
    return data


def _scored_alike(on_the_way: list[ScoredAt], scores: Scores, second: Scores | None) -> list[ScoredAt]:
    """Scores on the way by the features and the count of those at the end; an earlier call may have had others."""
    used, by_second = (scores.features, scores.count), second and second.features
    return [
        one
        if one.second_scores is None or one.second_scores.features == by_second
        else dataclasses.replace(one, second_scores=None)
        for one in on_the_way
        if (one.scores.features, one.scores.count) == used
    ]


def _score_at(
    kimg: float, job: Job, path: Path, data: PreparedSet, scoring: Scoring, resources: Resources, on_collapse: str
) -> list[ScoredAt]:
    """Train to a part of the job's length, and score that; nothing if the run has passed it without scores."""
    part = dataclasses.replace(job, config=job.config.override({"training.kimg": kimg}))
    found: list[Scores] = []
    at = f"scores-{kimg:g}" + (f"-computed-by-{SCORING}" if SCORING > 1 else "")  # those of an older way are not taken
    for by, folder in ((scoring, path / at), (_second(scoring), path / f"second-{at}")):
        if by is None:
            continue
        document = folder / scores_file(scoring.protocol)
        begun = (path / "config.json").is_file()
        steps = part.config.training.total_steps
        at_hand = begun and Run(path).last_step() == steps  # then it can still be scored in this way
        if not document.exists() or (at_hand and not _fits(Scores.read(document), by)):
            if begun and Run(path).last_step() > steps:
                what = "by the second features" if found else "there"
                say(f"samgan: {job.key} has passed {kimg:g} kimg, and cannot be scored {what} any more")
                break
            run = _train(part, path, data, resources, on_collapse)
            if run.last_step() < steps:  # ended at its collapse
                break
            _score(run, data, by, resources.device, folder)
        found.append(Scores.read(document))
    return [ScoredAt(kimg=kimg, scores=found[0], second_scores=found[1] if len(found) > 1 else None)] if found else []


def _fits(scores: Scores, scoring: Scoring) -> bool:
    """Whether scores were made in this way, as far as it is named."""
    named = Path(scoring.features).name if scoring.features else ""
    by_features = not named or (scores.features is not None and scores.features.short == named)
    return by_features and scoring.count in (None, scores.count)


def _second(scoring: Scoring) -> Scoring | None:
    """How to score by other features; None if they were not asked for."""
    if not scoring.second_features:
        return None
    return dataclasses.replace(scoring, features=scoring.second_features, features_file=None)


def _train(job: Job, path: Path, data: PreparedSet, resources: Resources, on_collapse: str) -> Run:
    begun = (path / "config.json").is_file()
    config = job.config
    if begun:
        _wait_for(Run(path))
        if _is_trained(Run(path), job, on_collapse):
            return Run(path)
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


def _score(run: Run, data: PreparedSet, scoring: Scoring, device: str, folder: Path | None = None) -> Scores:
    weights = Path(scoring.features_file) if scoring.features_file else None
    scores, _ = api.evaluate(
        run.path,
        data,
        count=scoring.count,
        features=scoring.features,
        features_file=weights,
        protocol=scoring.protocol,
        device=device,
        out=folder,
    )
    return scores


def _wait_for(run: Run) -> None:
    """Wait until the lock of a lost worker is gone. Only this sweep may use the run, so nobody else holds the lock."""
    end = time.monotonic() + LOST_LOCK_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(SamganError), run.locked():
            return
        time.sleep(1)


def _is_trained(run: Run, job: Job, on_collapse: str) -> bool:
    """Whether nothing is left to train. With "stop", a run that ended at its collapse does not go on."""
    last = run.last_line()
    step = run.last_step()
    if not step or last is None or last["step"] > step or not run.grid_path(last["images_seen"]).exists():
        return False
    if job.minutes is None and step < job.config.training.total_steps and run.is_over():  # of a part of the job
        return False
    return run.is_over(job.minutes) or (on_collapse == "stop" and find_collapse(run.stats()) is not None)


def _described_so_far(job: Job, path: Path) -> Trained | None:
    """What a run that failed had trained by its last checkpoint; its configuration has the length of the job."""
    if not (path / "config.json").is_file():
        return None
    run = Run(path)
    begun = any(line["kind"] == "train" and line["step"] <= run.last_step() for line in run.stats())
    if not begun:
        return None
    config = run.config.override({"training.kimg": job.config.training.kimg})  # it may have that of a part
    return dataclasses.replace(_describe(run), config=config.to_dict())


def _describe(run: Run) -> Trained:
    # A resumed run may end at a smaller step than it had logged before it was stopped.
    lines = [line for line in run.stats() if line["step"] <= run.last_step()]
    train = [line for line in lines if line["kind"] == "train"]
    quick = [line for line in lines if line["kind"] == "scores"]
    environment = run.environment
    speed = np.median([line["images_per_second"] for line in train])
    return Trained(
        config=run.config.to_dict(),
        commit=environment.commit,
        processor=environment.processor,
        device=environment.device,
        kimg=train[-1]["images_seen"] / 1000,
        wall_minutes=round(train[-1]["wall_seconds"] / 60, 2),
        images_per_second=round(float(speed), 2),
        gamma=train[-1]["gamma"],
        curves={name: _curve(of, name) for of, names in ((train, CURVES), (quick, QUICK)) for name in names},
        collapse=find_collapse(lines),
    )


def _curve(lines: list[dict[str, Any]], name: str) -> Curve:
    """The means of a logged number over at most `CURVE_POINTS` parts of the run."""
    points = [(line["images_seen"] / 1000, line[name]) for line in lines if name in line]
    stretches = np.array_split(np.array(points).reshape(-1, 2), max(1, min(CURVE_POINTS, len(points))))
    return tuple((round(float(part[-1, 0]), 3), round(float(part[:, 1].mean()), 5)) for part in stretches if len(part))
