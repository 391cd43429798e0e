"""One task of an array of Slurm: `python -m samgan.studies.sweep_task slurm/NAME.json TASK`, as its script has it."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from samgan.errors import SamganError, shown
from samgan.studies.sweep import finished, run_job
from samgan.studies.sweep_job import Resources
from samgan.studies.sweep_slurm import ArrayDocument
from samgan.terminal import say


def run_task(path: Path, number: int) -> None:
    """Run the job of a task, unless that has been done, and write its row next to `path`.

    Raises:
        SamganError: The array cannot be read, or belongs to another version of samgan.
        Interrupted: A signal arrived; the same task continues.
    """
    array, out = ArrayDocument.read(path), path.parent.parent
    job = array.jobs[number].job()
    cores = array.cores or int(os.environ.get("SLURM_CPUS_ON_NODE", 0)) or None
    row = finished(job, out, array.scoring, array.on_collapse)
    if row is None:
        row = run_job(job, out, array.scoring, Resources(cores=cores, device=array.device), array.on_collapse)
    row.write(path.parent / f"{job.key}.json")


def main(words: Sequence[str]) -> int:
    """Run a task; returns the exit status."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # training handles it itself
    try:
        run_task(Path(words[0]), int(words[1]))
    except (SamganError, OSError) as error:
        stopped = getattr(error, "signal_number", None)
        say(f"samgan: {'' if stopped else 'error: '}{shown(str(error))}")
        return 128 + stopped if stopped else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
