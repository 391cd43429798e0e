"""The command line. Results go to standard output, progress and messages to standard error.

Every command imports what it needs when it runs, so that `samgan --help` does not wait for torch.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgan import __version__
from samgan.config import Config, flatten, settings
from samgan.errors import SamganError, UsageError
from samgan.presets import PLUS, PRESETS, SCALES, preset_config, preset_document, scale_names

if TYPE_CHECKING:
    from samgan.data import PreparedSet

BAD_FILES_SHOWN = 20


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


# --- prepare


def _prepare(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.data import prepare

    names = (
        "resolution",
        "channels",
        "fit",
        "normalize",
        "duplicates",
        "holdout",
        "patient_regex",
        "max_bad",
        "workers",
    )
    prepared = prepare(
        options.source, options.out, seed=options.seed, **{name: getattr(options, name) for name in names}
    )
    return prepared.info, _describe_set(prepared)


def _subset(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.data import PreparedSet
    from samgan.data.subset import subset

    numbers: dict[str, dict[str, int]] = {"patients": {}, "images": {}}
    for kind, chosen in numbers.items():
        for given in getattr(options, kind):
            name, _, number = given.rpartition("=")
            if not name or not number.isdigit() or int(number) < 1:
                raise UsageError(f"--{kind} {given}: expected CLASS=N with a whole number from 1, such as NORMAL=125")
            chosen[name] = int(number)
    prepared = subset(
        PreparedSet.open(options.data), options.out, classes=options.classes, seed=options.seed, **numbers
    )
    return prepared.info, _describe_set(prepared)


def _describe_set(prepared: "PreparedSet") -> str:
    info = prepared.info
    by_source = info["split_by"] == "source"
    lines = [
        f"{prepared.path}: {info['images']} images of {prepared.resolution}x{prepared.resolution}, "
        f"{prepared.channels} channel(s), split by {info['split_by']}"
        + (" (its folders train, test, ...; the share to hold out is not used)" if by_source else "")
    ]
    for name, counts in info["counts"].items():
        lines.append(f"  {name}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    left_out = info["left_out"]
    if info["near_duplicates"]:
        where = "" if by_source else ", on the side of what they are like"
        lines.append(f"near duplicates: {info['near_duplicates']} images, kept{where}")
    if both := info.get("groups_on_both_sides"):  # older sets do not say
        lines.append(
            f"warning: {both} patients, or groups of near duplicates, are on both sides of the source's own split: "
            "what is measured on held-out images is too good. A folder without that split is split by patient"
        )
    if enlarged := info.get("enlarged"):
        lines.append(f"enlarged: {enlarged} images were smaller than {prepared.resolution} px")
    if left_out["exact_duplicates"]:
        lines.append(f"left out: {len(left_out['exact_duplicates'])} exact duplicates")
    if left_out["ignored_by_suffix"]:
        counts = (f"{count} {suffix or 'without suffix'}" for suffix, count in left_out["ignored_by_suffix"].items())
        lines.append(f"ignored as no images: {', '.join(counts)}")
    if bad := left_out["bad_files"]:
        lines.append(f"left out: {len(bad)} files that cannot be read")
        lines += [f"  {file['source']}: {file['reason']}" for file in bad[:BAD_FILES_SHOWN]]
        if len(bad) > BAD_FILES_SHOWN:
            lines.append(f"  and {len(bad) - BAD_FILES_SHOWN} more, all in {prepared.path / 'dataset.json'}")
    return "\n".join(lines)


# --- train


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separate settings (`--training.kimg=50`, `--network.generator_attention 8,16`) from the other words.

    A value is read as JSON (`50`, `1e-4`, `true`, `null`, `[8, 16]`), else as a list where it has commas, else as text.

    Raises:
        UsageError: A setting without a value.
    """
    words: list[str] = []
    flags: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if not key.startswith("--") or "." not in key:
            words.append(word)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{key} needs a value: {key}=VALUE")
            value = rest.pop(0)
        flags[key[2:]] = _parse_value(value)
    return words, flags


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return [_parse_value(part) for part in text.split(",") if part] if "," in text else text


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a YAML file: sections of keys, dotted keys, or both.

    Raises:
        UsageError: Not there, not YAML, or not a mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.1 takes 1e-4 for text; everybody else takes it for a number. And the last of equal keys wins."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            repeated = [key for key in keys if keys.count(key) > 1]
            if repeated:
                raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]} stands there twice")
            return super().construct_mapping(node, deep)

    number = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        document = yaml.load(path.read_text("utf-8"), Loader)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"--config {path}: expected settings such as 'training: {{kimg: 50}}', got {document!r}")
    return document


