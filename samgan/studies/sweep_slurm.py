"""Run the jobs of a sweep as an array of Slurm.

An array is two files in `slurm/` of the sweep's folder, which have its name: NAME.json, what its jobs are, and NAME.sh,
the script for sbatch. Each task of it runs `samgan.studies.sweep_task`, says what it has to say in NAME-TASK.log, and
leaves its row in KEY.json. The name is a hash of the first file, so a later call knows the jobs that are in the queue.
"""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from samgan.config import Config
from samgan.documents import Document, read_json
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write, hash_json
from samgan.studies.sweep_job import Job, Resources, Scoring
from samgan.studies.sweep_row import RowDocument, keep_row
from samgan.terminal import say

POLL_SECONDS = 5.0
LATE_SECONDS = 60.0  # a network file system may show a file of another machine so late
SILENT_SECONDS = 600.0  # while slurmctld restarts, nobody answers
UNKNOWN = "no longer known"
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT", UNKNOWN}
MAY_HAVE_A_ROW = {"COMPLETED", UNKNOWN}
"""States of a job whose row may still have to come through the file system."""
LINE = re.compile(r"(samgan-[0-9a-f]{12})\|(\d+)\|(\w+)")


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A `Job` as it is written for another machine."""

    key: str
    name: str
    config: dict[str, Any]
    data: str
    data_sha256: str
    minutes: float | None
    score_at: tuple[float, ...]

    @classmethod
    def of(cls, job: Job) -> "JobRecord":
        """What to write of a job."""
        config = job.config.to_dict()
        return cls(
            key=job.key,
            name=job.name,
            config=config,
            data=job.data,
            data_sha256=job.data_sha256,
            minutes=job.minutes,
            score_at=job.score_at,
        )

    def job(self) -> Job:
        """The job.

        Raises:
            SamganError: Here it would compute something else.
        """
        config = Config.from_dict(self.config)
        job = Job(self.name, config, self.data, self.data_sha256, self.minutes, self.score_at)
        if job.key != self.key:
            raise SamganError(
                f"expected the job {self.key}, found {job.key}: this machine has another version of samgan than the "
                "one that submitted the job; install the same on both"
            )
        return job


@dataclass(frozen=True, kw_only=True)
class ArrayDocument(Document):
    """slurm/NAME.json: the jobs of an array, by the number of their task, and how to run them."""

    KIND: ClassVar[str] = "an array of jobs for Slurm"
    MADE_BY: ClassVar[str] = "samgan table2 --slurm"

    jobs: tuple[JobRecord, ...]
    scoring: Scoring
    on_collapse: Literal["warn", "stop", "ignore"]
    cores: int | None
    """CPU cores of each job; None: as many as Slurm gives."""
    gpus: int
    device: str

    @classmethod
    def of(cls, jobs: Sequence[Job], scoring: Scoring, resources: Resources, on_collapse: str) -> "ArrayDocument":
        """The array that runs these jobs."""
        return cls(
            jobs=tuple(map(JobRecord.of, jobs)),
            scoring=dataclasses.replace(scoring),  # without the key that it may have in store
            on_collapse=on_collapse,  # type: ignore[arg-type]  # `TableRequest` and `train` check it
            cores=resources.cores,
            gpus=int(resources.gpus),
            device=resources.on_another_machine().device,
        )

    def name(self, folder: Path) -> str:
        """The name that the array has in Slurm, in this folder."""
        return _name(folder, self.to_dict())

    def options(self, folder: Path) -> list[str]:
        """What samgan depends on, as arguments of sbatch. Those win over variables such as SBATCH_JOB_NAME.

        Args:
            folder: `slurm/` in the sweep's folder, absolute.
        """
        name = self.name(folder)
        # B: to the shell itself, whose place samgan takes by exec. Then it has two minutes to write a checkpoint.
        options = [f"--job-name={name}", f"--array=0-{len(self.jobs) - 1}", "--requeue", "--signal=B:TERM@120"]
        options += [f"--cpus-per-task={self.cores}"] if self.cores else []
        options += [f"--gpus={self.gpus}"] if self.gpus else []
        return [*options, "--open-mode=append", f"--output={str(folder).replace('%', '%%')}/%x-%a.log"]

    def script(self, folder: Path) -> str:
        """The script for sbatch. All paths in it are absolute, and its options are also in it, for who submits it.

        Args:
            folder: `slurm/` in the sweep's folder, absolute.
        """
        name = self.name(folder)
        options = [re.sub("^(--output)=(.*)$", r'\1="\2"', option) for option in self.options(folder)]
        command = [sys.executable, "-P", "-m", "samgan.studies.sweep_task", str(folder / f"{name}.json")]
        lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options)]
        return "\n".join([*lines, f'exec {shlex.join(command)} "$SLURM_ARRAY_TASK_ID"', ""])


def _name(folder: Path, tree: Any) -> str:
    """The name of an array by what is in its file, which another version of samgan may have written."""
    return f"samgan-{hash_json([str(folder), tree])[:12]}"


class Task(NamedTuple):
    """A task of an array."""

    name: str
    number: int


def slurm_folder(out: Path) -> Path:
    """Where a sweep keeps what it gives to Slurm."""
    return out.resolve() / "slurm"


def run_on_slurm(
    pending: Sequence[Job], out: Path, scoring: Scoring, resources: Resources, on_collapse: str
) -> Iterator[RowDocument]:
    """Run jobs as an array of Slurm, and yield their rows as they end.

    Jobs that an earlier call has submitted, and that still wait or run, are waited for and not submitted again.

    Raises:
        UsageError: This machine has no Slurm.
        SamganError: Slurm refuses the array or does not answer; or jobs of an earlier call with other options are in
            the queue.
    """
    folder = slurm_folder(out)
    tasks = _in_queue(pending, folder, ArrayDocument.of(pending, scoring, resources, on_collapse))
    if missing := [job for job in pending if job.key not in tasks]:
        tasks |= _submit(missing, ArrayDocument.of(missing, scoring, resources, on_collapse), folder)
    waiting = {job.key: job for job in pending}
    since: dict[str, float] = {}
    try:
        while waiting:
            states, now = _states(), time.monotonic()
            for key, job in list(waiting.items()):
                log = folder / f"{tasks[key].name}-{tasks[key].number}.log"
                state = states.get(tasks[key], UNKNOWN)
                may_come = state in MAY_HAVE_A_ROW and now < since.setdefault(key, now) + LATE_SECONDS
                if (folder / f"{key}.json").exists():
                    row = RowDocument.read(folder / f"{key}.json")
                    failed = row.failed and f"{row.failed}; see {log}"
                elif state not in ENDED or may_come:
                    continue
                else:
                    failed = f"its job in Slurm ended before it was done ({state}); see {log}"
                    lost = RowDocument(name=job.name, seed=job.seed, key=key, scoring=scoring.key, failed=failed)
                    row = keep_row(lost, out)
                if failed:
                    say(f"samgan: {key}: {failed}")
                del waiting[key]
                yield row
            time.sleep(POLL_SECONDS if waiting else 0)
    finally:
        if waiting:
            names = " ".join(sorted({f"--name={tasks[key].name}" for key in waiting}))
            say(f"samgan: {len(waiting)} jobs go on in Slurm: the same command waits, scancel {names} ends them")


def _in_queue(pending: Sequence[Job], folder: Path, wanted: ArrayDocument) -> dict[str, Task]:
    """The tasks, by key of their job, that wait or run since an earlier call."""
    found: dict[str, Task] = {}
    parts = {job.key: tuple(job.score_at) for job in pending}
    for task, array in _alive(folder):
        own = array.jobs[task.number]
        if (key := own.key) not in parts:
            continue
        asked = (wanted.scoring, wanted.on_collapse, parts[key])
        if (array.scoring, array.on_collapse, tuple(own.score_at)) != asked:
            raise SamganError(
                f"{key} is in Slurm's queue since an earlier call, which scores it in another way; wait for it with "
                f"the same options as before, or end it with scancel --name={task.name}"
            )
        if (array.cores, array.gpus, array.device) != (wanted.cores, wanted.gpus, wanted.device):
            raise SamganError(
                f"{key} is in Slurm's queue since an earlier call with other --cores-per-job, --gpus-per-job or "
                f"--device; wait for it with the same options as before, or end it with scancel --name={task.name}"
            )
        found[key] = task
    return found


def refuse_queued(pending: Sequence[Job], out: Path) -> None:
    """Refuse to run jobs elsewhere that Slurm still has in its queue; without a word where Slurm was never asked.

    Raises:
        SamganError: A job waits or runs in Slurm, or Slurm does not answer.
    """
    folder, keys = slurm_folder(out), {job.key for job in pending}
    if not shutil.which("squeue") or not any(folder.glob("samgan-*.json")):
        return
    for task, array in _alive(folder):
        if array.jobs[task.number].key in keys:
            raise SamganError(
                f"{array.jobs[task.number].key} is in Slurm's queue since an earlier call; wait for it with --slurm, "
                f"or end it with scancel --name={task.name}"
            )


def _alive(folder: Path) -> Iterator[tuple[Task, ArrayDocument]]:
    """The tasks that wait or run, with their array; not those of a folder that was copied or moved to this place."""
    arrays: dict[str, ArrayDocument | None] = {}
    for task, state in _states().items():
        path = folder / f"{task.name}.json"
        if state in ENDED or not path.exists():
            continue
        if task.name not in arrays:
            array = ArrayDocument.read(path)
            arrays[task.name] = array if _name(folder, read_json(path, "")) == task.name else None
            if arrays[task.name] is None:  # its rows appear at the other place
                say(
                    f"samgan: jobs of {folder.parent} at another place are still in Slurm's queue: scancel "
                    f"--name={task.name} ends them"
                )
        if found := arrays[task.name]:
            yield task, found


def _submit(jobs: Sequence[Job], array: ArrayDocument, folder: Path) -> dict[str, Task]:
    name = array.name(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        (folder / f"{job.key}.json").unlink(missing_ok=True)
    array.write(folder / f"{name}.json")
    script = folder / f"{name}.sh"
    with atomic_write(script) as file:
        file.write(array.script(folder).encode())
    done = _ask("sbatch", "--parsable", *array.options(folder), str(script))
    if done.returncode:
        raise SamganError(
            f"--slurm: sbatch refused {script}: {_complaint(done)}; name what your cluster asks for in variables such "
            "as SBATCH_PARTITION, SBATCH_ACCOUNT and SBATCH_TIMELIMIT"
        )
    say(f"samgan: {len(jobs)} jobs submitted to Slurm as {name} (array {done.stdout.strip()})")
    return {job.key: Task(name, number) for number, job in enumerate(jobs)}


def _states() -> dict[Task, str]:
    """The state of each task of the user's arrays of this program; those that ended long ago are missing."""
    end = time.monotonic() + SILENT_SECONDS
    question = ("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%j|%K|%T")
    while (done := _ask(*question)).returncode and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    if done.returncode:
        raise SamganError(
            f"--slurm: Slurm does not answer ({_complaint(done)}); once it does, the same command goes on"
        )
    states: dict[Task, str] = {}
    for found in filter(None, map(LINE.fullmatch, done.stdout.splitlines())):
        task = Task(found[1], int(found[2]))
        if states.get(task, UNKNOWN) in ENDED:  # an array of the same name may have ended before
            states[task] = found[3]
    return states


def _ask(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm, without the variables by which it would count as a part of a job that this runs in."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SQUEUE_"))}
    if "SLURM_CONF" in os.environ:
        own["SLURM_CONF"] = os.environ["SLURM_CONF"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, env=own)
    except FileNotFoundError:
        raise UsageError(f"--slurm: {words[0]} is not on this machine; run this where jobs are submitted") from None


def _complaint(done: "subprocess.CompletedProcess[str]") -> str:
    return " ".join(done.stderr.split()) or f"status {done.returncode}"
