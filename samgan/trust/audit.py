"""Whether a generator gives its training patients back: what can be seen of it, and how far that goes.

Every number stands beside what held-out real images, of patients nobody trained on, give in its place. docs/audit.md
says what each means and what it does not show.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from samgan import __version__
from samgan.config import Config, NetworkConfig
from samgan.data import PreparedSet
from samgan.data.images import image_files, load_images
from samgan.devices import choose_device, keep_freed_memory
from samgan.errors import SamganError, UsageError
from samgan.files import write_json
from samgan.metrics.features import extract, find_features
from samgan.metrics.intervals import share_of
from samgan.metrics.memorisation import PERCENTILE, Sign, closer_than_held_out, membership_auc, nearest_is_training
from samgan.metrics.mirrored import count_mirrored, fit_sides
from samgan.metrics.nearest import ALIKE, Nearest, first_alike, nearest_features, nearest_image
from samgan.metrics.planted import CHANGES, changed_copies
from samgan.networks import Discriminator, image_pyramid
from samgan.pages import markdown_table, picture
from samgan.pages.legacy import section, table, text, write_page
from samgan.pictures import from_uint8, to_uint8
from samgan.runs import Run, choose_checkpoint
from samgan.sampling import SEEDS, check_origin, is_model, labels_like, model_of, open_model, sample

LEAST = 8
ENOUGH_HELD_OUT = 99
"""Held-out images, below which there is no 1st percentile."""
PLANTED = 100
PAIRS_SHOWN, HELD_OUT_PAIRS_SHOWN = 16, 8
JUDGED = 64  # images of one pass of the discriminator, about
NO_PROOF = (
    "That does not prove that no patient can be recognised: copies that were changed more than the planted ones that "
    "are found, parts of images, and what the network knows without showing it are not looked for."
)
CLOSE_IS_NO_COPY = (
    "Closeness is no proof of a copy: smooth images are close to everything, and a few layouts repeated are close to "
    "the same few patients. Look at the pairs."
)
PICTURES = (
    "This page contains REAL training and held-out images. Share it as the data's terms allow, and not otherwise."
)
NO_PICTURES = "This page contains no images, but numbers of training images. Keep it as the data is kept."
PAIR = "A SYNTHETIC image (left) beside a REAL training image (right)."
REAL_PAIR = "A REAL held-out image (left) beside a REAL training image (right)."


def audit(
    source: str | Path,
    data: PreparedSet,
    *,
    count: int | None = None,
    classes: Sequence[str] = (),
    features: str | None = None,
    inception_weights: Path | None = None,
    seed: int = 0,
    checkpoint: str = "newest",
    out: str | Path | None = None,
    device: str = "auto",
    pictures: bool = True,
) -> tuple[dict[str, Any], Path]:
    """Look for signs that synthetic images repeat training images; write audit.json and audit.html.

    Args:
        source: A run folder, a file of `samgan export`, a folder of images or of samples.npz, a .npz or a .npy.
        data: The prepared set that the generator was trained on, with its held-out split.
        count: Synthetic images to look at; default: of a model as many as there are training images, else all.
        classes: Real images of these classes; default: the run's.
        features: "inception" or a module file; default: the standard Inception, if it can be had.
        inception_weights: A file of the Inception's weights, where there is no network.
        seed: Of samples and of what is drawn.
        checkpoint: "newest", "best" or a file, of a run.
        out: Where to write; default: the run, the folder of images, or beside the file.
        device: Where networks run.
        pictures: Whether the page shows the closest pairs, and so real images.

    Returns:
        What audit.json holds, and the page. `pixels` and `features` (or None) hold two signs each: `closer` and
        `nearest_is_training`, with `share`, `expected` (value, low, high) and `found`; also `planted`: which share of
        changed copies of training images would have been found, and `pairs`: the closest ones, all that count as close
        among them. `membership` is the discriminator's AUC, `mirrored` and `alike` are shares of synthetic beside real
        images, `signs` the names of what was found, `verdict` a sentence, `notes` and `skipped` what to know of it.

    Raises:
        UsageError: The generator was trained on other data, or what is asked for cannot be had.
        SamganError: Too few images, or images of another shape.
    """
    keep_freed_memory()
    source, target = Path(source), choose_device(device)
    if count is not None and count < LEAST:
        raise UsageError(f"--count {count}: expected {LEAST} or more")
    if not 0 <= seed <= SEEDS - (count or len(data.images)):
        raise UsageError(f"--seed {seed}: expected 0 to 2^32 - {count or len(data.images)}")
    folder = Path(out) if out else source if source.is_dir() else source.with_name(f"{source.stem}-audit")
    data.verify()
    opened = _Opened(source, data, checkpoint, target)
    classes = tuple(classes) or (opened.config.data.classes if opened.config else ())
    if opened.model and opened.model.classes:
        opened.model.require_classes(classes)
    training, held_out = (_Real(data, data.indices(split, classes)) for split in ("train", "holdout"))
    all_held_out = len(held_out.images)
    held_out = held_out.with_shares_of(training)
    if min(len(training.images), len(held_out.images)) < LEAST:
        raise SamganError(
            f"an audit compares with {LEAST} training and {LEAST} held-out images or more, {data.path} has "
            f"{len(training.images)} and {len(held_out.images)}: samgan prepare --holdout"
        )
    fake = opened.images(count, training, seed)
    if fake.shape[1:] != training.images.shape[1:] or len(fake) < LEAST:
        raise SamganError(
            f"{source}: expected {LEAST} images or more of {list(training.images.shape[1:])} as in {data.path}, got "
            f"{list(fake.shape)}"
        )
    document: dict[str, Any] = {
        "samgan": __version__,
        "seed": seed,
        "generated": opened.described,
        "data": {
            "name": data.path.resolve().name,
            "sha256": data.sha256,
            "split_by": data.info.split_by,
            "classes": list(classes or data.classes),
        },
        "counts": {
            "synthetic": len(fake),
            **{name: {"images": len(real.images), "patients": len(set(real.patients))}
               for name, real in (("training", training), ("held_out", held_out))},
        },
        "skipped": [],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)  # before the long part: a place that cannot be written is told now
    extractor, reason = find_features(features, inception_weights=inception_weights, device=target)
    if extractor is None:
        document["skipped"].append({"what": "nearest images by features", "reason": reason})
    planted = {name: changed_copies(training.some(PLANTED), name, seed=seed) for name in CHANGES}
    patients = training.patients, held_out.patients

    def pairs(closest: tuple[Nearest, Nearest], close: int) -> dict[str, Any]:
        """The closest pairs of one measure; all that count as close, for whoever wants to leave them out."""
        of_fake, of_held_out = closest
        return {
            "pairs": _pairs(of_fake, max(PAIRS_SHOWN, close), training, opened.name),
            "held_out_pairs": _pairs(
                of_held_out, HELD_OUT_PAIRS_SHOWN, training, lambda index: f"row {held_out.indices[index]}"
            ),
        }

    measured, closest = _measure(nearest_image, fake, training.images, held_out.images, planted, patients, seed)
    measure = "1 - correlation at half resolution, moved by up to a pixel, and mirrored"
    measured |= pairs(closest, measured["closer"]["count"])
    document |= {"pixels": {"measure": measure, **measured}, "features": None}
    if extractor is not None:
        # Other synthetic images and copies come next time: keeping their features would only fill the disk.
        of_fake, *of_planted = (extract(extractor, images, cache=False) for images in (fake, *planted.values()))
        of_training, of_held_out = (extract(extractor, real.images) for real in (training, held_out))
        copies = dict(zip(planted, of_planted, strict=True))
        measured, closest = _measure(nearest_features, of_fake, of_training, of_held_out, copies, patients, seed)
        measured |= pairs(closest, measured["closer"]["count"])
        described = {"name": extractor.name, "sha256": extractor.sha256, "dim": extractor.dim}
        document["features"] = {"measure": "Euclidean distance of features", **described, **measured}
    document["membership"] = None
    try:
        document["membership"] = _membership(opened, training, held_out, fake, seed, target)
    except SamganError as error:
        document["skipped"].append({"what": "membership by the discriminator", "reason": str(error)})
    document["mirrored"] = _mirrored(fake, training, held_out, opened.config)
    document["alike"] = _alike(fake, training.images, seed)
    document["notes"] = _notes(data, training, held_out, opened, classes)
    if len(held_out.images) < all_held_out:
        document["notes"].append(
            f"{len(held_out.images)} of {all_held_out} held-out images are looked at: as many of each class as give "
            "classes the shares that they have among the training images. Class by class (--classes NAME) all are."
        )
    document["signs"] = _signs(document)
    document["verdict"] = _verdict(document)
    page = folder / "audit.html"
    images = {"pairs": fake, "held_out_pairs": held_out.images} if pictures else None
    _write_page(page, document, images, data)
    write_json(folder / "audit.json", document)
    return document, page


class _Real:
    """One split of the real images, with the patient of each."""

    def __init__(self, data: PreparedSet, indices: Int[np.ndarray, " n"]) -> None:
        self.data, self.indices = data, indices
        self.images = torch.from_numpy(np.asarray(data.images[self.indices]))
        self.patients = [data.manifest[i].patient for i in self.indices]

    def with_shares_of(self, other: "_Real") -> "_Real":
        """As many images as can be had with the classes in the shares of `other`.

        Where the shares differ, class alone would tell training images from held-out ones, and have synthetic images of
        a class nearer to the split that has more of it.
        """
        wanted, own = other.by_class(), self.by_class()
        shared = sorted(set(wanted) & set(own))
        times = min((len(own[name]) / len(wanted[name]) for name in shared), default=0)
        chosen = [_evenly(own[name], round(times * len(wanted[name]))) for name in shared]
        return _Real(self.data, np.sort(np.concatenate([*chosen, np.array([], int)])))

    def by_class(self) -> dict[str, list[int]]:
        """Places in the set by class."""
        found: dict[str, list[int]] = {}
        for index in self.indices:
            found.setdefault(self.data.manifest[index].class_name, []).append(int(index))
        return found

    def labels(self, config: Config) -> Int[Tensor, " n"]:
        """Of each image its class, for a model told of classes."""
        return torch.from_numpy(self.data.labels(config.data.classes)[self.indices])

    def some(self, count: int) -> UInt8[Tensor, "n c h w"]:
        """Evenly spaced ones, since files lie in order of class and patient."""
        return self.images[_evenly(range(len(self.images)), min(count, len(self.images)))]


def _evenly(values: Sequence[int], count: int) -> Int[np.ndarray, " n"]:
    return np.array(values, dtype=int)[np.arange(count) * len(values) // max(count, 1)]


class _Opened:
    """Where the synthetic images come from."""

    def __init__(self, source: Path, data: PreparedSet, checkpoint: str, device: str) -> None:
        self.source, self.run, self.model, self.state = source, None, None, None
        self.described: dict[str, Any] = {"name": source.resolve().name}
        self.notes: list[str] = []
        if (source / "config.json").is_file():
            self.run = Run.open(source)
            self.state = choose_checkpoint(self.run, checkpoint)
            self.model = model_of(self.run, self.state, checkpoint, device)
        elif checkpoint != "newest":
            raise UsageError(f"--checkpoint {checkpoint}: {source} is not a run")
        elif is_model(source):
            self.model = open_model(source, device=device)
        if self.model:
            self.notes = check_origin(self.model, source, data)
            self.described |= {
                "preset": self.model.config.preset,
                "images_seen": self.model.images_seen,
                "model_sha256": self.model.sha256,
            }
        self.config: Config | None = self.model.config if self.model else None
        self.name: Callable[[int], str] = lambda index: f"image {index}"

    def images(self, count: int | None, training: _Real, seed: int) -> UInt8[Tensor, "n c h w"]:
        """The synthetic images; `name` tells them apart from then on."""
        if self.model:
            self.name = lambda index: f"seed {seed + index}"
            seeds, labels = range(seed, seed + (count or len(training.images))), None
            if self.model.classes:
                labels = labels_like(training.labels(self.model.config).numpy(), len(seeds))
            return to_uint8(sample(self.model, seeds, labels))
        images = load_images(self.source)
        chosen = torch.arange(len(images))
        if count is not None and count < len(images):
            chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count].sort().values
        files = []
        if self.source.is_dir():
            files = [file.name for file in image_files(self.source)]
        self.name = lambda index: files[chosen[index]] if len(files) == len(images) else f"image {int(chosen[index])}"
        return images[chosen]


def _measure(
    nearest: Callable[[Tensor, Tensor], Nearest],
    fake: Tensor,
    training: Tensor,
    held_out: Tensor,
    planted: dict[str, Tensor],
    patients: tuple[list[str], list[str]],
    seed: int,
) -> tuple[dict[str, Any], tuple[Nearest, Nearest]]:
    """Both signs of one kind of nearness, of images or features, and what they would have seen."""
    of_fake, of_held_out = nearest(fake, training), nearest(held_out, training)
    closer = closer_than_held_out(of_fake.distance, of_held_out.distance, groups=patients[1])
    pulled = nearest_is_training(of_fake, nearest(fake, held_out), *patients, seed=seed)
    found = {name: nearest(copies, training).distance < closer.threshold for name, copies in planted.items()}
    document = {
        "closer": _described(closer),
        "nearest_is_training": _described(pulled),
        "planted": {name: float(hit.double().mean()) for name, hit in found.items()},
        "distances": {
            name: dict(zip(("least", "1 %", "median"), _quantiles(values.distance), strict=True))
            for name, values in (("synthetic", of_fake), ("held_out", of_held_out))
        },
    }
    return document, (of_fake, of_held_out)


def _quantiles(values: Tensor) -> list[float]:
    return torch.quantile(values.double(), torch.tensor([0, 0.01, 0.5], dtype=torch.double)).tolist()


def _described(sign: Sign) -> dict[str, Any]:
    document = {"share": sign.share._asdict(), "expected": sign.expected._asdict(), "count": sign.count}
    if math.isfinite(sign.threshold):
        document["threshold"] = sign.threshold
    return {**document, "found": sign.found}


def _membership(
    opened: _Opened, training: _Real, held_out: _Real, fake: Tensor, seed: int, device: str
) -> dict[str, Any]:
    """Whether the discriminator's logits tell training images from held-out ones."""
    if opened.state is None or opened.config is None:
        raise SamganError(f"{opened.source.name} is no run folder: only a run's checkpoints hold the discriminator")
    if not opened.state.discriminator_weights:
        raise SamganError("the checkpoint holds no discriminator")
    discriminator = Discriminator(opened.config.network)
    discriminator.load_state_dict(opened.state.discriminator_weights)
    discriminator.eval().requires_grad_(False).to(device)
    draw = np.random.default_rng(seed)
    kinds = training, held_out
    told = bool(opened.config.network.num_classes)
    labels = [real.labels(opened.config) if told else torch.zeros(len(real.images)) for real in kinds]
    patients: list[list[str]] = [[], []]
    logits: list[list[Tensor]] = [[], []]
    for label in sorted(set(labels[0].tolist()) & set(labels[1].tolist())):
        places = [np.flatnonzero(of_kind.numpy() == label) for of_kind in labels]
        count = min(map(len, places))
        chosen = [draw.permutation(own)[:count] for own in places]
        members, others = (real.images[index] for real, index in zip(kinds, chosen, strict=True))
        found = judge(discriminator, opened.config, members, others, fake, int(label) if told else None)
        for k, real in enumerate(kinds):
            logits[k].append(found[k])
            patients[k] += [real.patients[i] for i in chosen[k]]
    if not logits[0]:
        raise SamganError("no class has both training and held-out images")
    of_members, of_others = (torch.cat(parts).numpy() for parts in logits)
    auc = membership_auc(of_members, of_others, *patients)
    return {"auc": auc._asdict(), "images": len(of_members), "found": auc.low > 0.5}