def _train(options: argparse.Namespace) -> tuple[Any, str]:
    if options.out is None and (options.resume or not options.dry_run):
        raise UsageError("which run folder? --out RUN")
    prepared = None
    if options.data is not None:
        from samgan.data import PreparedSet

        prepared = PreparedSet.open(options.data)
    config = _configuration(options, prepared)
    if options.dry_run:
        return _dry_run(config, prepared, options.processes * options.hosts)
    if prepared is None:
        if options.classes and Path(options.classes[-1]).is_dir():
            raise UsageError(f"--classes took {options.classes[-1]} for a class: put the prepared set before it")
        raise UsageError("which prepared set? samgan train DATA --out RUN (samgan prepare makes one)")
    from samgan import api

    names = ("resume", "minutes", "device", "processes", "hosts", "tensorboard", "start", "on_collapse")
    run = api.train(config, prepared, options.out, **{name: getattr(options, name) for name in names})
    checkpoint, images_seen = run.checkpoints()[-1], run.last_step() * config.training.batch_size
    document = {"run": str(run.path), "images_seen": images_seen, "checkpoint": str(checkpoint), "best": run.best()}
    return document, f"{run.path}: {images_seen / 1000:g} kimg done; next: samgan sample {run.path} --out DIR"


def _configuration(options: argparse.Namespace, prepared: "PreparedSet | None") -> Config:
    """Settings, the later ones first: flags, YAML, the prepared set's shape, the preset or the run to continue."""
    asked = {**(flatten(read_settings(options.config)) if options.config else {}), **options.settings}
    if options.classes:
        asked["data.classes"] = options.classes
    preset, scale = (getattr(options, name) or asked.pop(name, None) for name in ("preset", "scale"))
    for name, value in (("preset", preset), ("scale", scale)):
        asked.pop(name, None)
        if not isinstance(value, str | None):
            raise UsageError(f"{name}: {value!r} is not allowed; expected text")
    if options.resume and preset is None and scale is None:
        from samgan.runs import Run

        return Run.open(options.out).config.override(asked)
    resolution = asked.get("network.resolution", prepared.resolution if prepared else 64)
    if type(resolution) is not int:  # the override below says what is wrong with it
        resolution = 64
    if {key for key, *_ in settings()} <= set(asked):  # as in a run's config.json: the row has nothing to add
        return Config().override({"preset": preset or "custom", **asked})
    base = preset_config(preset or PLUS, scale, resolution)
    return base.override({**({"network.image_channels": prepared.channels} if prepared else {}), **asked})


def _dry_run(config: Config, prepared: "PreparedSet | None", processes: int) -> tuple[Any, str]:
    from samgan.api import choose_classes
    from samgan.planning import plan
    from samgan.training import check_fit

    if prepared is not None:
        config = choose_classes(config, prepared)
        images = len(prepared.indices("train", config.data.classes))
        check_fit(config, (images, *prepared.images.shape[1:]), processes)
    cost = plan(config)
    document = {"config": config.to_dict(), **cost}
    lines = [
        f"{key} = {json.dumps(getattr(getattr(config, key.split('.')[0]), key.split('.')[1]))}"
        for key, *_ in settings()
    ]
    lines += [
        "",
        f"generator      {cost['generator_parameters']:>14,} parameters",
        f"discriminator  {cost['discriminator_parameters']:>14,} parameters",
        f"one step       {cost['flops_per_step'] / 1e9:>14,.1f} GFLOP",
        f"memory         {cost['memory_bytes'] / 2**20:>14,.0f} MiB, about",
        f"length         {cost['steps']:>14,} steps, {cost['kimg']:g} kimg",
    ]
    return document, "\n".join(lines)


# --- sample and evaluate


