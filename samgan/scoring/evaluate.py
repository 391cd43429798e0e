"""Score generated images against real ones, every number beside what real images score against real images."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import SamganError, UsageError
from samgan.metrics.features import FeatureExtractor, extract
from samgan.metrics.frechet import frechet_distance, frechet_distance_per_batch, kernel_distance
from samgan.metrics.legacy import adjacent_ms_ssim
from samgan.metrics.ms_ssim import PairMean, mean_ms_ssim, pair_mean
from samgan.metrics.prdc import prdc
from samgan.metrics.swd import sliced_wasserstein_distance
from samgan.pages import markdown_table

Images = Tensor | np.ndarray  # uint8 [n c h w], checked when called
Scores = dict[str, Any]

MIN_COUNT = 8
MS_SSIM_PAIRS = 10_000  # that many leave no more of the error than the images themselves bring
THUMBNAIL = 16  # px; a layout has as many values as some hundred images can tell the covariance of
COLLAPSE = "mode collapse"
NO_COLLAPSE = "no sign of mode collapse"
# Row of the table: label, decimals, which direction is better.
ROWS = {
    "frechet": ("Frechet distance", 3, "lower"),
    "kid_x1000": ("KID x 1000", 3, "lower"),
    "precision": ("precision", 3, "higher"),
    "recall": ("recall", 3, "higher"),
    "density": ("density", 3, "higher"),
    "coverage": ("coverage", 3, "higher"),
}


def evaluate(
    *,
    real: Images,
    fake: Images,
    features: FeatureExtractor | None,
    protocol: str = "standard",
    seed: int = 0,
    count: int | None = None,
    skip_reason: str = "no feature extractor was given",
    real_classes: np.ndarray | None = None,
    fake_classes: np.ndarray | None = None,
) -> Scores:
    """Score a set of generated images.

    Scores of distributions depend on the number of images, so all are taken at m = min(count, fakes, reals // 2):
    `value` is m reals against m fakes, `floor` the same m reals against m other reals. A generator that cannot be told
    from the data scores its floor. MS-SSIM takes all images given: their number does not bias a mean over pairs.

    Args:
        real: the images to compare with, the training set or a held-out split.
        fake: the generated images, of the same channels and resolution.
        features: from `samgan.metrics.features.load_features`; None leaves out the scores that need features. For the
            legacy protocol load "imagenet-inception".
        protocol: "standard", or "legacy" for comparison with the numbers of the paper's group only.
        seed: of everything drawn: halves, pairs, patches, directions.
        count: images to use of each set, at most; default all.
        skip_reason: what to say of the scores left out for want of features.
        real_classes: name of each real image's class, to score every class by itself as well.
        fake_classes: the same for the generated ones; they are to be in the proportions of the real ones.

    Returns:
        What scores.json holds: `protocol`, `resolution` (px), `seed`, `count` (m), `counts` of both sets,
        `ms_ssim_real` and `ms_ssim_generated` (mean, low, high, standard_error, pairs), `mode_collapse` (verdict,
        difference, low, high), `features` (name, sha256, dim) or None, and each score as {"value", "floor"}, or None
        and then in `skipped` with its reason. Standard: `frechet`, `kid_x1000`, `precision`, `recall`, `density`,
        `coverage`, and `swd` by level and "mean". Legacy: `frechet` only. With classes: `classes`, all of this by name,
        of the generated against the real images of that class; None where these are too few.

    Raises:
        UsageError: an unknown protocol.
        SamganError: too few images, not uint8, or real and generated ones differ in channels or resolution.

    Source: the rule for mode collapse, generated images more alike than real ones (MG > MR), is the paper's; here the
        difference has to leave its 95 % interval as well.
    """
    real, fake = _tensor(real), _tensor(fake)
    m = check_inputs(real.shape, fake.shape, protocol=protocol, count=count)
    scores: Scores = {
        "protocol": protocol,
        "resolution": real.shape[2],
        "seed": seed,
        "count": m,
        "counts": {"real": len(real), "fake": len(fake)},
        "features": None,
        "skipped": [],
    }
    if features is not None and real_classes is not None:
        features = _remembering(features)
    PROTOCOLS[protocol](scores, real, fake, features, skip_reason)
    if real_classes is not None and fake_classes is not None:
        scores["classes"] = {}
        for name in map(str, np.unique(real_classes)):
            try:
                scores["classes"][name] = evaluate(
                    real=real[real_classes == name],
                    fake=fake[fake_classes == name],
                    features=features,
                    protocol=protocol,
                    seed=seed,
                    skip_reason=skip_reason,
                )
            except SamganError as error:
                scores["classes"][name] = None
                scores["skipped"].append({"score": f"class {name}", "reason": str(error)})
    return scores


def check_inputs(
    real: Sequence[int], fake: Sequence[int], *, protocol: str = "standard", count: int | None = None
) -> int:
    """Refuse what `evaluate` cannot score, by shapes alone: before images are sampled or features are loaded.

    Args:
        real: shape [n c h w] of the real images.
        fake: shape of the generated ones.
        protocol: as for `evaluate`.
        count: as for `evaluate`.

    Returns:
        m, the number of images that `evaluate` will use of each set.

    Raises:
        UsageError: an unknown protocol, or a count that cannot be had.
        SamganError: too few images, or real and generated ones differ in channels or resolution.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol}: expected one of {', '.join(PROTOCOLS)}")
    _check_comparable(real, fake)
    most = min(fake[0], real[0] // 2)
    if count is not None and count > most >= MIN_COUNT:
        raise UsageError(
            f"--count {count}: {most} at most of {fake[0]} generated and {real[0]} real images, "
            "since the floor takes two sets of real ones"
        )
    m = most if count is None else min(count, most)
    if m < MIN_COUNT:
        raise SamganError(
            f"scores need {MIN_COUNT} generated and {2 * MIN_COUNT} real images or more, "
            f"there are {fake[0]} and {real[0]} (count: {count if count is not None else 'all'})"
        )
    return m


def quick_scores(real: Images, fake: Images, *, seed: int = 0) -> dict[str, float]:
    """Score a snapshot in seconds, without a network of features: texture, layout, and likeness of pairs.

    Args:
        real: some real images.
        fake: as many generated ones.
        seed: of pairs, patches and directions.

    Returns:
        `quick_score` (what chooses the best checkpoint: the geometric mean of the next two, which have no scale in
        common; lower is better), `swd` (mean over levels, x 1000; it tells of texture), `thumbnail_frechet` (`frechet`
        of the images averaged to 16x16, per value of a range of 1, x 1000; it tells of layouts and how they vary),
        `ms_ssim_real`, `ms_ssim_generated`, and `ms_ssim_gap`, generated minus real: above 0 is the sign of mode
        collapse. results/plus has what these were at checkpoints that an Inception scored.

    Raises:
        SamganError: the sets are not uint8, differ in shape, hold fewer than three images, or images below 16 px.
    """
    real, fake = _tensor(real), _tensor(fake)
    _check_comparable(real.shape, fake.shape)
    ms_ssim_real, ms_ssim_generated = (mean_ms_ssim(images, seed=seed).mean for images in (real, fake))
    swd = sliced_wasserstein_distance(real, fake, seed=seed)["mean"]
    thumbnails = [F.adaptive_avg_pool2d(images.float() / 255, THUMBNAIL).flatten(1) for images in (real, fake)]
    layout = 1000 * frechet_distance(*thumbnails) / thumbnails[0].shape[1]
    return {
        "quick_score": math.sqrt(swd * layout),
        "swd": swd,
        "thumbnail_frechet": layout,
        "ms_ssim_real": ms_ssim_real,
        "ms_ssim_generated": ms_ssim_generated,
        "ms_ssim_gap": ms_ssim_generated - ms_ssim_real,
    }


def ms_ssim_gaps(
    real: Images, fake: Images, real_classes: np.ndarray, fake_classes: np.ndarray, *, seed: int = 0
) -> dict[str, float]:
    """MS-SSIM of generated less that of real pairs within each class, as `quick_scores` gives it of all.

    Args:
        real: real images.
        fake: generated ones.
        real_classes: name of each real image's class.
        fake_classes: the same for the generated ones.
        seed: of pairs.

    Returns:
        The gap by class, above 0 where generated images are more alike; classes with fewer than three images on either
        side are left out.
    """
    gaps = {}
    for name in np.unique(fake_classes):
        own_fake = _tensor(fake)[fake_classes == name]
        own_real = _tensor(real)[real_classes == name][: len(own_fake)]
        if len(own_real) >= 3:
            means = [mean_ms_ssim(images, seed=seed).mean for images in (own_real, own_fake)]
            gaps[str(name)] = means[1] - means[0]
    return gaps


def format_table(scores: Scores) -> str:
    """Lay out scores as a Markdown table, every score beside its floor, with the features and the verdict named.

    Args:
        scores: from `evaluate`, or read back from scores.json.

    Returns:
        Lines to print.
    """
    generated, real = (_interval(scores[name]) for name in ("ms_ssim_generated", "ms_ssim_real"))
    rows = [("MS-SSIM [95 %]", generated, real, "near the real")]
    for label, (value, floor, better) in _rows(scores).items():
        rows.append((label, value, floor, {"lower": "↓ lower", "higher": "↑ higher"}[better]))
    lines = [*markdown_table(("score", "generated", "real against real (floor)", "better"), rows), ""]
    scored = (scores.get("classes") or {}).items()
    classes = {" ".join(name.replace("|", "/").split()): own for name, own in scored if own}  # a cell of a table
    if classes:
        lines += [*_class_table(classes), ""]
    for what, own in {"Verdict": scores, **{f"Verdict on {name}": own for name, own in classes.items()}}.items():
        if collapse := own["mode_collapse"]:
            lines.append(
                f"{what}: {collapse['verdict']} (MS-SSIM generated - real = {collapse['difference']:+.3f}, "
                f"95 % interval {collapse['low']:+.3f} to {collapse['high']:+.3f})."
            )
    counts = scores["counts"]
    lines.append(
        f"{scores['count']} images a set at {scores['resolution']} px ({counts['fake']} generated and {counts['real']} "
        f"real were given; the floor takes two sets of real ones). Scores compare at equal numbers of images only."
    )
    if data := scores.get("data"):
        lines.append(
            f"Real images: {data['name']}, {data['split']}, {', '.join(data['classes'])}, sha256 {data['sha256']}. The "
            "floor's two sets are drawn by image: a patient of several images may be in both."
        )
    if scores["features"]:
        lines.append(f"Features: {scores['features']['name']}, sha256 {scores['features']['sha256']}.")
    if scores["protocol"] == "standard":
        lines.append("MS-SSIM, which does not depend on the number, is of all that were given.")
    else:
        lines.append(
            "Legacy protocol: compares with the numbers of the paper's group only, with nobody's FID. MS-SSIM of "
            "neighbours in the order of the files; of the real ones, of all that were given."
        )
    reasons: dict[str, list[str]] = {}
    for skipped in scores["skipped"]:
        reasons.setdefault(skipped["reason"], []).append(skipped["score"])
    lines += [f"Skipped: {', '.join(names)} ({reason})." for reason, names in reasons.items()]
    return "\n".join(lines) + "\n"


def _rows(scores: Scores) -> dict[str, tuple[str, str, str]]:
    """Each score that there is by its label: value, floor, and which direction is better."""
    rows = {ROWS[name]: scores[name] for name in ROWS if scores.get(name)}
    if scores["features"] and scores["features"]["name"] == "inception":
        fid = ("FID", 2, "lower")  # no other features make it one
        rows = {fid if row == ROWS["frechet"] else row: score for row, score in rows.items()}
    for level, score in (scores.get("swd") or {}).items():
        rows["SWD x 1000, mean" if level == "mean" else f"SWD x 1000 at {level} px", 2, "lower"] = score
    return {
        label: (_number(score["value"], decimals), _number(score["floor"], decimals), better)
        for (label, decimals, better), score in rows.items()
    }


def _class_table(classes: dict[str, Scores]) -> list[str]:
    """A line per class: how many images a set, and each score with its floor in brackets."""
    lines: list[dict[str, str]] = []
    for name, scores in classes.items():
        real, generated = (scores[key] for key in ("ms_ssim_real", "ms_ssim_generated"))
        cells = {"class": name, "images a set": str(scores["count"])}
        cells["MS-SSIM (real)"] = f"{generated['mean']:.3f} ({real['mean']:.3f})" if real else "-"
        rows = _rows(scores).items()
        cells |= {f"{label} (floor)": f"{value} ({floor})" for label, (value, floor, _) in rows if " px" not in label}
        lines.append(cells)
    titles = list(dict.fromkeys(title for cells in lines for title in cells))
    return markdown_table(titles, [[cells.get(title, "-") for title in titles] for cells in lines])


def _standard(scores: Scores, real: Tensor, fake: Tensor, features: FeatureExtractor | None, skip_reason: str) -> None:
    """Fill in the scores of the standard protocol."""
    m, seed = scores["count"], scores["seed"]
    # Random, since files often lie in order of class or patient; a prefix of one order, so one cache serves every m.
    all_real, all_fake = real, fake
    drawn_real, drawn_fake = (_order(len(images), seed) for images in (real, fake))
    real, fake = real[drawn_real[: 2 * m]], fake[drawn_fake[:m]]
    first, second = real[:m], real[m:]

    def swd() -> Scores:
        value, floor = (sliced_wasserstein_distance(first, other, seed=seed) for other in (fake, second))
        return {level: {"value": value[level], "floor": floor[level]} for level in value}

    def ms_ssim() -> tuple[PairMean, PairMean]:
        means = [mean_ms_ssim(images, pairs=MS_SSIM_PAIRS, seed=seed) for images in (all_real, all_fake)]
        return means[0], means[1]

    _add_ms_ssim(scores, ms_ssim)
    _add(scores, ["swd"], lambda: {"swd": swd()})
    if features is None:
        scores |= dict.fromkeys(ROWS)
        scores["skipped"] += [{"score": name, "reason": skip_reason} for name in ROWS]
        return
    features_real = extract(features, real)
    # The next evaluation brings other fakes: keeping their features would only fill the disk.
    features_fake = extract(features, fake, cache=False)
    features_first, features_second = features_real[:m], features_real[m:]
    scores["features"] = _describe(features)
    for name, distance in {"frechet": frechet_distance, "kid_x1000": lambda a, b: 1000 * kernel_distance(a, b)}.items():
        scores[name] = {
            "value": distance(features_first, features_fake),
            "floor": distance(features_first, features_second),
        }
    values, floors = (prdc(features_first, other)._asdict() for other in (features_fake, features_second))
    scores |= {name: {"value": values[name], "floor": floors[name]} for name in values}


def _legacy(scores: Scores, real: Tensor, fake: Tensor, features: FeatureExtractor | None, skip_reason: str) -> None:
    """Fill in the scores of the legacy protocol, which goes by the order of the files."""
    m = scores["count"]

    def ms_ssim() -> tuple[PairMean, PairMean]:
        def mean(images: Tensor) -> PairMean:
            adjacent = torch.stack([torch.arange(len(images) - 1), torch.arange(1, len(images))], dim=1)
            return pair_mean(adjacent_ms_ssim(images), adjacent)

        return mean(real), mean(fake[:m])  # all real ones: the first m may be of one class

    _add_ms_ssim(scores, ms_ssim)
    if features is None:
        scores["frechet"] = None
        scores["skipped"].append({"score": "frechet", "reason": skip_reason})
        return
    # Halves drawn at random, each left in file order: the first and the last files may be of different classes.
    order = _order(len(real), scores["seed"])
    first, second = (extract(features, real[half.sort().values]) for half in (order[:m], order[m : 2 * m]))
    features_fake = extract(features, fake[:m], cache=False)
    scores["features"] = _describe(features)

    def frechet() -> Scores:
        value, floor = (frechet_distance_per_batch(first, other) for other in (features_fake, second))
        return {"frechet": {"value": value, "floor": floor}}

    _add(scores, ["frechet"], frechet)


PROTOCOLS = {"standard": _standard, "legacy": _legacy}


def _add(scores: Scores, names: list[str], compute: Callable[[], Scores]) -> None:
    """Add what `compute` returns, or say why these scores cannot be had of such images."""
    try:
        scores |= compute()
    except SamganError as error:
        scores |= dict.fromkeys(names)
        scores["skipped"] += [{"score": name, "reason": str(error)} for name in names]


def _add_ms_ssim(scores: Scores, compute: Callable[[], tuple[PairMean, PairMean]]) -> None:
    """Add MS-SSIM of both sets and the verdict on mode collapse."""

    def ms_ssim() -> Scores:
        real, generated = compute()
        difference = generated.mean - real.mean
        degrees = scores["count"] - 1
        half = float(special.stdtrit(degrees, 0.975)) * (real.standard_error**2 + generated.standard_error**2) ** 0.5
        verdict = COLLAPSE if difference - half > 0 else NO_COLLAPSE
        bounds = {"difference": difference, "low": difference - half, "high": difference + half}
        return {
            "ms_ssim_real": real._asdict(),
            "ms_ssim_generated": generated._asdict(),
            "mode_collapse": {"verdict": verdict, **bounds},
        }

    _add(scores, ["ms_ssim_real", "ms_ssim_generated", "mode_collapse"], ms_ssim)


def _remembering(features: FeatureExtractor) -> FeatureExtractor:
    """The same features, computed once for every image, however many sets it is in."""
    known: dict[bytes, Tensor] = {}

    def network(images: Tensor) -> Tensor:
        names = [hashlib.sha256(image.cpu().numpy().tobytes()).digest() for image in images]
        new = [number for number, name in enumerate(names) if name not in known]
        if new:
            known.update(zip((names[number] for number in new), features(images[new]), strict=True))
        return torch.stack([known[name] for name in names])

    own = {name: getattr(features, name) for name in ("name", "sha256", "device", "dim")}
    return FeatureExtractor(network, **own)


def _order(length: int, seed: int) -> Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


def _describe(features: FeatureExtractor) -> Scores:
    return {"name": features.name, "sha256": features.sha256, "dim": features.dim}


def _interval(mean: Scores | None) -> str:
    return f"{mean['mean']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]" if mean else "-"


def _number(value: float, decimals: int) -> str:
    """Fixed decimals, so that a column compares at a glance, unless they would say nothing or run on."""
    return f"{value:.4g}" if 0 < abs(value) < 10**-decimals or abs(value) >= 1e6 else f"{value:.{decimals}f}"


def _tensor(images: Images) -> Tensor:
    if images.ndim != 4 or images.dtype not in (torch.uint8, np.uint8):
        raise SamganError(f"expected uint8 images [n c h w], got {images.dtype} {list(images.shape)}")
    # np.require copies read-only arrays (memory maps), which torch would warn about.
    return images if isinstance(images, Tensor) else torch.from_numpy(np.require(images, requirements=["C", "W"]))


def _check_comparable(real: Sequence[int], fake: Sequence[int]) -> None:
    def say(shape: Sequence[int]) -> str:
        _, c, h, w = shape
        return f"{w}x{h} px with {c} channel{'s' if c > 1 else ''}"

    if tuple(real[1:]) != tuple(fake[1:]):
        raise SamganError(
            f"the real images are {say(real)}, the generated ones {say(fake)}: bring both to one shape first"
        )
