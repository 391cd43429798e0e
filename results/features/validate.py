"""Validate the built-in features on X-rays that they never saw: planted faults, and generated images.

    samgan prepare XRAYS cxr64 --resolution 64         (and cxr128 --resolution 128)
    npm pack nsfwjs@4.4.0
    python results/stand_in.py nsfwjs-4.4.0.tgz FEATURES.pt
    python results/features/validate.py planted kermany cxr64 --inception FEATURES.pt
    python results/features/validate.py planted kermany cxr128
    python results/features/validate.py generated cxr64 WORK_FOLDER --inception FEATURES.pt
    python results/features/validate.py speed --inception FEATURES.pt
    python results/features/validate.py write

`planted` compares 260 X-rays of patients whom the features never saw with 260 others of such patients (the floor), and
with these others after a fault was planted in them. Of a set that the features were not trained on, all X-rays can be
used (`--split all`), and `--class` and `--other` name its classes. `generated` trains rows of Table 2 for some minutes
(it continues where it was stopped) and compares images of their checkpoints with the same X-rays. Both replace their
own lines of table.csv. `speed` replaces speed.csv. `write` makes the tables of README.md and plot.svg from the two
(needs matplotlib).
"""

import argparse
import csv
import itertools
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from samgan.data import PreparedSet
from samgan.metrics.features import FeatureExtractor, extract
from samgan.metrics.frechet import frechet_distance, kernel_distance
from samgan.metrics.load_features import load_features
from samgan.metrics.prdc import prdc
from samgan.metrics.radiograph import Radiograph
from samgan.pictures import to_uint8, write_png
from samgan.runs import Run
from samgan.sampling import SHIPPED, load_model, read_model, sample
from samgan.studies.table2_rows import ROWS

HERE = Path(__file__).parent
COUNT = 260
"""Images in every set; Kermany's set has 268 held-out X-rays of the smaller class."""
OURS, RANDOM, INCEPTION = "radiograph", "random weights", "stand-in Inception"
SCORES = ("frechet", "kid_x1000", "precision", "recall", "density", "coverage")
COLUMNS = ("part", "set", "size", "what", "network", "count", *SCORES)
FLOOR = "other real X-rays (the floor)"
RESAMPLED = 2000
LENGTHS = {
    "samgan-plus": 20,
    "msg-gan-6": 20,
    "msg-gan-2": 20,
    "samgan-8-cbam": 12,
    "msg-gan-11": 8,
    "msg-gan-5": 8,
    "msg-gan-10": 8,
    "samgan-8": 8,
}
"""Thousand images that each row is trained on."""
NARROW = {"network.max_channels": 32, "training.batch_size": 8}
"""What results/table2 gives every row of the paper."""
EVERY_KIMG = 4
SHOWN = (
    "samgan-8-cbam after 4 kimg",
    "msg-gan-11 after 8 kimg",
    "msg-gan-2 after 4 kimg",
    "msg-gan-2 after 12 kimg",
    "msg-gan-2 after 20 kimg",
    "samgan-plus after 4 kimg",
    "samgan-plus after 20 kimg",
)
"""Rows of generated.png."""


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian of `sigma` pixels."""
    radius = math.ceil(4 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def noise(images: Tensor, deviation: float) -> Tensor:
    """Add independent noise."""
    return images + deviation * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def checkerboard(images: Tensor, amplitude: float) -> Tensor:
    """Add and subtract `amplitude` in turn, pixel by pixel."""
    y, x = torch.meshgrid(torch.arange(images.shape[2]), torch.arange(images.shape[3]), indexing="ij")
    return images + amplitude * ((x + y) % 2 * 2 - 1)


def turn(images: Tensor, degrees: float) -> Tensor:
    """Turn about the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def smear(images: Tensor) -> Tensor:
    """Average five pixels in a row, as if the patient had moved."""
    return F.conv2d(F.pad(images, (2, 2, 0, 0), mode="reflect"), torch.full((1, 1, 1, 5), 0.2))


def dead_pixels(images: Tensor) -> Tensor:
    """Make one pixel of 200 black or white."""
    drawn = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(drawn < 0.0025, 0.0, torch.where(drawn > 0.9975, 255.0, images))