@torch.inference_mode()
def judge(
    discriminator: Discriminator,
    config: Config,
    members: UInt8[Tensor, "n c h w"],
    others: UInt8[Tensor, "n _ _ _"],
    fill: UInt8[Tensor, "m _ _ _"],
    label: int | None = None,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The discriminator's logits of training and of held-out images, none of which knows its image's kind.

    A logit depends through the minibatch standard deviation on the images beside its own. So every group of that
    statistic holds as many training as held-out images, in random order of both sets: the statistic of a group is then
    the same for both kinds, and nothing but the image itself can tell them apart. A group of an odd size is made full
    with a synthetic image, whose logit is not looked at.

    Args:
        discriminator: The run's, on any device.
        config: Of the run.
        members: Training images.
        others: As many held-out images.
        fill: Synthetic images.
        label: Class of all these images, where the discriminator is told of classes.
    """
    network = config.network
    size = max(2, _group_size(network, config.training.batch_size))
    half = size // 2
    groups = -(-len(members) // half)
    index = torch.arange(groups * half) % len(members)  # the last group begins anew
    at_once = max(1, JUDGED // size)
    device = next(discriminator.parameters()).device
    logits: list[list[Tensor]] = [[], []]
    for some in index.view(groups, half).split(at_once):
        kinds = [members[some], others[some]]
        if size % 2:
            kinds.append(fill[:1].expand(len(some), 1, *fill.shape[1:]))
        batch = from_uint8(torch.cat(kinds, dim=1).flatten(0, 1)).to(device)
        own = None if label is None else torch.full((len(batch),), label, device=device)
        judged = discriminator(image_pyramid(batch, network.resolutions), own, batches=len(some)).float().cpu()
        judged = judged.view(len(some), size)
        logits[0].append(judged[:, :half].flatten())
        logits[1].append(judged[:, half : 2 * half].flatten())
    of_members, of_others = (torch.cat(parts)[: len(members)] for parts in logits)
    return of_members, of_others


def _group_size(network: NetworkConfig, batch_size: int) -> int:
    """Images that share a minibatch standard deviation."""
    return network.minibatch_std_group or max(1, batch_size // (network.num_classes or 1))


def _mirrored(fake: Tensor, training: _Real, held_out: _Real, config: Config | None) -> dict[str, Any]:
    weights = fit_sides(training.images)
    shares = {
        name: share_of(count_mirrored(weights, images), len(images))._asdict()
        for name, images in (("synthetic", fake), ("held_out", held_out.images))
    }
    return {**shares, "trained_with_flips": config.data.flip != "none" if config else None}


def _alike(fake: Tensor, real: Tensor, seed: int) -> dict[str, Any]:
    """How many images are like an earlier one, of equally many synthetic and training images."""
    count = min(len(fake), len(real))
    drawn = [
        images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]]
        for images in (fake, real)
    ]
    shares = []
    for images in drawn:
        repeated = int((first_alike(images) != torch.arange(count)).sum())
        shares.append(share_of(repeated, count)._asdict())
    return {"distance": ALIKE, "images": count, "synthetic": shares[0], "training": shares[1]}


def _notes(data: PreparedSet, training: _Real, held_out: _Real, opened: _Opened, classes: Sequence[str]) -> list[str]:
    """What the reader has to know to judge the numbers."""
    notes = list(opened.notes)
    n, patients = len(held_out.images), len(set(held_out.patients))
    if alone := sorted(set(training.by_class()) - set(held_out.by_class())):
        notes.append(f"No image of {', '.join(alone)} is held out: nothing can be compared with them.")
    if n < ENOUGH_HELD_OUT:
        notes.append(
            f"Only {n} images are held out: the closest one of them is the threshold, not the 1st percentile. That "
            f"takes {ENOUGH_HELD_OUT}, and some thousand for a narrow interval."
        )
    if not data.info.split_by.startswith("patient"):
        notes.append(
            f"The split is by {data.info.split_by}, not by patient: a patient may be on both sides, held-out images "
            "are then closer to training images than a new patient's, and copies are found more rarely."
        )
    elif data.info.matched_share is not None and data.info.matched_share < 1:
        notes.append(
            "Of some images the patient is not known: held-out ones may show patients trained on, and copies are then "
            "found more rarely."
        )
    if both := data.info.groups_on_both_sides:
        notes.append(f"{both} patients, or groups of near duplicates, are on both sides of the source's own split.")
    if n > patients:
        notes.append(f"{n} held-out images show {patients} patients; intervals take images of one patient together.")
    if opened.config is None:
        notes.append(
            f"Which images {opened.described['name']} was made from is not known here: the training split of "
            f"{data.path.resolve().name} is taken for it."
        )
    else:
        trained = set(opened.config.data.classes or data.classes)
        if left_out := sorted(trained - set(classes or data.classes)):
            notes.append(f"It was trained on {', '.join(left_out)} as well: copies of those images are not looked for.")
        if opened.config.data.flip != "none":
            notes.append(
                "It was trained with flips: half of what it learnt from had the heart on the wrong side, so mirrored "
                "images are what it was taught, and mirrored copies count as copies."
            )
    if opened.run and (start := opened.run.environment.start):
        notes.append(f"It began with the networks of {start.run}, whose training images are not looked for.")
    return notes


def _signs(document: dict[str, Any]) -> list[str]:
    """Names of what was found."""
    signs = [
        f"{space}.{name}"
        for space in ("pixels", "features")
        if document[space]
        for name in ("closer", "nearest_is_training")
        if document[space][name]["found"]
    ]
    return signs + (["membership"] if document["membership"] and document["membership"]["found"] else [])


def _percent(share: dict[str, float]) -> str:
    return f"{100 * share['value']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _closer(sign: dict[str, Any]) -> str:
    """What the sign counts; the 1st percentile needs some images."""
    few = sign["expected"]["value"] > PERCENTILE
    return f"closer to a training image than {'all' if few else '99 % of'} held-out ones are"


def _spaces(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The measures that were taken, by what to call them."""
    names = {"pixels": "in pixels", "features": "by features"}
    return {label: document[space] for space, label in names.items() if document[space]}


def _verdict(document: dict[str, Any]) -> str:
    """What was found and what that does not prove, in some sentences."""
    close: list[str] = []
    not_close: list[str] = []
    pulled: list[str] = []
    for label, measured in _spaces(document).items():
        closer, nearest = measured["closer"], measured["nearest_is_training"]
        low, high = (100 * closer["expected"][bound] for bound in ("low", "high"))
        (close if closer["found"] else not_close).append(
            f"{closer['count']} images ({_percent(closer['share'])}) are {_closer(closer)}, {label}, where "
            f"{low:.1f} to {high:.1f} % of new real images would be"
        )
        if nearest["found"]:
            expected = nearest["expected"]
            pulled.append(
                f"of {_percent(nearest['share'])} the nearest real image is a training image, {label}, and training "
                f"images are {100 * expected['value']:.1f} % of the real ones (up to {100 * expected['high']:.1f} % "
                "by chance)"
            )
    if close:
        words = f"Signs of memorisation: {'; '.join([*close, *pulled])}. {CLOSE_IS_NO_COPY}"
    elif pulled:
        words = f"A trace of the training images, no copies seen: {'; '.join([*pulled, *not_close])}. {NO_PROOF}"
    else:
        words = f"No sign of memorisation: {'; '.join(not_close)}. {NO_PROOF}"
    if membership := document["membership"]:
        auc = membership["auc"]
        area = f"AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]"
        if membership["found"]:
            words += (
                f" The discriminator tells training images from held-out ones ({area}): whoever has the checkpoint "
                "can tell to that extent who was trained on. An exported generator holds no discriminator."
            )
        else:
            words += f" The discriminator does not tell training images from held-out ones ({area})."
    return words


def _table(document: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What was looked at, the synthetic images', what to expect, and whether it is a sign."""
    word = {True: "sign", False: "no sign"}
    rows = []
    for label, measured in _spaces(document).items():
        titles = {
            "closer": _closer(measured["closer"]),
            "nearest_is_training": "nearest real image is a training image",
        }
        for name, title in titles.items():
            sign = measured[name]
            rows.append((f"{title}, {label}", _percent(sign["share"]), _percent(sign["expected"]), word[sign["found"]]))
    if membership := document["membership"]:
        auc = membership["auc"]
        value = f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]"
        rows.append(("discriminator: AUC, training against held-out", value, "0.500", word[membership["found"]]))
    mirrored, alike = document["mirrored"], document["alike"]
    rows.append(
        ("heart on the wrong side", _percent(mirrored["synthetic"]), f"held-out {_percent(mirrored['held_out'])}", "-")
    )
    rows.append(
        (
            f"like an earlier one (correlation above {1 - alike['distance']:g}), of {alike['images']}",
            _percent(alike["synthetic"]),
            f"training {_percent(alike['training'])}",
            "-",
        )
    )
    return rows


HEADER = ("what", "synthetic [95 %]", "to expect [95 %]", "")


def format_audit(document: dict[str, Any]) -> str:
    """The table and the sentences that `samgan audit` prints."""
    lines = markdown_table(HEADER, _table(document))
    return "\n".join([*lines, "", document["verdict"], *_remarks(document)]) + "\n"


def _remarks(document: dict[str, Any]) -> list[str]:
    counts, data = document["counts"], document["data"]
    real = (
        f"{counts[name]['images']} {word} images ({counts[name]['patients']} patients)"
        for name, word in (("training", "training"), ("held_out", "held-out"))
    )
    remarks = [
        f"{counts['synthetic']} synthetic images beside {' and '.join(real)} of {data['name']}, "
        f"{', '.join(data['classes'])}, split by {data['split_by']}."
    ]
    for label, measured in _spaces(document).items():
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in measured["planted"].items())
        remarks.append(f"Of planted copies of training images it would have found, {label}: {shares}.")
    remarks += document["notes"]
    return remarks + [f"Skipped: {skipped['what']} ({skipped['reason']})." for skipped in document["skipped"]]


