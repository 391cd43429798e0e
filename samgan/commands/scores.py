"""Commands that score images and models, and that write down what is known of them."""

import argparse
from pathlib import Path
from typing import Any

from samgan.commands.command import Command, Outcome
from samgan.commands.options import (
    IMAGES,
    MODEL,
    add_checkpoint,
    add_classes,
    add_classifiers,
    add_device,
    add_features,
    add_seed,
    given,
)
from samgan.errors import SamganError, UsageError


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN_OR_FOLDER", type=Path, help=IMAGES)
    parser.add_argument("--data", type=Path, required=True, help="prepared set of real images")
    text = "images per set (default: half the real ones, since the floor needs two sets of real images; all with "
    text += "--protocol paper)"
    parser.add_argument("--count", type=int, metavar="N", help=text)
    text = "real images to compare with"
    parser.add_argument("--split", default="train", choices=("train", "holdout", "all"), help=text)
    add_classes(parser, "compare with real images of these classes (default: those of the run)")
    text = "standard; paper: all generated against all real images, with the floor at half of them; or legacy: the "
    text += "scores as the paper's group computed them in another article"
    parser.add_argument("--protocol", default="standard", choices=("standard", "paper", "legacy"), help=text)
    add_seed(parser, "seed of the first image, and of the pairs and projections that are drawn")
    text = "folder for scores.json and report.html (default: the run or the folder of images)"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    add_features(parser)
    add_checkpoint(parser)
    add_device(parser)


def _evaluate(options: argparse.Namespace) -> Outcome:
    from samgan import api
    from samgan.data import PreparedSet
    from samgan.scoring import format_table

    names = ("count", "split", "classes", "features", "features_file", "protocol", "seed", "checkpoint", "out")
    scores, report = api.evaluate(options.source, PreparedSet.open(options.data), **given(options, *names, "device"))
    return Outcome(scores, f"{format_table(scores)}\n{report}")


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN_OR_FOLDER", type=Path, help=IMAGES)
    text = "prepared set, with held-out images, that the generator was trained on"
    parser.add_argument("--data", type=Path, required=True, help=text)
    text = "number of synthetic images (default: of a model as many as there are training images, else all)"
    parser.add_argument("--count", type=int, metavar="N", help=text)
    add_classes(parser, "compare with real images of these classes (default: those of the run)")
    add_seed(parser, "seed of the first image, and of all that is drawn")
    text = "folder for audit.json and audit.html (default: the run or the folder of images)"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--no-pictures", action="store_true", help="show no real images in the page")
    text = "end with status 1 if more than this share of the synthetic images is closer to a training image than 99 %% "
    text += "of held-out images are, if one is a copy, or if the audit could not have found copies"
    parser.add_argument("--fail-above", type=float, metavar="SHARE", help=text)
    add_features(parser)
    add_checkpoint(parser)
    add_device(parser)


def _audit(options: argparse.Namespace) -> Outcome:
    limit = options.fail_above
    if limit is not None and not 0 <= limit <= 1:
        raise UsageError(f"--fail-above {limit:g}: expected a share from 0 to 1")
    from samgan.data import PreparedSet
    from samgan.trust import audit, format_audit

    names = ("count", "classes", "features", "features_file", "seed", "checkpoint", "out", "device")
    data, pictures = PreparedSet.open(options.data), not options.no_pictures
    document, page = audit(options.source, data, pictures=pictures, **given(options, *names))
    failed = limit is not None and document.exceeds(limit)
    return Outcome(document, f"{format_audit(document)}\n{page}", int(failed))


def _add_card(parser: argparse.ArgumentParser) -> None:
    text = "run folder or other name of a model (for a model card), or prepared set (for a data card)"
    parser.add_argument("source", metavar="RUN_OR_DATA", type=Path, help=text)
    _add_record(parser)
    text = "file to write (default: MODEL_CARD.md or DATA_CARD.md in the folder of the source); card.json beside it "
    text += "keeps what you add, for the next time"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    parser.add_argument("--replace", action="store_true", help="replace a card that was edited by hand")


def _add_record(parser: argparse.ArgumentParser) -> None:
    """Add what `_record_options` takes."""
    parser.add_argument("--data", type=Path, help="prepared set that the model was trained on")
    for name, command in (("scores", "evaluate"), ("audit", "audit"), ("utility", "utility")):
        text = f"{name}.json of samgan {command} (default: the one in the run folder, if there is one)"
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)
    text = "who made the images, and the terms they are under"
    parser.add_argument("--attribution", default="", metavar="TEXT", help=text)
    text = "licence of the model or of the set, such as cc-by-4.0"
    parser.add_argument("--licence", default="", metavar="TEXT", help=text)
    add_checkpoint(parser)