def _sample(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api

    document = api.sample(
        options.source,
        options.out,
        options.count,
        seed=options.seed,
        file_format=options.format,
        sheets=options.sheets,
        class_name=options.class_name,
        checkpoint=options.checkpoint,
        device=options.device,
    )
    text = f"{options.out}: {options.count} synthetic images, seeds {options.seed} to {document['last_seed']}"
    counts = [f"{count} {name}" for name, count in document.get("classes", {}).items() if count]
    return document, f"{text}: {', '.join(counts)}" if counts else text


def _evaluate(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api
    from samgan.data import PreparedSet
    from samgan.evaluation import format_table

    names = (
        "count",
        "split",
        "classes",
        "features",
        "inception_weights",
        "protocol",
        "seed",
        "checkpoint",
        "out",
        "device",
    )
    scores, report = api.evaluate(
        options.source, PreparedSet.open(options.data), **{name: getattr(options, name) for name in names}
    )
    return scores, f"{format_table(scores)}\n{report}"


def _audit(options: argparse.Namespace) -> tuple[Any, str]:
    limit = options.fail_above
    if limit is not None and not 0 <= limit <= 1:
        raise UsageError(f"--fail-above {limit:g}: expected a share from 0 to 1")
    from samgan.audit import audit, format_audit
    from samgan.data import PreparedSet

    names = ("count", "classes", "features", "inception_weights", "seed", "checkpoint", "out", "device")
    document, page = audit(
        options.source,
        PreparedSet.open(options.data),
        pictures=not options.no_pictures,
        **{name: getattr(options, name) for name in names},
    )
    if limit is not None:
        shares = [document[space]["closer"]["share"]["value"] for space in ("pixels", "features") if document[space]]
        options.status = 1 if max(shares) > limit else 0
    return document, f"{format_audit(document)}\n{page}"


def _export(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api

    document = api.export(options.source, options.out, checkpoint=options.checkpoint)
    return document, f"{options.out}: {document['images_seen'] / 1000:g} kimg, weights {document['sha256'][:12]}"


def _verify(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api
    from samgan.verification import format_findings

    findings = api.verify(options.files, options.source, device=options.device)
    options.status = 0 if all(finding.ok for finding in findings) else 1
    return [finding.to_dict() for finding in findings], format_findings(findings)


# --- table2


def _card(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.cards import OPEN, read_record, write_card
    from samgan.data import PreparedSet

    record = read_record(
        options.source,
        PreparedSet.open(options.data) if options.data else None,
        {name: getattr(options, name) for name in ("scores", "audit", "utility")},
        attribution=options.attribution,
        licence=options.licence,
    )
    folder = options.source if options.source.is_dir() else options.source.parent
    path = options.out or folder / ("MODEL_CARD.md" if record.config else "DATA_CARD.md")
    write_card(path, record)
    left = path.read_text(encoding="utf-8", errors="replace").count(OPEN)  # names of files may be no UTF-8
    return {"card": str(path), "open": left}, f"{path}: {left} places marked {OPEN} are left to you"


def _table2(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.table2 import SUSTAINED_TFLOPS, check_settings, choose_rows, plan_rows, run_table

    if options.budget_minutes is not None and options.kimg is not None:
        raise UsageError("--budget-minutes or --kimg: one of them is the length")
    from samgan.data import PreparedSet

    resolution = PreparedSet.open(options.data).resolution if options.data else 64
    rows = choose_rows(options.rows, options.seeds, options.faces is not None, resolution)
    if options.dry_run:
        check_settings(options.settings, options.scale)
        costs = plan_rows(rows, options.scale, resolution, options.kimg, options.settings, options.budget_minutes)
        text = [f"{'row':<24} seeds  parameters (M)  GFLOP a step  memory (GiB)    steps  GPU-hours"]
        text += [
            f"{cost['name']:<24} {cost['seeds']:>5}  "
            f"{(cost['generator_parameters'] + cost['discriminator_parameters']) / 1e6:>14.1f}  "
            f"{cost['flops_per_step'] / 1e9:>12.0f}  {cost['memory_bytes'] / 2**30:>12.1f}  {cost['steps'] or '-':>7}  "
            f"{cost['gpu_hours']:>9.1f}"
            for cost in costs
        ]
        total = sum(cost["gpu_hours"] for cost in costs)
        jobs = sum(cost["seeds"] for cost in costs)
        pace = f" where a GPU sustains {SUSTAINED_TFLOPS:g} TFLOP/s (assumed)" * (options.budget_minutes is None)
        text.append(f"{jobs} jobs, {total:.0f} GPU-hours{pace}; memory as of one process on a CPU")
        return costs, "\n".join(text)
    for name in ("data", "out"):
        if getattr(options, name) is None:
            raise UsageError("samgan table2 DATA --out FOLDER: both are needed, but for --dry-run")
    names = ("rows", "seeds", "json", "status", "run", "dry_run")
    given = {name: value for name, value in vars(options).items() if name not in names}
    lines, files = run_table(rows, **given, command=shlex.join(["samgan", *sys.argv[1:]]))
    return lines, f"{files[0].read_text('utf-8')}\n{files[-1]}"


# --- balance


def _balance(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.balance import balance, format_balance
    from samgan.data import PreparedSet

    prepared = PreparedSet.open(options.data)
    names = list(options.classes) or prepared.classes
    runs: dict[str, Path] = {}
    for source in options.runs:
        name, _, path = source.partition("=")
        of_class = bool(path) and name in names
        label = name if of_class else ""
        if label in runs:
            raise UsageError(f"--run {source}: {label or 'all classes'} has {runs[label]} already; name CLASS=RUN")
        runs[label] = Path(path if of_class else source)
    config = _configuration(argparse.Namespace(**{**vars(options), "resume": False, "classes": ()}), prepared)
    others = ("json", "settings", "status", "run", "data", "out", "runs", "preset", "scale", "config")
    given = {name: value for name, value in vars(options).items() if name not in others}
    document, page = balance(prepared, options.out, config, runs=runs, **given)
    return document, f"{format_balance(document)}\n{page}"


# --- utility


def _utility(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.data import PreparedSet
    from samgan.utility import format_utility, utility

    synthetic = {}
    for given in options.synthetic:
        name, equals, source = given.partition("=")
        if not equals or not name or not source:
            raise UsageError(f"--synthetic {given}: expected CLASS=SOURCE, such as NORMAL=runs/normal")
        synthetic[name] = Path(source)
    document, page = utility(
        PreparedSet.open(options.data),
        synthetic,
        options.out,
        classes=options.classes,
        seeds=options.seeds,
        steps=options.steps,
        device=options.device,
    )
    return document, f"{format_utility(document)}\n{page}"


# --- presets


def _presets(options: argparse.Namespace) -> tuple[Any, str]:
    lines = [f"{'preset':<11} SN AM FA  optimizer  rate    loss     data     paper's FID   MR    MG"]
    mark = {True: "y ", False: ". "}
    for row in PRESETS:
        real, generated = (
            f"{x:.2f}" if x is not None else "-" for x in (row.paper_ms_ssim_real, row.paper_ms_ssim_generated)
        )
        lines.append(
            f"{row.name:<11} {mark[row.spectral_norm]} {mark[row.attention]} {mark[row.flip]}  {row.optimizer:<9}  "
            f"{row.learning_rate:<6g}  {row.loss:<7}  {row.data:<7}  {row.paper_fid:>11g}  {real:>4}  {generated:>4}"
        )
    lines += [
        "",
        "SN spectral norm, AM self-attention, FA random flips; MR, MG: MS-SSIM of real, generated pairs (the paper's).",
        "All rows: pixel norm, minibatch std, 64x64, batch 16. --scale paper: 512 channels, 1,808 kimg (500 epochs of",
        f"3,616 images); --scale cpu: {SCALES['cpu']['max_channels']} channels, {SCALES['cpu']['kimg']:g} kimg.",
        "",
        f"{PLUS}, our own recipe, is no row of the paper: `samgan train --dry-run` prints it. --scale cpu or gpu.",
    ]
    return preset_document(), "\n".join(lines)


# --- demo


def _demo(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api
    from samgan.evaluation import format_table

    document = api.demo(options.out, kimg=options.kimg, device=options.device)
    return document, f"{api.DEMO_NOTE}\n\n{format_table(document['scores'])}\n{document['report']}"
