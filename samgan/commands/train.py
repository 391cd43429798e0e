"""Commands that train, or say what training would do."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgan.commands.command import Command, Outcome
from samgan.commands.options import add_classes, add_device, add_on_collapse, add_preset, add_seed, given
from samgan.commands.settings import configuration, describe_settings, given_settings
from samgan.commands.studio import check_studio
from samgan.config import Config, settings
from samgan.errors import SamganError, UsageError
from samgan.files import is_full
from samgan.presets import PLUS

if TYPE_CHECKING:
    from samgan.data import PreparedSet

LOGGER_NAMES = ("tensorboard", "mlflow", "wandb")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, nargs="?", help="prepared set (not needed with --dry-run)")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="run folder: new or, with --resume, the one to continue"
    )
    add_preset(parser, f"one of samgan presets (default: {PLUS})")
    add_classes(parser, "train on these classes of the set (default: all)")
    text = "continue the run in --out with its own settings (bit for bit on a CPU)"
    parser.add_argument("--resume", action="store_true", help=text)
    text = "stop after N minutes of training, if training.kimg is not reached earlier; pauses do not count"
    parser.add_argument("--minutes", type=float, metavar="N", help=text)
    text = "begin with the networks of another run, or with the generator of another model, such as pneumonia-64 or "
    text += "hf:OWNER/NAME (fine-tuning); its network settings must be the same, but its images may be smaller"
    parser.add_argument("--start", type=Path, metavar="RUN_OR_MODEL", help=text)
    add_on_collapse(parser)
    text = "print configuration, parameters, FLOPs and memory, and train nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    text = "also log to these, as files in the run folder: TensorBoard, MLflow, Weights & Biases (offline)"
    parser.add_argument("--log", nargs="+", choices=LOGGER_NAMES, dest="loggers", default=(), help=text)
    add_device(parser)
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes (devices) per host")
    text = "number of hosts; start the same command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set"
    parser.add_argument("--hosts", type=int, default=1, metavar="N", help=text)
    parser.epilog = "\n".join(describe_settings())


def _train(options: argparse.Namespace) -> Outcome:
    if options.out is None and (options.resume or not options.dry_run):
        raise UsageError("which run folder? Name it with --out RUN")
    prepared = None
    if options.data is not None:
        from samgan.data import PreparedSet

        prepared = PreparedSet.open(options.data)
    asked = _asked(options)
    config = _configuration(options, asked, prepared)
    if options.dry_run:
        return _dry_run(config, asked, options, prepared)
    if prepared is None:
        if options.classes and Path(options.classes[-1]).is_dir():
            raise UsageError(f"--classes took {options.classes[-1]} as a class: name the prepared set before --classes")
        raise UsageError("which prepared set? samgan train DATA --out RUN (samgan prepare makes one)")
    from samgan import api

    _note_unused(config, asked, options.settings)
    names = ("resume", "minutes", "device", "processes", "hosts", "loggers", "start", "on_collapse")
    try:
        run = api.train(config, prepared, options.out, **given(options, *names))
    except OSError as error:
        if options.resume or not is_full(error) or not (options.out / "config.json").is_file():
            raise  # the same command will do
        where = f" ({error.filename})" if error.filename else ""
        raise SamganError(f"{error.strerror}{where}: free some space, then continue with --resume") from None
    checkpoint, images_seen = run.checkpoints()[-1], run.last_step() * config.training.batch_size
    document = {"run": str(run.path), "images_seen": images_seen, "checkpoint": str(checkpoint), "best": run.best()}
    return Outcome(document, f"{run.path}: {images_seen / 1000:g} kimg done; next: samgan sample {run.path} --out DIR")


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """All settings that were given, by `--classes`, too."""
    return given_settings(options) | ({"data.classes": options.classes} if options.classes else {})


def _configuration(options: argparse.Namespace, asked: Mapping[str, Any], data: "PreparedSet | None") -> Config:
    """The configuration asked for; of a run to continue its own, with what was asked for over it."""
    if options.resume and not {"preset", "scale"} & asked.keys():
        from samgan.runs import Run

        return Run.open(options.out).config.override(asked)
    return configuration(asked, data)


def _note_unused(config: Config, asked: Mapping[str, Any], typed: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which of the settings that were given have no effect.

    Args:
        config: All settings.
        asked: Those that were given. With those of a run's config.json among them, which has every setting, only the
            typed ones count.
        typed: Those of the command line.
    """
    from samgan.terminal import say
    from samgan.training import unused_settings

    of_a_run = {"preset", "network.image_channels", "training.keep_checkpoints"} <= asked.keys()
    found = unused_settings(config, typed if of_a_run else asked)
    for sentence in found:
        say(f"note: {sentence}")
    return found


