"""Run the jobs of a sweep as tasks of Ray, on this machine or on a cluster."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from samgan.errors import SamganError, UsageError, first_line
from samgan.studies.sweep_job import Job, Resources, Scoring
from samgan.studies.sweep_row import RowDocument
from samgan.studies.sweep_status import REFRESH_SECONDS
from samgan.training import Interrupted

LOST_WORKERS = 20


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
    """
    ray = _start(resources)
    try:
        cores = cores_of_a_job(ray.nodes(), resources)
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
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                    yield RowDocument(name=job.name, seed=job.seed, key=job.key, scoring=scoring.key, failed=reason)
    finally:
        ray.shutdown()


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
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed; install it with pip install 'samgan[sweep]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
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
    return ray
