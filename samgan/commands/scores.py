"""Commands that score images and models."""

import argparse
from pathlib import Path
from typing import Any

from samgan.errors import UsageError


def _evaluate(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api
    from samgan.data import PreparedSet
    from samgan.scoring import format_table

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
    from samgan.data import PreparedSet
    from samgan.trust import audit, format_audit

    names = ("count", "classes", "features", "inception_weights", "seed", "checkpoint", "out", "device")
    document, page = audit(
        options.source,
        PreparedSet.open(options.data),
        pictures=not options.no_pictures,
        **{name: getattr(options, name) for name in names},
    )
    if limit is not None:
        shares = [measured.closer.share.value for measured in document.measures.values()]
        options.status = 1 if max(shares) > limit else 0
    return document.to_dict(), f"{format_audit(document)}\n{page}"


def _card(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.data import PreparedSet
    from samgan.trust import OPEN, read_record, write_card

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


def _utility(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.data import PreparedSet
    from samgan.studies import format_utility, utility

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
