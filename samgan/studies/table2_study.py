"""The paper's Table 2 as one experiment: its rows and further ones, with measured beside published values.

`table2_rows` has the rows, `sweep` runs them, `table2_lines` makes one line of all seeds of a row, `claims` tests what
the paper says about them, and `table2_write` writes the result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samgan.config import Config
from samgan.data import PreparedSet
from samgan.devices import choose_device, keep_freed_memory
from samgan.errors import SamganError, UsageError
from samgan.files import Location
from samgan.metrics.load_features import choose_features, default_features, say_features
from samgan.scoring import check_inputs, most_images
from samgan.studies.claims import CLAIMS
from samgan.studies.sweep import finished, run_sweep
from samgan.studies.sweep_job import Job, Resources, Scoring
from samgan.studies.sweep_row import RowDocument
from samgan.studies.sweep_slurm import ArrayDocument, slurm_folder
from samgan.studies.table2_document import Table
from samgan.studies.table2_rows import RECIPE_SCALE, ROWS, Row, check_settings, choose_rows
from samgan.studies.table2_write import write_table
from samgan.terminal import say
from samgan.training import Cost, check_fit, choose_length, plan
from samgan.training.run import ON_COLLAPSE

ENDLESS_KIMG = 1e6  # never reached; for runs whose length is in minutes
TABLE_PROTOCOLS = ("standard", "paper")
"""How rows may be scored; the legacy protocol has one distance only."""
SUSTAINED_TFLOPS = 20.0
"""The speed of a GPU that a plan assumes. This is cautious: an H200 sustained 87 to 121 with rows at paper scale."""


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """What `table2` trains, for how long, how it scores, and where.

    Raises:
        UsageError: A value is not allowed, or two options contradict each other.
    """

    rows: Sequence[str] = ()
    """Names of rows or groups, as for `choose_rows`; none: "paper"."""
    seeds: int = 1
    """Each row is trained with seeds 0 to `seeds` - 1."""
    scale: str = "cpu"
    """"cpu" or "paper": width and length of the rows."""
    classes: Sequence[str] = ()
    """Classes to train on; none: all."""
    faces: Path | None = None
    """Prepared set with three channels, for the CelebA row."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every row of the paper's networks, by key, such as `training.batch_size`."""
    budget_minutes: float | None = None
    """Length of every job in minutes of training."""
    kimg: float | None = None
    """Length of every job in thousands of images; None, without another length: that of the scale."""
    epochs: float | None = None
    """Length of every job in passes over its training images."""
    score_at: Sequence[float] = ()
    """Lengths in kimg at which jobs are scored on their way; those of a job's length or more are left out."""
    snapshot_every_kimg: float | None = None
    """How often checkpoints and quick scores are written; None: as the scale has it."""
    on_collapse: str = "warn"
    """As for `samgan.train`."""
    count: int | None = None
    """Images per set for scores; None: as many as the protocol has."""
    protocol: str = "standard"
    """"standard" or "paper", as for `samgan.evaluate`."""
    features: str | None = None
    """As for `samgan.evaluate`."""
    features_file: Path | None = None
    """As for `samgan.evaluate`."""
    second_features: str | None = None
    """A named network, by which rows are scored, too; their records keep these scores."""
    ray: str | None = None
    """Run jobs on Ray: "local", "auto" or the address of a cluster; None: in this process."""
    cores_per_job: int | None = None
    """CPU cores of a job; None: all of this machine, on Ray all of the largest one, on Slurm as many as it gives."""
    gpus_per_job: float = 0.0
    """GPUs of a job, on Ray or Slurm."""
    device: str = "auto"
    """Where networks run."""
    slurm: bool = False
    """Run jobs as an array of Slurm."""
    claims: bool = True
    """Test the paper's claims in the table; a study that decides them at its end does not look before."""
    command: str = ""
    """The command that the table shows."""

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        lengths = {"--budget-minutes": self.budget_minutes, "--kimg": self.kimg, "--epochs": self.epochs}
        given = [name for name, value in lengths.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} both give the length; give only one of them")
        for name, value in {**lengths, "--cores-per-job": self.cores_per_job}.items():
            if value is not None and not value > 0:
                raise UsageError(f"{name} {value:g}: expected more than 0")
        if self.score_at and self.budget_minutes is not None:
            raise UsageError("--score-at counts kimg, and --budget-minutes minutes; give --kimg or --epochs instead")
        if wrong := [kimg for kimg in self.score_at if not kimg > 0]:
            raise UsageError(f"--score-at {wrong[0]:g}: expected more than 0")
        if self.slurm and self.ray is not None:
            raise UsageError("--ray and --slurm both say where jobs run; give only one of them")
        if not self.gpus_per_job >= 0:
            raise UsageError(f"--gpus-per-job {self.gpus_per_job:g}: expected 0 or more")
        if self.gpus_per_job and not self.slurm and self.ray is None:
            raise UsageError(f"--gpus-per-job {self.gpus_per_job:g}: it is for jobs on --ray or --slurm")
        if self.slurm and self.gpus_per_job != int(self.gpus_per_job):
            raise UsageError(f"--gpus-per-job {self.gpus_per_job:g}: expected a whole number with --slurm")
        for name, word, allowed in (
            ("--scale", self.scale, tuple(RECIPE_SCALE)),
            ("--on-collapse", self.on_collapse, ON_COLLAPSE),
            ("--protocol", self.protocol, TABLE_PROTOCOLS),
        ):
            if word not in allowed:
                raise UsageError(f"{name} {word}: expected one of {', '.join(allowed)}")
        check_settings(self.settings, self.scale)

    def chosen(self, resolution: int) -> dict[str, int]:
        """The number of seeds of each row, for images of this size."""
        return choose_rows(self.rows, self.seeds, self.faces is not None, resolution)

    def config(self, row: Row, source: PreparedSet, seed: int) -> Config:
        """The configuration of one job of a row on a prepared set; a row of a doubled set is shown twice the images."""
        own: dict[str, Any] = {"training.seed": seed, "network.image_channels": source.channels}
        if self.classes and not row.colour:
            own["data.classes"] = sorted(set(self.classes))  # in any order they are the same images, and the same row
        if self.budget_minutes is not None:
            own["training.kimg"] = ENDLESS_KIMG
        for name in ("kimg", "epochs", "snapshot_every_kimg"):
            if (value := getattr(self, name)) is not None:
                own[f"training.{name}"] = value
        config = row.config(self.scale, source.resolution, self.settings).override(own)
        if self.epochs is None and self.budget_minutes is None:  # as many passes over a larger set
            config = config.override({"training.kimg": row.copies * config.training.kimg})
        config = choose_length(config, source)
        if config.training.burn_in_kimg and self.budget_minutes is None:  # it lasts as long as the run of its recipe
            config = config.override({"training.burn_in_kimg": config.training.kimg})
        return config