def _dry_run(
    config: Config, asked: Mapping[str, Any], options: argparse.Namespace, prepared: "PreparedSet | None"
) -> Outcome:
    from samgan.devices import choose_device, usable_precision
    from samgan.runs import processor_name
    from samgan.training import check_fit, choose_classes, choose_length, plan

    if prepared is not None:
        config = choose_length(choose_classes(config, prepared), prepared)
        images = len(prepared.indices("train", config.data.classes))
        check_fit(config, (images, *prepared.images.shape[1:]), options.processes * options.hosts)
    cost, precision = plan(config).to_dict(), usable_precision(config.training.precision, "cpu")
    tree: dict[str, Any] = config.to_dict()
    lines = []
    for setting in settings():
        section, _, name = setting.key.partition(".")
        lines.append(f"{setting.key} = {json.dumps(tree[section][name])}")
    lines += [
        "",
        f"generator      {cost['generator_parameters']:>14,} parameters",
        f"discriminator  {cost['discriminator_parameters']:>14,} parameters",
        f"one step       {cost['flops_per_step'] / 1e9:>14,.1f} GFLOP",
        f"memory         {cost['memory_bytes'] / 2**20:>14,.0f} MiB (estimate for a CPU in {precision}"
        f"{_beside_free(cost['memory_bytes'])})",
        f"length         {cost['steps']:>14,} steps, {cost['kimg']:g} kimg",
    ]
    unused = list(_note_unused(config, asked, options.settings))
    device = choose_device("auto") if options.device == "auto" else options.device
    machine = {"device": device, "processor": processor_name()}
    return Outcome({"config": tree, **cost, **machine, "unused_settings": unused}, "\n".join(lines))


def _beside_free(needed: int) -> str:
    """What to say of an estimate of memory if there is not so much."""
    from samgan.data.room import free_memory

    free = free_memory()
    if free is None or needed <= free:
        return ""
    return f"; {free / 2**20:,.0f} are free: choose a smaller training.batch_size or channel_base"


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="FOLDER", help="new folder to write")
    add_seed(parser, "seed of the phantoms and of the training")
    text = "length of training, in thousands of images (default: 36)"
    parser.add_argument("--kimg", type=float, metavar="N", help=text)
    text = "end training after N minutes, if --kimg is not reached earlier (default: 2.4)"
    parser.add_argument("--minutes", type=float, metavar="N", help=text)
    text = "then open the studio on the demo's set and run, in the browser; Ctrl-C ends it"
    parser.add_argument("--studio", action="store_true", help=text)
    add_device(parser)


def _demo(options: argparse.Namespace) -> Outcome:
    from samgan.demonstration import demo

    if options.studio:
        check_studio()  # before minutes are spent
    asked = {name: value for name in ("kimg", "minutes") if (value := getattr(options, name)) is not None}
    done = demo(options.out, **asked, **given(options, "seed", "device"))
    if options.studio:
        from samgan.studio.places import Root
        from samgan.studio.serve import serve
        from samgan.terminal import say

        say(done.to_text())
        serve(Root(options.out))
        return Outcome(done, "The studio has ended.")
    return Outcome(done, done.to_text())


COMMANDS = (
    Command("train", "train a preset, or any settings, on a prepared set", _train, _add_train, takes_settings=True),
    Command(
        "demo",
        "make X-rays at once, then train on phantoms: all of samgan in less than three minutes",
        _demo,
        _add_demo,
    ),
)
