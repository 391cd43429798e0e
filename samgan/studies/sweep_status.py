"""The progress of a sweep: a live table on a terminal, otherwise one line a minute."""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.table import Table

from samgan.runs import Run
from samgan.studies.sweep_job import Job
from samgan.studies.sweep_row import RowDocument
from samgan.terminal import console, say

REFRESH_SECONDS = 2.0
QUIET_SECONDS = 60.0
IDLE_SECONDS = 600.0  # without a new line for so long a job counts as idle: it is being scored, or nobody trains it


class Status:
    """Show which jobs run, how many are done and when the rest will be, while the block runs.

    Args:
        jobs: All jobs of the sweep.
        out: Its folder.
        found: The row of each job by its key, None before it has ended; the caller keeps it up to date.
        parallel: Number of jobs that run at once; None: as many as are seen running.
    """

    def __init__(
        self, jobs: Sequence[Job], out: Path, found: Mapping[str, RowDocument | None], parallel: int | None
    ) -> None:
        self.jobs, self.out, self.found, self.parallel = jobs, out, found, parallel
        self.console = console()
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Status":
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
            say(summary)

    def table(self) -> tuple[Table, str]:
        """The jobs that run, and one line on the whole sweep."""
        table = Table(*("job", "kimg", "minutes", "images/s", "loss D", "loss G", "done", "minutes left"))
        left, running = 0.0, 0
        for job in self.jobs:
            if self.found[job.key] is not None:
                continue
            line = Run(self.out / "runs" / job.key).last_line()
            share = _share_done(job, line)
            left += 1 - share
            if line is None or time.time() - _touched(self.out / "runs" / job.key) > IDLE_SECONDS:
                continue
            running += 1
            minutes = line["wall_seconds"] / 60
            cells = [f"{cell:.1f}" for cell in (line["images_seen"] / 1000, minutes, line["images_per_second"])]
            cells += [f"{line[name]:.3f}" for name in ("loss_discriminator", "loss_generator")]
            table.add_row(job.key, *cells, f"{share:.0%}", f"{minutes * (1 - share) / share:.0f}" if share else "")
        return table, self._summary(left, running)

    def _summary(self, left: float, running: int) -> str:
        done = [row for row in self.found.values() if row is not None]
        failed = sum(row.failed is not None for row in done)
        lengths = [row.trained.wall_minutes for row in done if row.trained]
        known = [job.minutes for job in self.jobs if job.minutes is not None] or lengths
        parallel = self.parallel or max(1, running)
        eta = f", about {left * float(np.mean(known)) / parallel:.0f} minutes left" if known and left else ""
        summary = f"{len(done) - failed} of {len(self.jobs)} jobs done" + f", {failed} failed" * bool(failed)
        return f"{summary}, {running} running{eta}"


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
