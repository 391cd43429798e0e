"""Do work on a source in threads, with progress; a job that has written its file is not done again."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from samgan.data.sources import Entry, Source
from samgan.terminal import console


class Job(NamedTuple):
    """A part of a source, and the file that its result is written to."""

    file: Path
    entries: list[Entry]


Work = Callable[[Job, threading.Event], None]
"""Writes a job's file. It ends early, with an exception, once the event is set."""


def run_jobs(what: str, source: Source, jobs: list[Job], work: Work, workers: int | None) -> None:
    """Do the jobs whose files are missing; show progress on standard error, in images."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    missing = [job for job in jobs if not job.file.exists()]
    for folder in {job.file.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    threads = min(workers or os.cpu_count() or 1, max(1, len(missing)))
    if is_arrays(source.path):
        threads = 1  # there is nothing to decode, and the arrays are loaded once
    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console()) as progress:
        total = sum(len(job.entries) for job in jobs)
        task = progress.add_task("", total=total, completed=total - sum(len(job.entries) for job in missing))
        for count in _run(missing, work, threads):
            progress.advance(task, count)


def _run(jobs: list[Job], work: Work, threads: int) -> Iterator[int]:
    """Yield the number of images of each job as it is finished.

    The workers are threads: processes would import the caller's script again, and decoders and numpy release the GIL.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(work, job, stop): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield len(futures[future].entries)
        finally:
            stop.set()  # after Ctrl-C or on a full disk, finish only the image being read, not its job
            pool.shutdown(cancel_futures=True)


def is_arrays(path: Path) -> bool:
    """Whether a source is an .npz."""
    return path.suffix.lower() == ".npz" and path.is_file()


def bytes_of(path: Path, entry: Entry) -> int:
    """The memory that an entry's content takes; arrays are in memory already."""
    return 0 if is_arrays(path) else entry.size
