"""Run the jobs of a sweep as tasks of Ray, on this machine or on a cluster."""

import contextlib
import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from samgan.errors import SamganError, UsageError, first_line
from samgan.studies.sweep_job import Job, Resources, Scoring
from samgan.studies.sweep_row import RowDocument, keep_row
from samgan.studies.sweep_status import REFRESH_SECONDS
from samgan.terminal import ending_signals, say
from samgan.training import Interrupted

LOST_WORKERS = 20
OUT_OF_MEMORY = "3"
"""A job that ran out of memory is started again so often; Ray's default is without end."""
SILENCE = 20.0
"""A head that does not answer for so many seconds is lost. Ray ends this process after 60, without an exception."""
SAVING = 60.0
"""So many seconds are left to jobs that are asked to end: a step, and a checkpoint."""


def run_on_ray(
    run_job: Callable[[Job, Path, Scoring, Resources, str], RowDocument],
    pending: Sequence[Job],
    out: Path,
    scoring: Scoring,
    resources: Resources,
    on_collapse: str,
) -> Iterator[RowDocument]:
    """Run jobs as tasks of Ray, and yield their rows as they end.

    If the worker of a job is lost, the job is started again on another one, and continues from its last checkpoint.

    Raises:
        UsageError: Ray is not installed, or a job asks for more than any machine has.
        SamganError: The cluster cannot be reached, or its head is lost.
    """
    ray = _start(resources)
    # Ray prints what happens to its machines, where the result of the command belongs.
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.closing(_Health(ray)) as health,
    ):
        cores = cores_of_a_job(ray.nodes(), resources)
        task = ray.remote(
            num_cpus=cores, num_gpus=resources.gpus, max_retries=LOST_WORKERS, retry_exceptions=[Interrupted]
        )(run_job)
        resources = dataclasses.replace(resources.on_another_machine(), cores=cores)
        waiting = {
            task.options(name=job.key).remote(job, out.resolve(), scoring, resources, on_collapse): job
            for job in pending
        }
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=REFRESH_SECONDS)
                health.look()
                for reference in done:
                    job = waiting.pop(reference)
                    try:
                        yield ray.get(reference)
                    except ray.exceptions.RayError as error:
                        reason = _reason(ray, error)
                        row = RowDocument(name=job.name, seed=job.seed, key=job.key, scoring=scoring.key, failed=reason)
                        yield keep_row(row, out)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            _end(ray, list(waiting))
            raise


def _reason(ray: Any, error: Exception) -> str:
    """Why a job failed, in one line."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "out of memory on its machine; run fewer jobs there at a time with a larger --cores-per-job"
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _end(ray: Any, running: list[Any]) -> None:
    """Ask jobs to end, and wait for their checkpoints; Ray by itself would kill them."""
    if not running:
        return
    say("samgan: jobs that are running save a checkpoint; the same command goes on from there")
    for reference in running:
        ray.cancel(reference)  # a training takes it as SIGINT, and is not started again
    ray.wait(running, num_returns=len(running), timeout=SAVING)


class _Health:
    """Says which machines of the cluster are lost; at its end, the cluster is left."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.head: str = ray.get_runtime_context().gcs_address
        self.heard = time.monotonic()
        self.lost: set[str] = set()

    def look(self) -> None:
        """Look once.

        Raises:
            SamganError: The head has not answered for `SILENCE`.
        """
        host, _, port = self.head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            if time.monotonic() - self.heard < SILENCE:
                return
            raise SamganError(
                f"the head of the Ray cluster, {self.head}, is lost ({error.strerror or error}); start the cluster "
                "again, then the same command goes on"
            ) from None
        self.heard = time.monotonic()
        for node in self.ray.nodes():
            if not node["Alive"] and node["NodeID"] not in self.lost:
                self.lost.add(node["NodeID"])
                say(f"samgan: {node['NodeManagerAddress']} is lost from the Ray cluster; its jobs go on elsewhere")

    def close(self) -> None:
        """Leave the cluster; Ray would wait for a head that is lost, and end this process."""
        if time.monotonic() - self.heard < SILENCE:
            self.ray.shutdown()


def cores_of_a_job(nodes: Sequence[dict[str, Any]], resources: Resources) -> int:
    """The CPU cores that each job gets.

    These are the cores that were asked for. Otherwise they are those of the largest machine, or, where a job takes
    GPUs, the same share of its cores as of its GPUs.

    Args:
        nodes: From `ray.nodes()`.
        resources: What a job takes.

    Raises:
        UsageError: No machine has what a job takes.
    """
    there = [node["Resources"] for node in nodes if node["Alive"]]
    sizes = [(int(node.get("CPU", 0)), node.get("GPU", 0.0)) for node in there]
    fitting = [(cpus, gpus) for cpus, gpus in sizes if cpus >= (resources.cores or 1) and gpus >= resources.gpus]
    if not fitting:
        has = ", ".join(f"{cpus} CPU and {gpus:g} GPU" for cpus, gpus in sorted(set(sizes))) or "none"
        wanted = f"{resources.cores or 1} CPU and {resources.gpus:g} GPU"
        raise UsageError(
            f"a job takes {wanted} of one machine, but the machines have {has}; ask for less with --cores-per-job or "
            "--gpus-per-job"
        )
    if resources.cores:
        return resources.cores
    cpus, gpus = max(fitting)
    return max(1, int(cpus * resources.gpus / gpus)) if resources.gpus else cpus


def _start(resources: Resources) -> Any:
    os.environ.setdefault("RAY_task_oom_retries", OUT_OF_MEMORY)
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed; install it with pip install 'samgan[sweep]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    handlers = {number: signal.getsignal(number) for number in ending_signals()}
    try:
        if resources.ray == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=resources.ray, **quiet)
    except Exception as error:  # Ray's errors about a cluster have no common class
        raise SamganError(
            f"--ray {resources.ray}: cannot reach a Ray cluster there ({first_line(error)}); start one with "
            "`ray start`, or set RAY_AUTH_MODE=token if it asks for a token"
        ) from None
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Ray's own would print a trace, and clear nothing away
            if handler is not None:  # one that is not Python's cannot be set again
                signal.signal(number, handler)
    return ray