def table2(data: Location, out: Location, request: TableRequest | None = None) -> tuple[Table, list[Path]]:
    """Train and score rows of the table, each with every seed, and write the table.

    Jobs that are finished already are not run again, so the same call continues after it was stopped.

    Args:
        data: Prepared set of grey radiographs.
        out: Folder of the sweep: new, or one to continue.
        request: What to train, for how long, and where; default: the 18 X-ray rows of the paper at the scale of a CPU.

    Returns:
        The lines as in table.json, and the files written: table.md, table.csv, table.json, table.html.

    Raises:
        UsageError: Parts of the request contradict each other, or do not fit the data.
        SamganError: As for `samgan.studies.run_sweep`; or every job failed.
    """
    keep_freed_memory()
    request, out = request or TableRequest(), Path(out)
    jobs, scoring, resources = _sweep_of(data, out, request)

    def write(rows: Sequence[RowDocument]) -> tuple[Table, list[Path]]:
        of_paper = any(not ROWS[row.name].is_recipe for row in rows)
        title = f"{'Table 2' if of_paper else 'Future work'} of the paper, {request.scale} scale"
        claims = CLAIMS if request.claims else ()
        return write_table(out, rows, command=request.command, title=title, jobs=len(jobs), claims=claims)

    rows = run_sweep(jobs, out, scoring, resources, on_collapse=request.on_collapse, report=write)
    written = write(rows)
    if all(row.scores is None for row in rows):
        raise SamganError(f"every job failed; the first: {rows[0].failed}")
    return written


def _sweep_of(data: Location, out: Path, request: TableRequest) -> tuple[list[Job], Scoring, Resources]:
    """What to run, how to score it, and where to run it."""
    radiographs = PreparedSet.open(Path(data))
    faces = PreparedSet.open(request.faces) if request.faces else None
    jobs = jobs_of(request, radiographs, faces)
    scoring = _choose_scoring(request, radiographs.images.shape[1:], out)
    resources = Resources(request.ray, request.cores_per_job, request.gpus_per_job, request.device, slurm=request.slurm)
    if resources.here:
        resources = dataclasses.replace(resources, device=choose_device(request.device))
    return jobs, scoring, resources


def slurm_script(data: Location, out: Location, request: TableRequest) -> str | None:
    """The script that `table2` would give to sbatch now; None if every job is done. Nothing is written.

    Jobs that an earlier call has submitted, and that still wait or run, are in it, too, because Slurm is not asked.

    Args:
        data: As for `table2`.
        out: As for `table2`.
        request: As for `table2`.

    Raises:
        UsageError: As for `table2`.
        SamganError: A row cannot be read.
    """
    jobs, scoring, resources = _sweep_of(data, Path(out), request)
    pending = [job for job in jobs if finished(job, Path(out), scoring, request.on_collapse) is None]
    if not pending:
        return None
    return ArrayDocument.of(pending, scoring, resources, request.on_collapse).script(slurm_folder(Path(out)))


