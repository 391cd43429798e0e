"""Commands that make prepared sets."""

import argparse
from typing import TYPE_CHECKING, Any

from samgan.errors import UsageError

if TYPE_CHECKING:
    from samgan.data import PreparedSet


BAD_FILES_SHOWN = 20


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
    return prepared.info.to_dict(), _describe_set(prepared)


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
    return prepared.info.to_dict(), _describe_set(prepared)


def _describe_set(prepared: "PreparedSet") -> str:
    info = prepared.info.to_dict()
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