def _record_options(options: argparse.Namespace) -> dict[str, Any]:
    """What a record is made of, as keyword arguments."""
    from samgan.data import PreparedSet

    return {
        "data": PreparedSet.open(options.data) if options.data else None,
        "documents": given(options, "scores", "audit", "utility"),
        **given(options, "attribution", "licence", "checkpoint"),
    }


def _card(options: argparse.Namespace) -> Outcome:
    from samgan.trust import OPEN, make_form, read_record, write_card
    from samgan.trust.card_form import FILE, read_form

    folder = options.source if options.source.is_dir() else options.source.parent
    if not folder.exists():  # the name of a model
        folder = Path()
    before = read_form(options.out.parent if options.out else folder)
    record = read_record(options.source, **_record_options(options), form=before)
    path = options.out or folder / ("MODEL_CARD.md" if record.is_of_model else "DATA_CARD.md")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder: name a file")
    if before and before.card == path.name and before.is_edited(path.parent) and not options.replace:
        raise SamganError(
            f"{path} was edited by hand since samgan card wrote it: copy your edits to {FILE} or elsewhere, and say "
            "--replace"
        )
    write_card(path, record)
    form = make_form(path.name, record)
    form.write(path.parent / FILE)
    text = f"{path}: {form.left} places marked {OPEN} are left for you to fill in, there or in {FILE}"
    return Outcome({"card": str(path), "open": form.left}, text)


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", type=Path, help=MODEL)
    text = "new folder to write, or one that this command wrote of the same model: then it is brought up to date"
    parser.add_argument("folder", metavar="FOLDER", type=Path, help=text)
    text = "filled-in card of samgan card (default: README.md of FOLDER, else MODEL_CARD.md of RUN, else a new card)"
    parser.add_argument("--card", type=Path, metavar="FILE", help=text)
    _add_record(parser)
    text = "data sets of the Hugging Face Hub that the model was trained on"
    parser.add_argument("--datasets", nargs="+", metavar="OWNER/NAME", default=(), help=text)
    text = "publish although places of the card are open; the card and its tags say that it is a draft"
    parser.add_argument("--draft", action="store_true", help=text)
    text = (
        "upload the folder to this repository of the Hugging Face Hub (needs samgan[hub], and a token: HF_TOKEN, or hf "
        "auth login). A new repository is private: only you, or your organisation, can see it"
    )
    parser.add_argument("--push", default="", metavar="OWNER/NAME", help=text)
    parser.add_argument("--public", action="store_true", help="with --push: let everybody see the repository")


def _publish(options: argparse.Namespace) -> Outcome:
    from samgan.trust import publish

    own = given(options, "card", "datasets", "draft", "push", "public")
    published = publish(options.source, options.folder, **_record_options(options), **own)
    return Outcome(published, published.to_text())


def _add_utility(parser: argparse.ArgumentParser) -> None:
    text = "prepared set with two or more classes and with held-out images"
    parser.add_argument("data", type=Path, help=text)
    text = f"where the synthetic images of a class are, for each class with fewer images or for every class: {IMAGES}"
    parser.add_argument("--synthetic", nargs="+", required=True, metavar="CLASS=SOURCE", help=text)
    parser.add_argument("--out", type=Path, required=True, help="folder for utility.json and utility.html")
    add_classes(parser, "classes that the classifiers tell apart (default: all)")
    add_classifiers(parser, "number of classifiers for each way to train one")
    add_device(parser)


def _utility(options: argparse.Namespace) -> Outcome:
    from samgan.data import PreparedSet
    from samgan.studies import format_utility, utility

    synthetic: dict[str, Path] = {}
    for word in options.synthetic:
        name, _, source = word.partition("=")
        if not name or not source:
            raise UsageError(f"--synthetic {word}: expected CLASS=SOURCE, such as NORMAL=runs/normal")
        if name in synthetic:
            raise UsageError(f"--synthetic {word}: {name}={synthetic[name]} was given already")
        synthetic[name] = Path(source)
    names = ("classes", "seeds", "steps", "device")
    document, page = utility(PreparedSet.open(options.data), synthetic, options.out, **given(options, *names))
    return Outcome(document, f"{format_utility(document)}\n{page}")


COMMANDS = (
    Command("evaluate", "score the images of a model or a folder against real images", _evaluate, _add_evaluate),
    Command("audit", "look for signs that a generator memorised its training images", _audit, _add_audit),
    Command(
        "card",
        "write a model card or a data card from what is recorded; places that a person has to fill in are marked",
        _card,
        _add_card,
    ),
    Command(
        "publish",
        "write a folder to share a model with (card, weights, synthetic images), and upload it to the Hugging Face Hub",
        _publish,
        _add_publish,
    ),
    Command("utility", "test whether synthetic images help a classifier on held-out patients", _utility, _add_utility),
)
