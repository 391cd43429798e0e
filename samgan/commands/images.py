"""Commands that make images and say where images came from."""

import argparse
from typing import Any


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


def _export(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api

    document = api.export(options.source, options.out, checkpoint=options.checkpoint)
    return document, f"{options.out}: {document['images_seen'] / 1000:g} kimg, weights {document['sha256'][:12]}"


def _verify(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api
    from samgan.trust import format_findings

    findings = api.verify(options.files, options.source, device=options.device)
    options.status = 0 if all(finding.ok for finding in findings) else 1
    return [finding.to_dict() for finding in findings], format_findings(findings)