def jobs_of(request: TableRequest, data: PreparedSet, faces: PreparedSet | None = None) -> list[Job]:
    """The jobs of a table, checked: first every row with seed 0, then every row with seed 1, and so on.

    Raises:
        UsageError: Parts of the request contradict each other, or do not fit the data.
    """
    jobs = []
    rows = request.chosen(data.resolution)
    for seed in range(max(rows.values())):
        for row in (ROWS[name] for name, seeds in rows.items() if seed < seeds):
            source = faces if row.colour and faces else data
            config = request.config(row, source, seed)
            shape = source.images.shape[1:]
            images = len(source.indices("train", config.data.classes))
            check_fit(config, (images, *shape))
            count = request.count or most_images(images, request.protocol)
            check_inputs((images, *shape), (count, *shape), protocol=request.protocol, count=request.count)
            minutes = None if request.budget_minutes is None else float(request.budget_minutes)
            parts = tuple(kimg for kimg in sorted(set(request.score_at)) if kimg < config.training.kimg)
            jobs.append(Job(row.name, config, str(source.path.resolve()), source.sha256, minutes, parts))
    return jobs


def _choose_scoring(request: TableRequest, shape: tuple[int, int, int], out: Path) -> Scoring:
    """Load the features once before hours of training; make paths absolute, so that every machine finds them."""
    features, weights = (_everywhere(name) for name in (request.features, request.features_file))
    if features is None and (features := _features_of_rows(out)):
        say(f"samgan: features: {features}, as in the rows of {out}")
    extractor, why = choose_features(features, shape, features_file=Path(weights) if weights else None)
    say_features(extractor, why)
    if extractor is not None:
        features = features or default_features(shape).name
    if request.second_features:
        choose_features(request.second_features, shape)  # refuses what is not there
    return Scoring(features, weights, request.count, shape, request.second_features, request.protocol)


def _features_of_rows(out: Path) -> str | None:
    """The network that rows were scored by, so that a default never replaces it without being asked."""
    for path in sorted((out / "rows").glob("*.json")):
        row = RowDocument.read(path)
        if row.scores is None or row.scores.features is None:
            continue
        if isinstance(row.scoring.features, str):
            return row.scoring.features
        raise UsageError(
            f"{path} was scored by {row.scores.features.name}; give --features again, with that file or with another "
            "name to score every row anew"
        )
    return None


def _everywhere(name: str | Path | None) -> str | None:
    if name is None or not Path(name).is_file():
        return None if name is None else str(name)
    return str(Path(name).absolute())


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """What a row will cost."""

    name: str
    seeds: int
    generator_parameters: int
    discriminator_parameters: int
    flops_per_step: int
    memory_bytes: int
    steps: int | None
    """None if minutes are the length: the number then depends on the machine."""
    kimg: float | None
    gpu_hours: float
    """For all seeds: at `SUSTAINED_TFLOPS`, or from the minutes that were asked for."""


def plan_rows(request: TableRequest, data: PreparedSet | None = None) -> list[PlannedRow]:
    """What each row will cost: parameters, FLOPs, memory, and GPU-hours.

    Args:
        request: What would be trained.
        data: The prepared set of radiographs; None: images of 64 px.

    Raises:
        UsageError: The length is in epochs, and there is no set.
    """
    if request.epochs is not None and data is None:
        raise UsageError("--epochs: the length depends on the number of images: name the prepared set")
    resolution = data.resolution if data else 64
    planned = []
    costs: dict[Config, Cost] = {}
    # Rows that differ only in these settings cost the same.
    free = {"preset": "any", "data.flip": "none", "training.learning_rate": 1.0, "network.equalized_lr": True}
    timed = request.budget_minutes is not None
    for name, seeds in request.chosen(resolution).items():
        config = ROWS[name].config(request.scale, resolution, request.settings)
        kimg = (request.kimg or config.training.kimg) * ROWS[name].copies
        if data and request.epochs is not None:
            kimg = request.config(ROWS[name], data, 0).training.kimg
        config = config.override({**free, "training.kimg": kimg})
        cost = costs[config] = costs.get(config) or plan(config)
        hours = cost.steps * cost.flops_per_step / (SUSTAINED_TFLOPS * 1e12) / 3600
        if request.budget_minutes is not None:
            hours = request.budget_minutes / 60
        planned.append(
            PlannedRow(
                name=name,
                seeds=seeds,
                generator_parameters=cost.generator_parameters,
                discriminator_parameters=cost.discriminator_parameters,
                flops_per_step=cost.flops_per_step,
                memory_bytes=cost.memory_bytes,
                steps=None if timed else cost.steps,
                kimg=None if timed else cost.kimg,
                gpu_hours=round(seeds * hours, 2),
            )
        )
    return planned
