"""Commands that run studies over many models."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samgan.commands.command import Command, Outcome
from samgan.commands.options import (
    add_classes,
    add_classifiers,
    add_device,
    add_features,
    add_on_collapse,
    add_preset,
    given,
)
from samgan.commands.settings import configuration, given_settings
from samgan.errors import UsageError
from samgan.files import without_folders
from samgan.presets import PLUS

if TYPE_CHECKING:
    from samgan.data import PreparedSet
    from samgan.studies import PlannedRow, TableRequest


def _add_table2(parser: argparse.ArgumentParser) -> None:
    text = "prepared set of grey radiographs (not needed with --dry-run)"
    parser.add_argument("data", type=Path, nargs="?", help=text)
    parser.add_argument("--out", type=Path, help="folder of the sweep: new, or one to continue")
    text = (
        "names of rows, or paper (the 18 X-ray rows; default), further, future (self-attention in other networks) or "
    )
    text += "all; ROW=N trains a row with N seeds"
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help=text)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train every row with seeds 0 to N - 1")
    parser.add_argument("--scale", default="cpu", choices=("cpu", "paper"), help="width and length of the rows")
    add_classes(parser, "train on these classes of the set (default: all)")
    text = "prepared set of faces (3 channels) for msg-gan-1, the CelebA row"
    parser.add_argument("--faces", type=Path, metavar="DATA", help=text)
    text = "length of every row, in minutes of training"
    parser.add_argument("--budget-minutes", type=float, metavar="N", help=text)
    text = "length of every row, in kimg (default: that of the scale)"
    parser.add_argument("--kimg", type=float, metavar="N", help=text)
    text = "length of every row, in passes over its training images (500 in the paper)"
    parser.add_argument("--epochs", type=float, metavar="N", help=text)
    text = "also score every row after so many kimg, on its way"
    parser.add_argument("--score-at", type=float, nargs="+", default=[], metavar="KIMG", help=text)
    text = "how often a checkpoint and quick scores are written (default: that of the scale)"
    parser.add_argument("--snapshot-every-kimg", type=float, metavar="N", help=text)
    text = "run jobs on Ray: local (on this machine), auto (the cluster that runs here) or the address of a cluster"
    parser.add_argument("--ray", metavar="ADDRESS", help=text)
    text = "run jobs as an array of Slurm (partition, account and time limit: SBATCH_PARTITION and so on)"
    parser.add_argument("--slurm", action="store_true", help=text)
    text = "CPU cores of a job (default: all of this machine; on Ray all of the largest, and smaller ones stay idle; "
    text += "with --slurm as many as Slurm gives)"
    parser.add_argument("--cores-per-job", type=int, metavar="N", help=text)
    parser.add_argument("--gpus-per-job", type=float, default=0.0, metavar="N", help="GPUs of a job on Ray or Slurm")
    text = "images per set for scores (default: half the real ones; all with --protocol paper)"
    parser.add_argument("--count", type=int, metavar="N", help=text)
    text = "standard, or paper: score all generated against all real images, with the floor at half of them"
    parser.add_argument("--protocol", default="standard", choices=("standard", "paper"), help=text)
    add_features(parser)
    text = "also keep scores by these features in the records of rows (rows/*.json)"
    parser.add_argument("--second-features", metavar="NAME", help=text)
    add_on_collapse(parser)
    text = "leave the paper's claims out of the table, for a study that is not to see them before its end"
    parser.add_argument("--no-claims", dest="claims", action="store_false", help=text)
    text = "print parameters, FLOPs, memory and GPU-hours, with --slurm also the script for sbatch; train nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    add_device(parser)
    parser.epilog = (
        "Settings, as for samgan train, apply to every row of the paper's networks. Settings that differ between rows "
        "are refused."
    )


def _table2(options: argparse.Namespace) -> Outcome:
    from samgan.studies import TableRequest, table2

    names: tuple[str, ...] = ("rows", "seeds", "scale", "classes", "faces", "settings", "budget_minutes", "kimg")
    names += (
        "epochs",
        "score_at",
        "snapshot_every_kimg",
        "on_collapse",
        "count",
        "protocol",
        "features",
        "features_file",
        "second_features",
        "ray",
        "slurm",
        "cores_per_job",
        "claims",
    )
    names += ("gpus_per_job", "device")
    request = TableRequest(**given(options, *names), command=shlex.join(["samgan", *without_folders(sys.argv[1:])]))
    if options.dry_run:
        return _plan(options.data, options.out, request)
    if options.data is None or options.out is None:
        raise UsageError("samgan table2 DATA --out FOLDER: both are needed, except with --dry-run")
    table, files = table2(options.data, options.out, request)
    return Outcome(table.to_dict(), f"{files[0].read_text('utf-8')}\n{files[-1]}")


def _plan(data: Path | None, out: Path | None, request: "TableRequest") -> Outcome:
    from samgan.data import PreparedSet
    from samgan.studies import SUSTAINED_TFLOPS, jobs_of, plan_rows, slurm_script

    lines = []
    if request.slurm:
        if data is None or out is None:
            raise UsageError("samgan table2 DATA --out FOLDER --slurm --dry-run: the script needs both")
        lines = ["", slurm_script(data, out, request) or "Every job is done; nothing would be submitted."]

    opened = PreparedSet.open(data) if data else None
    faces = PreparedSet.open(request.faces) if request.faces else None
    if opened:
        jobs_of(request, opened, faces)  # refuses what the run would refuse
    rows = plan_rows(request, opened)
    pace = f" on a GPU that sustains {SUSTAINED_TFLOPS:g} TFLOP/s (an assumption)" * (request.budget_minutes is None)
    return Outcome(
        [dataclasses.asdict(row) for row in rows],
        "\n".join([*_plan_lines(rows, None if request.scale == "cpu" else pace), *lines]),
    )


def _plan_lines(rows: "Sequence[PlannedRow]", pace: str | None) -> Iterator[str]:
    """A table; hours on a GPU, at a pace that is told, only for scales that are meant for one."""
    on_gpu = pace is not None
    yield f"{'row':<24} seeds  parameters (M)  GFLOP a step  memory (GiB)    steps{'  GPU-hours' * on_gpu}"
    for row in rows:
        parameters = (row.generator_parameters + row.discriminator_parameters) / 1e6
        yield (
            f"{row.name:<24} {row.seeds:>5}  {parameters:>14.1f}  {row.flops_per_step / 1e9:>12.0f}  "
            f"{row.memory_bytes / 2**30:>12.1f}  {row.steps or '-':>7}" + f"  {row.gpu_hours:>9.1f}" * on_gpu
        )
    jobs, hours = sum(row.seeds for row in rows), sum(row.gpu_hours for row in rows)
    told = f", {hours:.0f} GPU-hours{pace}" * on_gpu
    yield f"{jobs} jobs{told}; memory is an estimate for one process on a CPU"


def _add_balance(parser: argparse.ArgumentParser) -> None:
    from samgan.provenance import SET_FORMATS
    from samgan.studies.balance_documents import METHODS

    parser.add_argument("data", type=Path, help="prepared set with two or more classes and with held-out images")
    text = "folder to write, or to continue (not needed with --advise)"
    parser.add_argument("out", type=Path, nargs="?", help=text)
    text = "say what is known of whether synthetic images will help with such a set, and make nothing"
    parser.add_argument("--advise", action="store_true", help=text)
    text = (
        "images that each class is to have: equal (as many as the largest class), a number, or a share of the largest "
    )
    text += "class such as 0.5"
    parser.add_argument("--target", default="equal", metavar="equal|N|SHARE", help=text)
    add_classes(parser, "balance these classes (default: all)")
    text = "joint: one model conditional on the class; per-class: one model for each class that lacks images; "
    text += "fine-tuned: the same, each begun with a model of all images"
    parser.add_argument("--method", default="joint", choices=METHODS, help=text)
    text = "use models that were trained on this set: one conditional on all classes, or one for each class that lacks "
    text += "images"
    parser.add_argument("--run", dest="runs", nargs="+", default=[], metavar="[CLASS=]RUN", help=text)
    text = "minutes of training, over all models together"
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help=text)
    add_preset(parser, f"preset of the models (default: {PLUS})")
    add_features(parser)
    text = "also leave out images to whose class a classifier of the real images gives a lower probability than this"
    parser.add_argument("--confidence", type=float, default=0.0, metavar="P", help=text)
    text = "format of the synthetic images"
    parser.add_argument("--format", dest="file_format", default="png", choices=SET_FORMATS, help=text)
    text = "folder that the set was prepared from: the balanced set links to its files (default: the prepared images, "
    text += "as PNG)"
    parser.add_argument("--originals", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--copies", action="store_true", help="copy the originals instead of linking to them")
    add_classifiers(parser, "number of classifiers for each way to train one; 0: do not test whether the images help")
    add_device(parser)
    parser.epilog = "An interrupted command continues if it is given again. Settings may be given as for samgan train."


def _balance(options: argparse.Namespace) -> Outcome:
    from samgan.data import PreparedSet

    data = PreparedSet.open(options.data)
    if options.advise:
        return _advice(data, options)  # in a second: it needs no torch
    from samgan.studies import BalanceRequest, balance, format_balance

    if options.out is None:
        raise UsageError("samgan balance DATA OUT: both are needed, except with --advise")
    runs = _models(options.runs, list(options.classes) or data.classes)
    config = configuration(given_settings(options), data)
    names: tuple[str, ...] = (
        "target",
        "classes",
        "method",
        "minutes",
        "features",
        "features_file",
        "confidence",
        "file_format",
    )
    names += ("originals", "copies", "seeds", "steps", "device")
    request = BalanceRequest(config=config, runs=runs, **given(options, *names))
    document, page = balance(data, options.out, request)
    return Outcome(document, f"{format_balance(document)}\n{page}")


def _advice(data: "PreparedSet", options: argparse.Namespace) -> Outcome:
    """What is known of such a set; of a folder that was begun, its plan says which images are missing."""
    from samgan.studies import advise, missing_images
    from samgan.studies.balance_documents import Plan
    from samgan.studies.balance_target import check_several

    if options.out is not None and (options.out / "plan.json").exists():
        missing = Plan.read(options.out / "plan.json").missing
    else:
        names = list(options.classes) or data.classes
        check_several(data, names)
        missing = missing_images({name: len(data.indices("train", [name])) for name in names}, options.target)
    advice = advise(data, missing)
    return Outcome(dataclasses.asdict(advice), "\n".join(advice.lines))


def _models(words: Sequence[str], classes: Sequence[str]) -> dict[str, Path]:
    """Models by class, or under "" for all classes; a path may have = in its name."""
    runs: dict[str, Path] = {}
    for word in words:
        name, _, path = word.partition("=")
        of_class = bool(path) and name in classes
        label = name if of_class else ""
        if label in runs:
            taken = f"{label or 'all classes'} already has {runs[label]}"
            raise UsageError(f"--run {word}: {taken}; expected CLASS=RUN with one of {', '.join(classes)}")
        runs[label] = Path(path if of_class else word)
    return runs


COMMANDS = (
    Command(
        "table2",
        "train and score the rows of the paper's Table 2, and further rows; can be resumed",
        _table2,
        _add_table2,
        takes_settings=True,
    ),
    Command(
        "balance",
        "make the images that small classes lack, screen and audit them, and test whether they help a classifier",
        _balance,
        _add_balance,
        takes_settings=True,
    ),
)