def square(images: Tensor) -> Tensor:
    """Cover a square of a quarter of the side, at random places, with black."""
    side = images.shape[2]
    images = images.clone()
    places = torch.randint(0, side - side // 4 + 1, (len(images), 2), generator=torch.Generator().manual_seed(0))
    for image, (top, left) in zip(images, places.tolist(), strict=True):
        image[:, top : top + side // 4, left : left + side // 4] = 0
    return images


def repeated(images: Tensor, distinct: int) -> Tensor:
    """As many images, but only the first `distinct` of them, again and again."""
    return images[torch.arange(len(images)) % distinct]


PLANTED: dict[str, Callable[[Tensor], Tensor]] = {
    FLOOR: lambda images: images,
    "76 distinct images": lambda images: repeated(images, 76),
    "19 distinct images": lambda images: repeated(images, 19),
    "mirrored": lambda images: images.flip(-1),
    "turned by 10 degrees": lambda images: turn(images, 10),
    "turned by 90 degrees": lambda images: images.rot90(1, (2, 3)),
    "blur, sigma 0.5 px": lambda images: blur(images, 0.5),
    "blur, sigma 1 px": lambda images: blur(images, 1),
    "blur, sigma 2 px": lambda images: blur(images, 2),
    "noise, std 3 of 255": lambda images: noise(images, 3),
    "noise, std 10 of 255": lambda images: noise(images, 10),
    "checkerboard, 1 of 255": lambda images: checkerboard(images, 1),
    "checkerboard, 4 of 255": lambda images: checkerboard(images, 4),
    "smeared over 5 px (not taught)": smear,
    "1 dead pixel in 200 (not taught)": dead_pixels,
    "black square (not taught)": square,
}
OTHER_CLASS, KIND_MISSING, SEEN = "the other class", "a kind missing (no viral ones)", "X-rays of the training"


def to_bytes(images: Tensor) -> Tensor:
    """Round to what a file holds."""
    return images.round().clamp(0, 255).to(torch.uint8)


def by_patient(data: PreparedSet, indices: np.ndarray, seed: int = 0) -> np.ndarray:
    """Indices in a random order of patients, so that a cut between two of them divides patients."""
    groups = data.groups(indices)
    names = sorted(set(groups))
    order = dict(zip(names, np.random.default_rng(seed).permutation(len(names)), strict=True))
    return indices[np.argsort([order[group] for group in groups], kind="stable")]


def halves(data: PreparedSet, split: str | None, class_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `COUNT` images to compare with, and of all the others that share no patient with them."""
    ordered = by_patient(data, data.indices(split, [class_name]))
    groups = data.groups(ordered)
    own = set(groups[:COUNT])
    return ordered[:COUNT], np.array([i for i, group in zip(ordered, groups, strict=True) if group not in own])


def networks(inception: Path | None) -> Iterator[FeatureExtractor]:
    """The features that are compared, each with the name that the table has."""
    ours = load_features("radiograph")
    yield FeatureExtractor(ours.network, name=OURS, sha256=ours.sha256, device=ours.device)
    torch.manual_seed(0)
    network = Radiograph().eval().requires_grad_(False)
    yield FeatureExtractor(
        lambda images: 100 * network(images.float() / 127.5 - 1), name=RANDOM, sha256="", device=torch.device("cpu")
    )
    if inception is not None:
        loaded = load_features(inception)
        yield FeatureExtractor(loaded.network, name=INCEPTION, sha256=loaded.sha256, device=loaded.device)


def compare(
    real: Tensor, sets: dict[str, Tensor], extractors: Iterator[FeatureExtractor], about: dict[str, Any]
) -> None:
    """Score each set against the real one with all features, and replace its lines of table.csv."""
    for extractor in extractors:
        cache = extractor.name == INCEPTION
        of_real = extract(extractor, real, cache=cache)
        for what, images in sets.items():
            features = extract(extractor, images, cache=cache)
            values = [frechet_distance(of_real, features), 1000 * kernel_distance(of_real, features)]
            values += prdc(of_real, features)
            row = {**about, "what": what, "network": extractor.name, "count": len(images)}
            row |= {name: f"{value:.4g}" for name, value in zip(SCORES, values, strict=True)}
            print(", ".join(str(value) for value in row.values()), flush=True)
            keep(row)


def keep(row: dict[str, Any]) -> None:
    """Put a line into table.csv, in the place of the line about the same."""
    path = HERE / "table.csv"
    rows = read(path)
    new = {column: str(row[column]) for column in COLUMNS}
    key = COLUMNS[: COLUMNS.index("count")]
    places = [place for place, old in enumerate(rows) if all(old[name] == new[name] for name in key)]
    if places:
        rows[places[0]] = new
    else:
        rows.append(new)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """Lines of a table."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def planted(options: argparse.Namespace) -> None:
    """Faults planted in held-out X-rays of one set."""
    data = PreparedSet.open(options.data)
    split = None if options.split == "all" else options.split
    reference, others = halves(data, split, options.class_name)
    images = torch.from_numpy(np.asarray(data.images))
    sets = {what: to_bytes(change(images[others[:COUNT]].float())) for what, change in PLANTED.items()}
    if options.other:
        sets[OTHER_CLASS] = images[by_patient(data, data.indices(split, [options.other]))[:COUNT]]
    if options.set == "kermany":
        bacterial = [index for index in others if "bacteria" in data.manifest[index].source]
        sets[KIND_MISSING] = images[bacterial[:COUNT]]
        sets[SEEN] = images[by_patient(data, data.indices("train", [options.class_name]))[:COUNT]]
    about = {"part": "planted", "set": options.set, "size": data.resolution}
    compare(images[reference], sets, networks(options.inception), about)


def train_row(name: str, data: Path, out: Path) -> None:
    """Train a row of Table 2, as results/table2 did, until it has seen its images."""
    row = ROWS[name]
    settings = {"training.kimg": LENGTHS[name], "training.snapshot_every_kimg": EVERY_KIMG}
    settings |= {
        "training.keep_checkpoints": 1000,
        **row.settings,
        **({} if name == row.base == "samgan-plus" else NARROW),
    }
    command = [sys.executable, "-m", "samgan", "train", str(data), "--out", str(out), "--preset", row.base]
    command += ["--scale=cpu", "--classes", "PNEUMONIA"] + ["--resume"] * out.exists()
    command += [f"--{key}={value}" for key, value in settings.items()]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def generated(options: argparse.Namespace) -> None:
    """Images of checkpoints of rows of Table 2, and of the model that comes with samgan."""
    data = PreparedSet.open(options.data)
    reference, _ = halves(data, "holdout", "PNEUMONIA")
    sets, marks = {}, {}
    for name, kimg in LENGTHS.items():
        run = options.work / name
        if not (run / "checkpoints" / f"step-{kimg * 1000 // 8:08}.pt").exists():
            train_row(name, options.data, run)
        for seen in range(EVERY_KIMG, kimg + 1, EVERY_KIMG):
            model = load_model(Run(run), str(run / "checkpoints" / f"step-{seen * 1000 // 8:08}.pt"))
            what = f"{name} after {seen} kimg"
            sets[what], marks[what] = to_uint8(sample(model, range(COUNT))), model.mark(0).entries()
    images = torch.cat([sets[what][:8] for what in SHOWN])
    with open(HERE / "generated.png", "wb") as file:
        rows = images.view(len(SHOWN), 8, *images.shape[2:]).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        write_png(file, rows[None].numpy(), {**marks[SHOWN[0]], "Seed": "0 to 7", "Models": "; ".join(SHOWN)})
    shipped = read_model(SHIPPED["pneumonia-64"].path)
    sets["pneumonia-64, which comes with samgan"] = to_uint8(sample(shipped, range(COUNT)))
    about = {"part": "generated", "set": "kermany", "size": data.resolution}
    compare(torch.from_numpy(data.images[reference]), sets, networks(options.inception), about)


def speed(options: argparse.Namespace) -> None:
    """Images a second of one core's time, of the features that come with samgan and of the stand-in Inception."""
    torch.set_num_threads(1)
    rows = []
    for extractor in networks(options.inception):
        for size in (64, 128, 256) if extractor.name == OURS else (64,) if extractor.name == INCEPTION else ():
            images = torch.randint(0, 256, (64, 1, size, size), dtype=torch.uint8)
            seconds = []
            for _ in range(4):
                start = time.process_time()
                extractor(images)
                seconds.append(time.process_time() - start)
            rows.append({"network": extractor.name, "size": size, "images_per_second": round(64 / min(seconds))})
    with open(HERE / "speed.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def value(rows: list[dict[str, str]], what: str, network: str, score: str) -> float | None:
    """A score of table.csv, if it is there."""
    found = [float(row[score]) for row in rows if (row["what"], row["network"]) == (what, network)]
    return found[0] if found else None


def planted_table(rows: list[dict[str, str]], *, elsewhere: bool) -> str:
    """How many floors each planted fault lies from real X-rays, in Markdown.

    Args:
        rows: lines of table.csv.
        elsewhere: all other sets and sizes instead of Kermany's at 64 px.
    """
    rows = [row for row in rows if row["part"] == "planted"]
    columns = [
        column
        for column in dict.fromkeys((row["set"], row["size"], row["network"]) for row in rows)
        if (column[:2] != ("kermany", "64") and column[2] != RANDOM if elsewhere else column[:2] == ("kermany", "64"))
    ]
    columns.sort(key=lambda column: (("kermany", "adult", "covid").index(column[0]), int(column[1])))
    lines = ["| |" + "".join(f" {name} {size} px, {network} |" for name, size, network in columns)]
    lines.append("|---|" + "---:|" * len(columns))
    for what in dict.fromkeys(row["what"] for row in rows):
        cells = []
        for column in columns:
            own = [row for row in rows if (row["set"], row["size"], row["network"]) == column]
            frechet, floor = (value(own, name, column[2], "frechet") for name in (what, FLOOR))
            if frechet is None or floor is None:
                cells.append("")
            else:
                cells.append(f"{frechet:.3g}" if what == FLOOR else plain(frechet / floor))
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shares_table(rows: list[dict[str, str]], name: str, size: str) -> str:
    """KID, precision, recall and coverage of one set, by both features, in Markdown."""
    rows = [row for row in rows if (row["part"], row["set"], row["size"]) == ("planted", name, size)]
    scores = ("kid_x1000", "precision", "recall", "coverage")
    heads = [f"{score.replace('_x1000', ' x1000')}, {network}" for score in scores for network in (OURS, INCEPTION)]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for what in dict.fromkeys(row["what"] for row in rows):
        cells = [value(rows, what, network, score) for score in scores for network in (OURS, INCEPTION)]
        lines.append(f"| {what} | " + " | ".join("" if cell is None else plain(cell) for cell in cells) + " |")
    return "\n".join(lines)


def plain(number: float) -> str:
    """A number for a table: two digits after the point, fewer where it is large."""
    return f"{number:.2f}" if abs(number) < 1 else f"{number:.1f}" if abs(number) < 10 else f"{number:.0f}"


def correlation(rows: list[dict[str, str]], score: str, network: str) -> tuple[float, float, float]:
    """Spearman's rank correlation with the stand-in Inception, and its 95 % interval by resampling sets."""
    names = list(dict.fromkeys(row["what"] for row in rows))
    pairs = np.array([[value(rows, what, by, score) for by in (network, INCEPTION)] for what in names], dtype=float)
    drawn = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLED, len(pairs)))
    low, high = np.nanquantile(_ranked(pairs[drawn]), (0.025, 0.975))
    return float(_ranked(pairs[None])[0]), float(low), float(high)


def _ranked(pairs: np.ndarray) -> np.ndarray:
    """The rank correlation of the two columns of each [sets, 2]; NaN where one of them is constant."""
    ranks = rankdata(pairs, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    squares = (ranks**2).sum(axis=1).prod(axis=1)
    return np.divide(
        ranks.prod(axis=2).sum(axis=1), np.sqrt(squares), where=squares > 0, out=np.full(len(pairs), np.nan)
    )


def correlation_table(rows: list[dict[str, str]]) -> str:
    """Rank correlations with the stand-in Inception, in Markdown."""
    rows = [row for row in rows if (row["set"], row["size"]) == ("kermany", "64")]
    scores = ("frechet", "kid_x1000", "precision", "recall", "coverage")
    groups = {
        "planted": [row for row in rows if row["part"] == "planted"],
        "generated": [row for row in rows if row["part"] == "generated"],
    }
    good = ("samgan-plus", "pneumonia-64")
    groups["generated, only samgan-plus"] = [row for row in groups["generated"] if row["what"].startswith(good)]
    lines = ["| | sets | Frechet | KID | precision | recall | coverage |", "|---|---:|---:|---:|---:|---:|---:|"]
    for group, own in groups.items():
        for network in (OURS, RANDOM):
            found = [correlation(own, score, network) for score in scores]
            cells = [f"{rank:.2f} [{low:.2f}, {high:.2f}]" for rank, low, high in found]
            lines.append(f"| {group}: {network} | {len({r['what'] for r in own})} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def progress_table(rows: list[dict[str, str]]) -> str:
    """How often 4 thousand more images brought a run nearer to real X-rays, by each network, in Markdown."""
    rows = [row for row in rows if row["part"] == "generated"]
    lines = ["| | longer trained is nearer |", "|---|---:|"]
    for network in (OURS, INCEPTION, RANDOM):
        steps = []
        for name, kimg in LENGTHS.items():
            seen = range(EVERY_KIMG, kimg + 1, EVERY_KIMG)
            along = [value(rows, f"{name} after {k} kimg", network, "frechet") for k in seen]
            steps += [later < earlier for earlier, later in itertools.pairwise(d for d in along if d is not None)]
        lines.append(f"| {network} | {sum(steps)} of {len(steps)} |")
    return "\n".join(lines)


def generated_table(rows: list[dict[str, str]]) -> str:
    """Every generated set by both features, in Markdown, best first by the stand-in Inception."""
    floors = [row for row in rows if (row["part"], row["set"], row["size"]) == ("planted", "kermany", "64")]
    rows = [row for row in rows if row["part"] == "generated"]
    scores = ("frechet", "recall", "coverage")
    heads = [f"{score}, {network}" for score in scores for network in (OURS, INCEPTION)]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    names = list(dict.fromkeys(row["what"] for row in rows))
    names.sort(key=lambda what: value(rows, what, INCEPTION, "frechet") or 0.0)
    for what in [FLOOR, *names]:
        cells = [value(floors + rows, what, network, score) for score in scores for network in (OURS, INCEPTION)]
        lines.append(f"| {what} | " + " | ".join("" if cell is None else plain(cell) for cell in cells) + " |")
    return "\n".join(lines)


def speed_table() -> str:
    """Images a second, in Markdown."""
    lines = ["| features | size | images a second |", "|---|---:|---:|"]
    lines += [f"| {r['network']} | {r['size']} px | {r['images_per_second']} |" for r in read(HERE / "speed.csv")]
    return "\n".join(lines)


def filled(text: str) -> str:
    """README.md with its tables made again from table.csv and speed.csv."""
    rows = read(HERE / "table.csv")
    tables = {
        "planted": lambda: planted_table(rows, elsewhere=False),
        "elsewhere": lambda: planted_table(rows, elsewhere=True),
        "shares": lambda: shares_table(rows, "kermany", "64"),
        "correlation": lambda: correlation_table(rows),
        "progress": lambda: progress_table(rows),
        "generated": lambda: generated_table(rows),
        "speed": speed_table,
    }
    return re.sub(
        r"(<!-- (\w+) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{tables[m[2]]()}\n{m[3]}", text, flags=re.DOTALL
    )


def write(options: argparse.Namespace) -> None:
    """The tables of README.md, and plot.svg."""
    readme = HERE / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
    draw(read(HERE / "table.csv"))


def draw(rows: list[dict[str, str]]) -> None:
    """Frechet distances in floors, recall and coverage: ours against the Inception's, a point per set of images."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams |= {"svg.hashsalt": "samgan", "svg.fonttype": "none"}  # equal numbers, equal bytes; small
    rows = [row for row in rows if (row["set"], row["size"]) == ("kermany", "64")]
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 5), layout="constrained")
    for axis, score in zip(axes, ("frechet", "recall", "coverage"), strict=True):
        units = [value(rows, FLOOR, network, score) or 1.0 for network in (INCEPTION, OURS)]
        units = units if score == "frechet" else [1.0, 1.0]
        for part, colour in (("planted", "C1"), ("generated", "C0")):
            for what in dict.fromkeys(row["what"] for row in rows if row["part"] == part):
                x, y = (value(rows, what, network, score) for network in (INCEPTION, OURS))
                if x is None or y is None:
                    continue
                place = (x / units[0], y / units[1])
                axis.plot(*place, "o", color=colour, alpha=0.8)
                if "gan-" not in what.replace("samgan-plus", "") and min(place) > 0.05:  # the others lie too close
                    axis.annotate(f" {what.split(' (')[0]}", place, fontsize=6).set_in_layout(False)
        unit = ", in floors" if score == "frechet" else ""
        axis.set(title=f"{score}{unit}", xlabel=INCEPTION, ylabel=OURS)
        if score == "frechet":
            axis.set(xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    handles = [
        pyplot.Line2D([], [], color=c, marker="o", ls="", label=p) for p, c in (("planted", "C1"), ("generated", "C0"))
    ]
    axes[0].legend(handles=handles, fontsize="small")
    figure.savefig(HERE / "plot.svg", metadata={"Date": None})


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("planted")
    step.add_argument("set", help="name in the table: kermany, adult, covid")
    step.add_argument("data", type=Path, help="prepared set")
    step.add_argument("--split", choices=("train", "holdout", "all"), default="holdout")
    step.add_argument("--class", dest="class_name", default="PNEUMONIA")
    step.add_argument("--other", default="NORMAL", help="the other class; '' where there is none")
    step = steps.add_parser("generated")
    step.add_argument("data", type=Path, help="prepared set of 64 px")
    step.add_argument("work", type=Path)
    step = steps.add_parser("speed")
    for step in steps.choices.values():
        step.add_argument("--inception", type=Path, help="what results/stand_in.py made")
    steps.add_parser("write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"planted": planted, "generated": generated, "speed": speed, "write": write}[options.step](options)


if __name__ == "__main__":
    main()
