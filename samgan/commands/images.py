"""Commands that make images and say where images came from."""

import argparse
from pathlib import Path

from samgan.commands.command import Command, Outcome
from samgan.commands.options import MODEL, add_checkpoint, add_device, add_seed, given
from samgan.errors import UsageError


def _add_sample(parser: argparse.ArgumentParser) -> None:
    from samgan.provenance import FORMATS
    from samgan.sampling.sheet_names import SHEET_NAMES

    parser.add_argument("source", metavar="RUN", type=Path, help=MODEL)
    parser.add_argument("--out", type=Path, required=True, help="new folder to write")
    parser.add_argument("--count", type=int, default=64, metavar="N", help="number of images")
    add_seed(parser, "seed of the first image; image i has this seed + i")
    text = "make only images of this class (default: all classes in turn, so that each has as many images; the class "
    text += "is the seed modulo their number)"
    parser.add_argument("--class", dest="class_name", metavar="NAME", help=text)
    text = "move each image's style towards the mean one (of its class): 1: as trained (default), 0: the mean image. "
    text += "0.7, say, is less varied, and more often free of faults; for generators with styles, such as samgan-plus"
    parser.add_argument("--truncation", type=float, default=1.0, metavar="PSI", help=text)
    text = "format of the files; " + "; ".join(f"{name}: {known.label}" for name, known in FORMATS.items())
    parser.add_argument("--format", dest="file_format", default="png", choices=tuple(FORMATS), help=text)
    text = "also write these overview pictures to OUT/sheets"
    parser.add_argument("--sheets", nargs="+", default=[], choices=SHEET_NAMES, help=text)
    add_checkpoint(parser)
    add_device(parser)


def _sample(options: argparse.Namespace) -> Outcome:
    from samgan import api

    names = ("count", "seed", "file_format", "sheets", "class_name", "truncation", "checkpoint", "device")
    written = api.sample(options.source, options.out, **given(options, *names))
    text = f"{options.out}: {options.count} synthetic images, seeds {options.seed} to {written.last_seed}"
    counts = [f"{count} {name}" for name, count in written.classes.items() if count]
    text += f": {', '.join(counts)}" if counts else ""
    return Outcome(written, f"{text}; model {written.hub}" if written.hub else text)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", type=Path, help=MODEL)
    text = (
        "new file. The end of its name says what for: .safetensors for samgan itself; .onnx for ONNX Runtime and other "
        "programs (needs samgan[onnx]); .pt2 for torch.export.load. The last two make images from latents "
        "(docs/sharing.md)"
    )
    parser.add_argument("out", metavar="FILE", type=Path, help=text)
    add_checkpoint(parser)


def _export(options: argparse.Namespace) -> Outcome:
    from samgan import api

    exported = api.export(options.source, options.out, checkpoint=options.checkpoint)
    text = f"{options.out}: {exported.images_seen / 1000:g} kimg, weights {exported.sha256[:12]}"
    if exported.largest_difference is not None:
        text += f"; largest difference from images of samgan sample: {exported.largest_difference} of 255"
    return Outcome(exported, text)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="PNG, DICOM or NPZ file")
    text = f"make the images again and compare: {MODEL}. All checkpoints of a run are tried"
    parser.add_argument("--run", dest="source", metavar="RUN", type=Path, help=text)
    add_device(parser)


def _verify(options: argparse.Namespace) -> Outcome:
    from samgan.trust import format_findings, verify_files

    if options.source is None:
        findings = verify_files(options.files)  # in a second: it needs no torch
    else:
        from samgan import api

        findings = api.verify(options.files, options.source, device=options.device)
    return Outcome(findings, format_findings(findings), 0 if all(finding.ok for finding in findings) else 1)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the model card of this model")


def _models(options: argparse.Namespace) -> Outcome:
    from samgan.sampling.shipped import SHIPPED

    if options.name is None:
        return Outcome(list(SHIPPED.values()), "\n\n".join(model.to_text() for model in SHIPPED.values()))
    if options.name not in SHIPPED:
        raise UsageError(f"{options.name}: expected one of {', '.join(SHIPPED)}")
    return Outcome(SHIPPED[options.name], SHIPPED[options.name].card)


COMMANDS = (
    Command("models", "list the trained models that come with samgan, or print the card of one", _models, _add_models),
    Command("sample", "make images with a trained model", _sample, _add_sample),
    Command("export", "write a trained model to one file, for samgan or for other programs", _export, _add_export),
    Command(
        "verify",
        "say which model and seed made an image; the status is 1 if an image is not what it claims to be",
        _verify,
        _add_verify,
    ),
)