def _pairs(nearest: Nearest, count: int, training: _Real, name: Callable[[int], str]) -> list[dict[str, Any]]:
    """The `count` closest of them, closest first."""
    order = nearest.distance.argsort(stable=True)[:count].tolist()
    return [
        {
            "place": index,
            "image": name(index),
            "training": int(training.indices[nearest.index[index]]),
            "mirrored": bool(nearest.mirrored[index]),
            "distance": float(nearest.distance[index]),
        }
        for index in order
    ]


def _write_page(path: Path, document: dict[str, Any], images: dict[str, Tensor] | None, data: PreparedSet) -> None:
    names = list(next(iter(_spaces(document).values()))["planted"])
    planted = [
        (name, *(f"{100 * measured['planted'][name]:.0f} %" for measured in _spaces(document).values()))
        for name in names
    ]
    banner = ' class="banner"' if document["signs"] else ""
    verdict = f"<p{banner}><strong>{text(document['verdict'])}</strong></p>"
    sections = [
        section("Result", verdict + table(HEADER, _table(document))),
        section("What to know of it", "".join(f"<p>{text(line)}</p>" for line in _remarks(document))),
        section(
            "Copies of training images that this would have found",
            "<p>Training images were changed as a generator might change them, and looked up like synthetic ones. What "
            "is not found here would not be found of a generator either.</p>"
            + table(("change", *_spaces(document)), planted),
        ),
    ]
    for label, measured in _spaces(document).items():
        headings = {
            "pairs": (f"The synthetic images closest to a training image, {label}", PAIR),
            "held_out_pairs": (f"For comparison: held-out images, of other patients, {label}", REAL_PAIR),
        }
        for key, (heading, description) in headings.items():
            shown = measured[key][:PAIRS_SHOWN]
            sections.append(_pair_section(heading, description, shown, images[key] if images else None, data))
    title = f"samgan audit: {document['generated']['name']}"
    write_page(path, title, sections, [PICTURES if images else NO_PICTURES, "For research only. Not for diagnosis."])


def _pair_section(
    heading: str, description: str, pairs: list[dict[str, Any]], images: Tensor | None, data: PreparedSet
) -> str:
    if images is None:
        rows = [
            (p["image"], str(p["training"]), "yes" if p["mirrored"] else "no", f"{p['distance']:.4f}") for p in pairs
        ]
        return section(heading, table(("image", "training image (row of the manifest)", "mirrored", "distance"), rows))
    figures = []
    for pair in pairs:
        real = torch.from_numpy(np.array(data.images[pair["training"]]))
        shown = torch.stack([images[pair["place"]], real.flip(-1) if pair["mirrored"] else real])
        turned = ", mirrored to compare" if pair["mirrored"] else ""
        caption = f"Training image: row {pair['training']} of the manifest{turned}."
        figures.append(
            picture(
                shown.numpy(),
                2,
                f"{pair['image']}: distance {pair['distance']:.4f}",
                caption,
                description=description,
                magnify=max(1, 160 // shown.shape[-1]),
            )
        )
    return section(heading, f'<div class="row">{"".join(figures)}</div>', "wide")
