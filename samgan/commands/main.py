"""The command line. Results go to standard output, progress and messages to standard error.

Every command imports what it needs when it runs, so that `samgan --help` does not wait for torch.
"""

import argparse
import contextlib
import io
import json
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from samgan import __version__
from samgan.commands.data import _prepare, _subset
from samgan.commands.images import _export, _sample, _verify
from samgan.commands.scores import _audit, _card, _evaluate, _utility
from samgan.commands.settings import split_settings
from samgan.commands.studies import _balance, _table2
from samgan.commands.train import _demo, _presets, _train
from samgan.config import settings
from samgan.errors import SamganError, UsageError
from samgan.presets import PLUS, scale_names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong use, 128 + n stopped by signal n."""
    warnings.showwarning = lambda message, *_, **__: print(f"samgan: warning: {message}", file=sys.stderr)
    parser = _parser()
    try:
        words, flags = split_settings(sys.argv[1:] if arguments is None else arguments)
        options = parser.parse_args(words)
        options.settings = flags
        options.status = 0
        if flags and options.run not in (_train, _balance, _table2):
            parser.error(f"--{next(iter(flags))}: settings are for samgan train, balance and table2")
        with _termination_unwinds():
            document, text = options.run(options)
    except UsageError as error:
        return _fail(error, 2)
    except SamganError as error:
        number = getattr(error, "signal_number", None)
        return _fail(error, 128 + number if number else 1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except (MemoryError, RuntimeError) as error:
        # torch's own has this name on a GPU; on a CPU it is a plain RuntimeError.
        if not isinstance(error, MemoryError) and not re.search("OutOfMemory|allocate memory", repr(error)):
            raise
        return _fail("not enough memory; a smaller training.batch_size, network.max_channels or --count needs less", 1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files, and arrows, that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(json.dumps(document, indent=2) if options.json else text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end
        return 141 if isinstance(error, BrokenPipeError) else _fail(f"standard output: {error.strerror}", 1)
    return options.status


@contextlib.contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Leave by way of every `finally` on SIGTERM, so that no temporary files stay; training has its own way."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # whoever runs us there handles signals
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: object, status: int) -> int:
    print(f"samgan: error: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samgan",
        description="SAMGAN / MSG-SAGAN: diverse synthetic radiographs. Research only: its images diagnose nobody.",
        epilog="Four steps: prepare, train, sample, evaluate. `samgan COMMAND --help` tells more.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"samgan {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[..., tuple[Any, str]], text: str, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, formatter_class=_HelpFormatter, **more
        )
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print one JSON document on standard output")
        return sub

    p = command("prepare", _prepare, "make a training set from a folder, .zip or .npz of radiographs")
    p.add_argument("source", help="folder (sub-folders are classes), .zip of one, MedMNIST .npz, or medmnist:NAME")
    p.add_argument("out", type=Path, help="folder to write")
    p.add_argument("--resolution", type=int, default=64, choices=(32, 64, 128, 256), help="side in pixels")
    p.add_argument("--channels", type=int, default=1, choices=(1, 3), help="1 grey, 3 colour")
    p.add_argument("--fit", default="crop", choices=("crop", "pad", "stretch"), help="how an image becomes square")
    p.add_argument("--normalize", default="none", choices=("none", "percentile", "clahe"), help="contrast, per image")
    p.add_argument("--duplicates", default="drop", choices=("drop", "keep"), help="what to do with exact duplicates")
    p.add_argument("--holdout", type=float, default=0.2, help="share held out")
    text = "its first group that matched names the patient of a file (default: DICOM's PatientID, else names as in the "
    text += "sets of Kermany and the NIH)"
    p.add_argument("--patient-regex", metavar="REGEX", help=text)
    p.add_argument("--max-bad", type=float, default=0.01, help="share of unreadable files above which nothing is made")
    p.add_argument("--workers", type=int, help="threads (default: one per core)")
    p.add_argument("--seed", type=int, default=0, help="of the split")

    p = command("subset", _subset, "take fewer training images of a prepared set; held-out ones all stay")
    p.add_argument("data", type=Path, help="prepared set")
    p.add_argument("out", type=Path, help="new folder")
    p.add_argument("--patients", nargs="+", default=[], metavar="CLASS=N", help="all images of N random patients")
    p.add_argument("--images", nargs="+", default=[], metavar="CLASS=N", help="N random images")
    p.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="of these classes alone (default: all)")
    p.add_argument("--seed", type=int, default=0, help="of the choice")

    epilog = "settings, each as --KEY=VALUE, here or in a YAML file (--config); a preset gives the defaults:\n\n"
    epilog += "\n".join(f"  --{key}\n      {text}\n      {allowed}" for key, allowed, _, text in settings())
    p = command("train", _train, "train a preset, or any settings, on a prepared set", epilog=epilog)
    p.add_argument("data", type=Path, nargs="?", help="prepared set (--dry-run does without)")
    p.add_argument("--out", type=Path, help="run folder to write, or with --resume to continue")
    p.add_argument("--preset", help=f"row of Table 2 (`samgan presets`), or our own recipe (default: {PLUS})")
    scales = f"rows: paper (512 channels; default), cpu (64); {PLUS}: cpu (default), gpu"
    p.add_argument("--scale", choices=scale_names(), help=scales)
    p.add_argument("--classes", nargs="+", metavar="NAME", help="train on these classes of the set")
    p.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, applied before flags")
    p.add_argument("--resume", action="store_true", help="continue the run in --out, bit for bit, with its settings")
    text = "end after so many minutes of training (halts do not count), where training.kimg is not reached before"
    p.add_argument("--minutes", type=float, metavar="N", help=text)
    text = "begin with the networks of another run (fine-tuning); its settings for networks have to be the same"
    p.add_argument("--start", type=Path, metavar="RUN", help=text)
    text = "what to do when all images become alike and stay so"
    p.add_argument("--on-collapse", default="warn", choices=("warn", "stop", "ignore"), help=text)
    p.add_argument(
        "--dry-run", action="store_true", help="print configuration, parameters, FLOPs and memory; train nothing"
    )
    p.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    _add_device(p)
    p.add_argument("--processes", type=int, default=1, help="processes (devices) per host (default: 1)")
    text = "hosts; start the same command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set (default: 1)"
    p.add_argument("--hosts", type=int, default=1, help=text)

    p = command("sample", _sample, "make images from a run")
    p.add_argument("source", metavar="RUN", type=Path, help="run folder, or a .safetensors file of samgan export")
    p.add_argument("--count", type=int, default=64, help="number of images")
    p.add_argument("--seed", type=int, default=0, help="of the first image; image i has seed + i")
    text = "make images of this class (default: classes in turn, the image of seed s of class s mod their number)"
    p.add_argument("--class", dest="class_name", metavar="NAME", help=text)
    p.add_argument("--out", type=Path, required=True, help="new folder to write")
    formats = ("png", "png16", "npz", "dicom", "dicom16", "medmnist", "imagefolder")
    text = "PNG or DICOM of 8 or 16 bits, one NPZ, one NPZ as MedMNIST's, or Hugging Face's imagefolder"
    p.add_argument("--format", default="png", choices=formats, help=text)
    p.add_argument(
        "--sheets",
        nargs="+",
        default=[],
        choices=("grid", "interpolation", "scales", "attention"),
        help="extra pictures, in OUT/sheets",
    )
    p.add_argument("--checkpoint", default="newest", help="newest, best (by quick scores while training) or a file")
    _add_device(p)

    p = command("evaluate", _evaluate, "score a run or a folder of images against real ones")
    p.add_argument(
        "source", metavar="RUN_OR_FOLDER", type=Path, help="run folder, .safetensors, folder of images, .npz or .npy"
    )
    p.add_argument("--data", type=Path, required=True, help="prepared set of real images")
    p.add_argument("--count", type=int, help="images per set (default: half the real ones: the floor needs two halves)")
    p.add_argument("--split", default="train", choices=("train", "holdout", "all"), help="real images to compare with")
    p.add_argument("--classes", nargs="+", metavar="NAME", default=(), help="of these classes (default: the run's)")
    p.add_argument(
        "--features", default=None, help="inception, or a module you trust (.pt, .pt2): uint8 in, features out"
    )
    p.add_argument("--inception-weights", type=Path, metavar="FILE", help="weights file, where there is no network")
    p.add_argument(
        "--protocol", default="standard", choices=("standard", "legacy"), help="legacy: as the paper's group"
    )
    p.add_argument("--seed", type=int, default=0, help="of samples, pairs and projections")
    p.add_argument("--checkpoint", default="newest", help="newest, best or a file")
    p.add_argument("--out", type=Path, help="folder for scores.json and report.html (default: beside the images)")
    _add_device(p)

    p = command("audit", _audit, "look for signs that a generator memorised its training images")
    text = "run folder, .safetensors, folder of synthetic images, .npz or .npy"
    p.add_argument("source", metavar="RUN_OR_FOLDER", type=Path, help=text)
    p.add_argument("--data", type=Path, required=True, help="prepared set it was trained on, with held-out images")
    p.add_argument("--count", type=int, help="synthetic images (default: as many as training images, of a folder all)")
    p.add_argument("--classes", nargs="+", metavar="NAME", default=(), help="of these classes (default: the run's)")
    p.add_argument("--features", help="inception, or a module you trust (.pt, .pt2): uint8 in, features out")
    p.add_argument("--inception-weights", type=Path, metavar="FILE", help="weights file, where there is no network")
    p.add_argument("--seed", type=int, default=0, help="of samples and of what is drawn")
    p.add_argument("--checkpoint", default="newest", help="newest, best or a file")
    p.add_argument("--out", type=Path, help="folder for audit.json and audit.html (default: beside the images)")
    p.add_argument("--no-pictures", action="store_true", help="keep real images out of audit.html")
    text = "status 1 where a larger share is closer to a training image than 99 %% of held-out images are"
    p.add_argument("--fail-above", type=float, metavar="SHARE", help=text)
    _add_device(p)

    p = command("export", _export, "write a run's generator as one file, which sample and evaluate take")
    p.add_argument("source", metavar="RUN", type=Path, help="run folder")
    p.add_argument("out", metavar="FILE", type=Path, help="new file, ending in .safetensors")
    p.add_argument("--checkpoint", default="newest", help="newest, best or a file")

    p = command("verify", _verify, "say of which model and seed images are; status 1 where one is not what it claims")
    p.add_argument("files", metavar="FILE", nargs="+", type=Path, help="PNG, DICOM or NPZ")
    text = "make the images again and compare: run folder (all its checkpoints count) or a .safetensors file"
    p.add_argument("--run", dest="source", metavar="RUN", type=Path, help=text)
    _add_device(p)

    text = "write a model card or a data card from the record, with what a person has to add visibly open"
    p = command("card", _card, text)
    text = "run folder or .safetensors file (model card), or prepared set (data card)"
    p.add_argument("source", metavar="RUN_OR_DATA", type=Path, help=text)
    p.add_argument("--data", type=Path, help="prepared set that the model was trained on")
    for name in ("scores", "audit", "utility"):
        p.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{name}.json (default: that of the run folder)")
    p.add_argument("--attribution", default="", metavar="TEXT", help="of the images: whose they are, under what terms")
    p.add_argument("--licence", default="", metavar="TEXT", help="of the model or set, such as cc-by-4.0")
    p.add_argument(
        "--out", type=Path, metavar="FILE", help="(default: MODEL_CARD.md or DATA_CARD.md beside the source)"
    )

    epilog = f"Settings, as for samgan train, are given to every row but {PLUS}; those that rows differ in are refused."
    text = "train and score the rows of the paper's Table 2, and further ones; resumable"
    p = command("table2", _table2, text, epilog=epilog)
    p.add_argument("data", type=Path, nargs="?", help="prepared set of grey radiographs (--dry-run does without)")
    p.add_argument("--out", type=Path, help="the sweep's folder: new, or the one to go on with")
    text = "rows by name, or paper (the 18 X-ray rows; default), further, all; ROW=N: with N seeds"
    p.add_argument("--rows", nargs="+", default=[], metavar="ROW", help=text)
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="train every row with seeds 0 to N - 1")
    p.add_argument("--scale", default="cpu", choices=("cpu", "paper"), help="width and length of the rows")
    p.add_argument("--classes", nargs="+", metavar="NAME", help="train on these classes of the set")
    p.add_argument("--faces", type=Path, help="prepared set of faces (3 channels), for msg-gan-1, the CelebA row")
    p.add_argument("--budget-minutes", type=float, metavar="N", help="length of every row, in minutes of training")
    p.add_argument("--kimg", type=float, metavar="N", help="length of every row (default: the scale's)")
    p.add_argument("--snapshot-every-kimg", type=float, metavar="N", help="checkpoints and quick scores (the scale's)")
    text = "jobs on Ray: local (this machine), auto (the cluster that runs here), or an address"
    p.add_argument("--ray", metavar="ADDRESS", help=text)
    p.add_argument("--cores-per-job", type=int, metavar="N", help="CPU cores of a job (default: all of this machine)")
    p.add_argument("--gpus-per-job", type=float, default=0.0, metavar="N", help="GPUs of a job on Ray")
    p.add_argument("--count", type=int, help="images per set when scoring (default: half the real ones)")
    text = "inception, or a module you trust (.pt, .pt2): uint8 in, features out"
    p.add_argument("--features", help=text)
    p.add_argument("--inception-weights", metavar="FILE", help="weights file, where there is no network")
    text = "what to do when all images of a row become alike and stay so"
    p.add_argument("--on-collapse", default="warn", choices=("warn", "stop", "ignore"), help=text)
    p.add_argument(
        "--dry-run", action="store_true", help="print parameters, FLOPs, memory and GPU-hours; train nothing"
    )
    _add_device(p)

    p = command("utility", _utility, "whether synthetic images help a classifier on held-out patients")
    p.add_argument("data", type=Path, help="prepared set with two classes or more and a held-out split")
    text = "of each class that lacks images, or of every class: a run, .safetensors, folder of images, .npz or .npy"
    p.add_argument("--synthetic", nargs="+", required=True, metavar="CLASS=SOURCE", help=text)
    p.add_argument("--out", type=Path, required=True, help="folder for utility.json and utility.html")
    p.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="classes to tell apart (default: all)")
    p.add_argument("--seeds", type=int, default=5, help="classifiers for each way to train")
    p.add_argument("--steps", type=int, default=500, help="steps of 64 images of each classifier")
    _add_device(p)

    epilog = "The same command goes on where it was stopped. Settings of training may be given as for samgan train."
    text = "make the images that classes lack, screen and audit them, and test on held-out patients whether they help"
    p = command("balance", _balance, text, epilog=epilog)
    p.add_argument("data", type=Path, help="prepared set with two classes or more and a held-out split")
    p.add_argument("out", type=Path, help="folder to write, or to go on with")
    text = "equal, a number of images per class, or a share of the largest class such as 0.5"
    p.add_argument("--target", default="equal", metavar="equal|N|SHARE", help=text)
    p.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="of these classes (default: all)")
    text = "one model told of classes; one per class; or one per class that begins with one of all images"
    p.add_argument("--method", default="joint", choices=("joint", "per-class", "fine-tuned"), help=text)
    text = "take models trained on this set: one told of all classes, or one for each class that lacks images"
    p.add_argument("--run", dest="runs", nargs="+", default=[], metavar="[CLASS=]RUN", help=text)
    p.add_argument("--minutes", type=float, default=60.0, metavar="N", help="training in all")
    p.add_argument("--preset", help=f"of the models (default: {PLUS})")
    p.add_argument("--scale", choices=scale_names(), help=scales)
    p.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, applied before flags")
    text = "inception, or a module you trust (.pt, .pt2): uint8 in, features out"
    p.add_argument("--features", help=text)
    p.add_argument("--inception-weights", type=Path, metavar="FILE", help="weights file, where there is no network")
    text = "also leave out images whose class a classifier of the real ones finds less likely than this"
    p.add_argument("--confidence", type=float, default=0.0, metavar="P", help=text)
    kinds = ("png", "png16", "dicom", "dicom16")
    p.add_argument("--format", dest="file_format", default="png", choices=kinds, help="of synthetic images")
    text = "folder that the set was prepared from: link to its files (default: the prepared images, as PNG)"
    p.add_argument("--originals", type=Path, metavar="FOLDER", help=text)
    p.add_argument("--copies", action="store_true", help="copy the originals instead of linking to them")
    p.add_argument("--seeds", type=int, default=5, help="classifiers for each way to train; 0: no test of them")
    p.add_argument("--steps", type=int, default=500, help="steps of 64 images of each classifier")
    _add_device(p)

    command("presets", _presets, "list the rows of the paper's Table 2 with its scores")

    p = command("demo", _demo, "the whole of it on phantoms, in about three minutes on a CPU")
    p.add_argument("--out", type=Path, default=Path("demo"), help="new folder to write")
    p.add_argument("--kimg", type=float, default=8.0, help="length of training")
    _add_device(p)
    return parser


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        shown = action.default not in (None, False, argparse.SUPPRESS, []) and "default" not in text
        return text + " (default: %(default)s)" if shown and action.option_strings else text


def _add_device(parser: argparse.ArgumentParser) -> None:
    text = "auto takes CUDA, else the CPU (default: auto)"
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help=text)
