"""The paper's Table 2 as one experiment: its rows and further ones, what was measured beside what was published.

`ROWS` says what there is to run, `samgan.studies.sweep` runs it, `summarise` makes one line of all seeds of a row,
`samgan.studies.claims` tests what the paper says on them, and `write_table` writes all of it.
"""

import base64
import csv
import dataclasses
import io
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samgan.config import Config, flatten
from samgan.data import PreparedSet
from samgan.devices import choose_device
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write, write_json
from samgan.metrics.features import find_features
from samgan.pages import Curve, chart, markdown_table
from samgan.pages.legacy import section, table, text, write_page
from samgan.pictures import RESEARCH_ONLY, SYNTHETIC
from samgan.presets import PLUS, PRESETS, SCALES, preset_config
from samgan.scoring import MODE_COLLAPSE as COLLAPSE
from samgan.scoring import check_inputs
from samgan.studies.claims import REFUTED, Verdict, judge, rank_correlation
from samgan.studies.sweep import Job, Resources, Scoring, ended_early, run_sweep
from samgan.training import check_fit, plan

PLUS_SCALE = {"cpu": "cpu", "paper": "gpu"}
"""The scale of our own recipe beside rows of one."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: a preset, or one with something changed."""

    name: str
    base: str
    settings: dict[str, Any]
    question: str
    """What a further row is there to answer; empty for rows of the paper."""
    paper_fid: float | None = None
    paper_ms_ssim_real: float | None = None
    paper_ms_ssim_generated: float | None = None
    colour: bool = False

    def config(self, scale: str, resolution: int = 64, settings: Mapping[str, Any] | None = None) -> Config:
        """The row's configuration at a scale, with settings that all rows of the paper's networks are given.

        Our own recipe is a whole of its own, and keeps to it, but is as long as the others.
        """
        if self.base == PLUS:
            length = {"training.kimg": SCALES[scale]["kimg"]}
            config = preset_config(PLUS, PLUS_SCALE[scale], resolution).override(length)
        else:
            config = preset_config(self.base, scale, resolution).override(settings or {})
        return config.override({**self.settings, "preset": self.name})

    def fits(self, resolution: int) -> bool:
        """Whether images of this size have the resolutions at which the row has attention."""
        sides = [self.settings.get(f"network.{network}_attention", ()) for network in ("generator", "discriminator")]
        return all(side <= resolution for side in itertools.chain(*sides))


# Layers under spectral norm have no equalized rates otherwise, so taking these from samgan-8 would change nothing.
EQUALIZED_TOO = {"network.spectral_norm_scale": "equalized"}


def _attention(generator: Sequence[int], discriminator: Sequence[int]) -> dict[str, Any]:
    return {"network.generator_attention": list(generator), "network.discriminator_attention": list(discriminator)}


PAPER_ROWS = tuple(
    Row(
        row.name,
        row.name,
        {},
        "",
        row.paper_fid,
        row.paper_ms_ssim_real,
        row.paper_ms_ssim_generated,
        colour=row.data == "CelebA",
    )
    for row in PRESETS
)
# fmt: off
FURTHER_ROWS = (
    Row("samgan-8-no-attention", "samgan-8", _attention([], []), "what attention is worth"),
    Row("samgan-8-in-g", "samgan-8", {"network.discriminator_attention": []}, "attention in the generator alone"),
    Row("samgan-8-in-d", "samgan-8", {"network.generator_attention": []}, "attention in the discriminator alone"),
    Row("samgan-8-at-16", "samgan-8", _attention([16], [16]), "attention at 16 px alone"),
    Row("samgan-8-at-32", "samgan-8", _attention([32], [32]), "attention at 32 px alone"),
    Row("samgan-8-at-64", "samgan-8", _attention([64], [64]), "attention at 64 px alone"),
    Row("samgan-8-unpooled", "samgan-8", {"network.attention_pooled": False}, "keys of every position"),
    Row("samgan-8-linear", "samgan-8", {"network.attention_kind": "linear"}, "attention of linear cost"),
    Row("samgan-8-dual", "samgan-8", {"network.attention_kind": "dual"}, "attention between channels as well"),
    Row("samgan-8-se", "samgan-8", {"network.attention_kind": "squeeze-excitation"}, "channel attention"),
    Row("samgan-8-cbam", "samgan-8", {"network.attention_kind": "cbam"}, "channel and position weights (CBAM)"),
    Row("samgan-8-rate-0.001", "samgan-8", {"training.learning_rate": 0.001}, "a rate between 0.0003 and 0.003"),
    Row("msg-gan-7-rate-0.001", "msg-gan-7", {"training.learning_rate": 0.001}, "a rate between 0.0003 and 0.003"),
    Row("samgan-8-equalized", "samgan-8", EQUALIZED_TOO, "spectral norm and equalized rates in one layer"),
    Row("msg-gan-11-equalized", "msg-gan-11", EQUALIZED_TOO, "the same without attention, at ten times the rate"),
    Row("msg-gan-6-unequalized", "msg-gan-6", {"network.equalized_lr": False}, "neither norm nor equalized rates"),
    Row("msg-gan-4-no-penalty", "msg-gan-4", {"training.penalty": "none"}, "WGAN without penalty, as MSG-GAN's code"),
    Row(PLUS, PLUS, {"network.num_classes": 0}, "our own recipe, without classes as the others"),
    Row(f"{PLUS}-rate-0.004", PLUS, {"network.num_classes": 0, "training.learning_rate": 0.004}, "half its rate"),
)
# fmt: on
ROWS = {row.name: row for row in (*PAPER_ROWS, *FURTHER_ROWS)}
GROUPS = {
    "paper": [row.name for row in PAPER_ROWS if not row.colour],
    "further": [row.name for row in FURTHER_ROWS],
}

NOT_CONFIRMED = f"""Of the paper's networks, from runs of full length. "{REFUTED}": measured the other way round, by \
more than seeds differ; in a claim of several pairs by more than the 95 % interval, since one pair refutes it."""
SCORES = ("frechet", "kid_x1000", "precision", "recall", "density", "coverage", "swd")
ENDLESS_KIMG = 1e6  # where minutes are the length
SUSTAINED_TFLOPS = 20.0
"""What the plan takes a GPU to sustain, a careful assumption: an H200 sustained 87 to 121 with rows at paper scale."""
COLUMNS = (
    "name",
    "seeds",
    "frechet",
    "frechet_spread",
    "frechet_floor",
    *(f"{name}{suffix}" for name in SCORES[1:] for suffix in ("", "_spread")),
    *(f"ms_ssim_{kind}{suffix}" for kind in ("real", "generated") for suffix in ("", "_low", "_high")),
    "ms_ssim_generated_spread",
    "collapsed_seeds",
    "flagged_seeds",
    "ended_early_seeds",
    "failed_seeds",
    "gamma_generator",
    "gamma_discriminator",
    "kimg",
    "wall_minutes",
    "images_per_second",
    "paper_fid",
    "paper_ms_ssim_real",
    "paper_ms_ssim_generated",
)


def choose_rows(names: Sequence[str], seeds: int, colour: bool, resolution: int = 64) -> dict[str, int]:
    """Rows by name or by group, and the number of seeds of each, in the order of the table.

    Args:
        names: Names and groups ("paper": the 18 X-ray rows, "further", "all"); none: "paper". `NAME=N` gives a row, or
            every row of a group, a number of seeds of its own; what stands later counts.
        seeds: Of every other row.
        colour: Whether there are faces to train the CelebA row on; it is then among "paper".
        resolution: Of the images. Groups leave out rows with attention at a resolution that these do not have.

    Raises:
        UsageError: An unknown name, no seed, or the CelebA row without faces.
    """
    groups = {**GROUPS, "all": [*GROUPS["paper"], *GROUPS["further"]]}
    if colour:
        faces = [row.name for row in PAPER_ROWS if row.colour]
        groups |= {name: [*faces, *groups[name]] for name in ("paper", "all")}
    groups = {name: [row for row in rows if ROWS[row].fits(resolution)] for name, rows in groups.items()}
    wanted: dict[str, int] = {}
    for given in names or ["paper"]:
        name, equals, number = given.partition("=")
        count = int(number) if number.isdigit() else 0 if equals else seeds
        if count < 1:
            raise UsageError(f"--rows {given} --seeds {seeds}: expected 1 or more seeds, such as samgan-8=2")
        if name not in groups and name not in ROWS:
            raise UsageError(f"--rows {name}: expected {', '.join(groups)} or names out of {', '.join(ROWS)}")
        wanted |= dict.fromkeys(groups.get(name, [name]), count)
    if not colour and (faces := [name for name in wanted if ROWS[name].colour]):
        raise UsageError(f"--rows {faces[0]} is the CelebA row: name a prepared set of faces with --faces")
    return {name: wanted[name] for name in ROWS if name in wanted}


OPTIONS = {
    "preset": "--rows",
    "data.classes": "--classes",
    "training.kimg": "--kimg",
    "training.seed": "--seeds",
    "training.snapshot_every_kimg": "--snapshot-every-kimg",
}
"""Settings that the table sets itself, and the option for each."""


def check_settings(settings: Mapping[str, Any], scale: str) -> None:
    """Refuse settings for all rows alike that are not alike in all rows.

    Raises:
        UsageError: A setting that rows differ in, or that the table sets itself.
    """
    configs = [row.config(scale) for row in ROWS.values() if row.base != PLUS]
    varied = {key for config in configs for key in config.differences(configs[0])}
    for key in flatten(settings):
        if key in OPTIONS:
            raise UsageError(f"--{key}: samgan table2 has an option for it, {OPTIONS[key]}")
        if key in varied:
            raise UsageError(f"--{key}: rows of the table differ in it; samgan train --preset ROW takes it")


def plan_rows(
    rows: Mapping[str, int],
    scale: str,
    resolution: int,
    kimg: float | None = None,
    settings: Mapping[str, Any] | None = None,
    minutes: float | None = None,
) -> list[dict[str, Any]]:
    """What each row will cost: parameters, FLOPs, memory, and GPU-hours of all its seeds at `SUSTAINED_TFLOPS`.

    Where `minutes` are the length, these are the hours, and `steps` and `kimg` are null: they depend on the machine.
    """
    lines = []
    costs: dict[Config, dict[str, Any]] = {}
    # Rows that differ in these alone cost the same.
    free = {"preset": "any", "data.flip": "none", "training.learning_rate": 1.0, "network.equalized_lr": True}
    length = {} if kimg is None else {"training.kimg": kimg}
    for name, seeds in rows.items():
        config = ROWS[name].config(scale, resolution, settings).override({**free, **length})
        cost = costs[config] = costs.get(config) or plan(config).to_dict()
        if minutes is not None:
            hours, cost = minutes / 60, {**cost, "steps": None, "kimg": None}
        else:
            hours = cost["steps"] * cost["flops_per_step"] / (SUSTAINED_TFLOPS * 1e12) / 3600
        lines.append({"name": name, "seeds": seeds, **cost, "gpu_hours": round(seeds * hours, 2)})
    return lines


def run_table(
    rows: Mapping[str, int],
    data: Path,
    out: Path,
    *,
    command: str,
    scale: str = "cpu",
    classes: Sequence[str] | None = None,
    faces: Path | None = None,
    budget_minutes: float | None = None,
    kimg: float | None = None,
    snapshot_every_kimg: float | None = None,
    ray: str | None = None,
    cores_per_job: int | None = None,
    gpus_per_job: float = 0.0,
    count: int | None = None,
    features: str | None = None,
    inception_weights: str | None = None,
    on_collapse: str = "warn",
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Train and score rows, each with every seed, and write the table; what is finished already is taken as it is.

    Args:
        rows: From `choose_rows`: the number of seeds by row; a row is trained with seeds 0 to that, not included.
        data: Prepared set of radiographs.
        out: The sweep's folder.
        command: What was typed, for the table.
        scale: "cpu" or "paper".
        classes: Classes of `data` to train on; default: all.
        faces: Prepared set with three channels, for the CelebA row.
        budget_minutes: Length of every job in minutes of training.
        kimg: Length of every job; default: the scale's.
        snapshot_every_kimg: How often checkpoints and quick scores are written; default: the scale's.
        ray: None, "local", "auto" or an address.
        cores_per_job: CPU cores of a job.
        gpus_per_job: GPUs of a job on Ray.
        count: Images per set when scoring.
        features: As for `samgan.api.evaluate`.
        inception_weights: As for `samgan.api.evaluate`.
        on_collapse: As for `samgan.api.train`.
        device: Where networks run.
        settings: Of every row but samgan-plus, such as `{"training.batch_size": 4}`.

    Returns:
        The lines of table.json, and the files written.

    Raises:
        UsageError: What was asked for does not fit together.
        SamganError: As `samgan.studies.sweep.run_sweep`; or every job failed.
    """
    for name, value in (("--budget-minutes", budget_minutes), ("--cores-per-job", cores_per_job)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} {value:g}: expected more than 0")
    check_settings(settings or {}, scale)
    sets = {False: PreparedSet.open(data), **({True: PreparedSet.open(faces)} if faces else {})}
    jobs = []
    for seed in range(max(rows.values())):  # so that every row has one seed before any has two
        for row in (ROWS[name] for name, seeds in rows.items() if seed < seeds):
            source = sets[row.colour]
            own: dict[str, Any] = {"training.seed": seed, "network.image_channels": source.channels}
            if classes and not row.colour:
                own["data.classes"] = list(classes)
            if budget_minutes is not None:
                own["training.kimg"] = ENDLESS_KIMG
            for key, value in (("kimg", kimg), ("snapshot_every_kimg", snapshot_every_kimg)):
                if value is not None:
                    own[f"training.{key}"] = value
            config = row.config(scale, source.resolution, settings).override(own)
            indices = source.indices("train", config.data.classes)
            check_fit(config, (len(indices), *source.images.shape[1:]))
            shape = source.images.shape[1:]
            check_inputs((len(indices), *shape), (count or len(indices) // 2, *shape), count=count)
            length = None if budget_minutes is None else float(budget_minutes)
            jobs.append(Job(row.name, config, str(source.path.resolve()), source.sha256, length))
    scoring = _choose_scoring(features, inception_weights, count, sets[False].images.shape[1:])
    resources = Resources(ray, cores_per_job, gpus_per_job, choose_device(device) if ray is None else device)
    title = f"Table 2 of the paper, {scale} scale"

    def write(documents: Sequence[dict[str, Any]]) -> list[Path]:
        return write_table(out, documents, command=command, title=title, jobs=len(jobs))

    documents = run_sweep(jobs, out, scoring, resources, on_collapse=on_collapse, report=write)
    files = write(documents)
    if not any("scores" in document for document in documents):
        raise SamganError(f"every job failed; the first: {documents[0]['failed']}")
    return summarise(documents), files


def _choose_scoring(
    features: str | None, weights: str | None, count: int | None, shape: tuple[int, int, int]
) -> Scoring:
    """Load what is to score hours of training once before them; files by names that hold on every machine."""
    features, weights = (
        str(Path(name).absolute()) if name and Path(name).is_file() else name for name in (features, weights)
    )
    extractor, reason = find_features(features, inception_weights=Path(weights) if weights else None)
    if extractor is None:
        print(f"samgan: scores that need features are skipped: {reason}", file=sys.stderr)
    else:
        features = features or "inception"
    return Scoring(features, weights, count, shape)


def summarise(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per row, in the order of the table: means over the seeds that were scored, and their spread.

    Args:
        documents: From `samgan.studies.sweep.run_sweep`.

    Returns:
        Lines with `COLUMNS`: `seeds` are those scored; spreads are the largest minus the smallest of them (null for one
        seed); `_low`, `_high`: mean bounds of the 95 % interval of a run; a row of which no seed was scored has nulls.
        `collapsed_seeds` are those with MG above MR by more than its interval, the paper's sign; `flagged_seeds` those
        with an alarm while they trained, and `ended_early_seeds` those that were ended at it.
    """
    lines = []
    for name, row in ROWS.items():
        own = [document for document in documents if document["name"] == name]
        if not own:
            continue
        scored = [document for document in own if "scores" in document]
        line: dict[str, Any] = dict.fromkeys(COLUMNS)
        line |= {"name": name, "seeds": len(scored), "failed_seeds": len(own) - len(scored)}
        line |= {key: getattr(row, key) for key in ("paper_fid", "paper_ms_ssim_real", "paper_ms_ssim_generated")}
        if scored:
            line |= _means(scored)
        lines.append(line)
    return lines


def _means(scored: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [document["scores"] for document in scored]

    def mean(values: list[Any]) -> float | None:
        return round(statistics.fmean(values), 4) if None not in values else None

    def spread(values: list[Any]) -> float | None:
        return round(max(values) - min(values), 4) if len(values) > 1 and None not in values else None

    def value(name: str, which: str = "value") -> list[Any]:
        found = [
            document[name] and (document[name]["mean"] if name == "swd" else document[name]) for document in scores
        ]
        return [one and one[which] for one in found]

    line: dict[str, Any] = {"frechet_floor": mean(value("frechet", "floor"))}
    for name in SCORES:
        line |= {name: mean(value(name)), f"{name}_spread": spread(value(name))}
    for kind in ("ms_ssim_real", "ms_ssim_generated"):
        line |= {f"{kind}{end}": mean(value(kind, end.strip("_") or "mean")) for end in ("", "_low", "_high")}
    line["ms_ssim_generated_spread"] = spread(value("ms_ssim_generated", "mean"))
    verdicts = [(document["mode_collapse"] or {}).get("verdict") for document in scores]
    line["collapsed_seeds"] = verdicts.count(COLLAPSE)
    line["flagged_seeds"] = sum(bool(document["collapse"]) for document in scored)
    line["ended_early_seeds"] = sum(map(ended_early, scored))
    for network in ("generator", "discriminator"):
        gammas = [document["gamma"] for document in scored]
        names = [name for name in gammas[0] if name.startswith(network)]
        means = {name.rpartition("_")[2]: statistics.fmean(gamma[name] for gamma in gammas) for name in names}
        line[f"gamma_{network}"] = {side: round(mean, 4) for side, mean in means.items()}
    for name in ("kimg", "wall_minutes", "images_per_second"):
        line[name] = mean([document[name] for document in scored])
    return line


def rank_correlations(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | int]]:
    """Spearman's rank correlation with the paper over its rows: of Frechet with FID, and of MS-SSIM with MG.

    Returns:
        By name `rho`, `p` (two-sided) and `rows`; a pair of columns with fewer than four rows is left out.
    """
    found: dict[str, dict[str, float | int]] = {}
    pairs = {"frechet": "paper_fid", "ms_ssim_generated": "paper_ms_ssim_generated"}
    for ours, theirs in pairs.items():
        grey = [line for line in lines if not ROWS[line["name"]].colour]
        points = [(line[ours], line[theirs]) for line in grey if line[ours] is not None and line[theirs] is not None]
        if len({a for a, _ in points}) < 4:
            continue
        rho, p = rank_correlation(points)
        found[ours] = {"rho": round(rho, 3), "p": round(p, 4), "rows": len(points)}
    return found


def write_table(
    out: Path, documents: Sequence[dict[str, Any]], *, command: str, title: str, jobs: int | None = None
) -> list[Path]:
    """Write `table.md`, `table.csv`, `table.json` and `table.html`.

    Args:
        out: The folder, with `rows/KEY.png`.
        documents: From `samgan.studies.sweep.run_sweep`.
        command: What was typed, for the reader who wants the same.
        title: Of the page.
        jobs: Of the whole sweep, where some may not have ended.

    Returns:
        The files.
    """
    lines = summarise(documents)
    runs: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        row = ROWS[document["name"]]
        if "scores" in document and not ended_early(document) and not row.colour and row.base != PLUS:
            runs.setdefault(row.name, []).append(document["scores"])
    verdicts = judge(runs)
    correlations = rank_correlations(lines)
    alarms = alarm_lines(documents)
    notes = _notes(documents, command, jobs or len(documents))
    write_json(out / "table.json", lines)
    rows = io.StringIO()
    writer = csv.DictWriter(rows, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: json.dumps(value) if isinstance(value, dict) else value for key, value in line.items()})
    markdown = _markdown(title, lines, verdicts, correlations, alarms, alarm_summary(documents), notes)
    for name, content in {"table.csv": rows.getvalue(), "table.md": markdown}.items():
        with atomic_write(out / name) as file:
            file.write(content.encode())
    _write_page(out / "table.html", title, lines, documents, verdicts, correlations, alarms, notes, out / "rows")
    return [out / f"table.{suffix}" for suffix in ("md", "csv", "json", "html")]


HEADER = (
    "row", "paper's FID", "Frechet", "floor", "paper's MR / MG", "MS-SSIM real [95 %]", "MS-SSIM generated [95 %]",
    "sign", "recall", "coverage", "KID x 1000", "SWD x 1000", "seeds", "kimg", "minutes", "images/s",
    "gamma G", "gamma D",
)  # fmt: skip


def _cells(line: dict[str, Any]) -> list[str]:
    """A line of the table as `HEADER` names it."""

    def number(key: str, decimals: int = 3) -> str:
        return "-" if line[key] is None else f"{line[key]:.{decimals}f}"

    def with_spread(key: str) -> str:
        spread = line[f"{key}_spread"]
        return number(key) + ("" if spread is None else f" (spread {spread:.3f})")

    def interval(key: str) -> str:
        return f" [{number(f'{key}_low')}, {number(f'{key}_high')}]"

    def gates(network: str) -> str:
        found = line[f"gamma_{network}"]
        return " ".join(f"{side}: {value:+.3f}" for side, value in found.items()) if found else "-"

    paper_pair = " / ".join(_paper(line, f"paper_ms_ssim_{kind}") for kind in ("real", "generated"))
    if not line["seeds"]:
        failed = f"failed ({line['failed_seeds']})"
        return [line["name"], _paper(line, "paper_fid"), failed, "-", paper_pair, *["-"] * (len(HEADER) - 5)]
    verdict = f"MG > MR in {line['collapsed_seeds']} of {line['seeds']}" if line["collapsed_seeds"] else "no sign"
    return [
        line["name"],
        _paper(line, "paper_fid"),
        with_spread("frechet"),
        number("frechet_floor"),
        paper_pair,
        number("ms_ssim_real") + interval("ms_ssim_real"),
        with_spread("ms_ssim_generated") + interval("ms_ssim_generated"),
        verdict,
        with_spread("recall"),
        with_spread("coverage"),
        number("kid_x1000"),
        number("swd", 1),
        str(line["seeds"]) + (f" ({line['failed_seeds']} failed)" if line["failed_seeds"] else ""),
        number("kimg", 1) + (f" ({line['ended_early_seeds']} ended early)" if line["ended_early_seeds"] else ""),
        number("wall_minutes", 1),
        number("images_per_second", 1),
        gates("generator"),
        gates("discriminator"),
    ]


def _paper(line: dict[str, Any], key: str) -> str:
    return "-" if line[key] is None else f"{line[key]:g}"


TRUE_ALARM, FALSE_ALARM, MISSED_ALARM, ENDED = "yes", "false alarm", "missed", "ended there"
ALARM_HEADER = ("run", "alarm", "of", "MS-SSIM gap at the end", "right", "why")
COLLAPSED_SHARE = 0.5
"""Of the way from real likeness to equal images: from here a scored run counts as collapsed when alarms are judged."""


def alarm_lines(documents: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Runs recognised as collapsed while they trained, or collapsed at their end; columns as in `ALARM_HEADER`."""
    lines: list[tuple[str, ...]] = []
    for document in documents:
        if "scores" not in document:
            continue
        word = ENDED if ended_early(document) else _alarm(document)
        if word not in (TRUE_ALARM, FALSE_ALARM, MISSED_ALARM, ENDED):
            continue
        sign, gap = document["collapse"], document["scores"]["mode_collapse"]["difference"]
        when = f"{sign['images_seen'] / 1000:.0f} kimg, {sign['wall_seconds'] / 60:.0f} minutes" if sign else "none"
        length = f"{document['kimg']:.0f} kimg, {document['wall_minutes']:.0f} minutes"
        name = f"{document['name']}, seed {document['seed']}"
        lines.append((name, when, length, f"{gap:+.3f}", word, sign["reason"] if sign else ""))
    return lines


def alarm_summary(documents: Sequence[dict[str, Any]]) -> str:
    """How often alarms were right, and what ending runs at them saves of the minutes of all.

    A run that was ended at its alarm does not tell whether that was right.
    """
    documents = [document for document in documents if not ended_early(document)]
    words = [_alarm(document) for document in documents]
    count = {word: words.count(word) for word in set(words)}
    trained = [document for document, word in zip(documents, words, strict=True) if word]
    saved = sum(d["wall_minutes"] - d["collapse"]["wall_seconds"] / 60 for d in trained if d["collapse"])
    minutes = sum(document["wall_minutes"] for document in trained)
    return (
        "Collapsed: pairs of images at the end more than half way from the likeness of real ones to equal images. "
        f"{len(trained)} runs: {count.get(TRUE_ALARM, 0)} with an alarm that were collapsed at their end, "
        f"{count.get(FALSE_ALARM, 0)} false alarms, {count.get(MISSED_ALARM, 0)} collapsed without an alarm. "
        f"Ended at their alarm, they would have saved {saved:.0f} of {minutes:.0f} minutes."
    )


def _alarm(document: dict[str, Any]) -> str:
    """Whether the alarm of a run, or its absence, was right; empty for a run without scores."""
    if "scores" not in document or not document["scores"].get("mode_collapse"):
        return ""
    scores = document["scores"]
    alike = scores["mode_collapse"]["difference"] / (1 - scores["ms_ssim_real"]["mean"])
    collapsed = alike > COLLAPSED_SHARE
    if document["collapse"]:
        return TRUE_ALARM if collapsed else FALSE_ALARM
    return MISSED_ALARM if collapsed else "no alarm, no collapse"


def _notes(documents: Sequence[dict[str, Any]], command: str, jobs: int) -> list[str]:
    def several(key: str) -> str:
        found = sorted({str(document[key]) for document in documents if document.get(key)})
        return ", ".join(found) or "unknown"

    scored = [document["scores"] for document in documents if "scores" in document]
    names = {s["features"].get("sha256", s["features"]["name"]): s["features"]["name"] for s in scored if s["features"]}
    features = sorted(names.values()) or ["none"]
    counts = sorted({s["count"] for s in scored})
    notes = [
        f"Command: {command}",
        f"Processor: {several('processor')}; device: {several('device')}; source: {several('commit')}.",
        f"Frechet distance, KID, recall and coverage by features {', '.join(features)}, "
        f"{', '.join(map(str, counts))} images a set; the floor is real against other real images.",
        "The paper's FID is of another network's or other features' distances, of other images and longer trainings: "
        "only the order of rows can be compared with it.",
        "Spread: largest minus smallest of the seeds. MS-SSIM: mean bounds of the 95 % interval within a run.",
    ]
    if len(documents) < jobs:
        notes.insert(0, f"Not finished: {len(documents)} of {jobs} jobs have ended.")
    failed = [f"{d['name']}, seed {d['seed']}: {d['failed']}" for d in documents if "failed" in d]
    return notes + [f"Failed: {reason}" for reason in failed]


def _correlation_lines(correlations: dict[str, dict[str, float | int]]) -> list[str]:
    names = {"frechet": "Frechet distance with the paper's FID", "ms_ssim_generated": "MS-SSIM with the paper's MG"}
    return [
        f"{names[key]}, {found['rows']} rows: {found['rho']:+.2f} (p {found['p']:.2g})"
        for key, found in correlations.items()
    ]


def _markdown(
    title: str,
    lines: Sequence[dict[str, Any]],
    verdicts: Sequence[Verdict],
    correlations: dict[str, dict[str, float | int]],
    alarms: Sequence[tuple[str, ...]],
    summary: str,
    notes: Sequence[str],
) -> str:
    parts = [
        f"# {title}",
        "",
        *markdown_table(HEADER, [_cells(line) for line in lines]),
        "",
        *(f"* {note}" for note in notes),
    ]
    parts += ["", "## The paper's claims", "", NOT_CONFIRMED, ""]
    for verdict in verdicts:
        parts += [f"* {verdict.sentence}: **{verdict.word}**", *(f"  * {line}" for line in verdict.evidence)]
    parts += ["", "## Rank correlation with the paper", "", *(f"* {line}" for line in _correlation_lines(correlations))]
    parts += ["", "## Collapses, and when they were seen", "", summary, "", *markdown_table(ALARM_HEADER, alarms)]
    return "\n".join(parts) + "\n"


def _write_page(
    path: Path,
    title: str,
    lines: Sequence[dict[str, Any]],
    documents: Sequence[dict[str, Any]],
    verdicts: Sequence[Verdict],
    correlations: dict[str, dict[str, float | int]],
    alarms: Sequence[tuple[str, ...]],
    notes: Sequence[str],
    pictures: Path,
) -> None:
    def bullets(items: Sequence[str]) -> str:
        return f"<ul>{''.join(f'<li>{text(item)}</li>' for item in items)}</ul>"

    sections = [section("Rows", table(HEADER, [_cells(line) for line in lines]) + bullets(notes), "wide")]
    rows = [(verdict.sentence, verdict.word, "\n".join(verdict.evidence)) for verdict in verdicts]
    claims = f"<p>{text(NOT_CONFIRMED)}</p>{table(('claim', 'verdict', 'evidence'), rows)}"
    sections.append(section("The paper's claims", claims, "wide"))
    sections.append(section("Rank correlation with the paper", bullets(_correlation_lines(correlations))))
    found = f"<p>{text(alarm_summary(documents))}</p>{table(ALARM_HEADER, alarms)}"
    sections.append(section("Collapses, and when they were seen", found, "wide"))
    strips, curves = [], []
    for document in documents:
        if "scores" not in document:
            continue
        name = f"{document['name']}, seed {document['seed']}"
        picture = pictures / f"{document['key']}.png"
        if picture.is_file():
            encoded = base64.b64encode(picture.read_bytes()).decode()
            strips.append(
                f'<figure><h3>{text(name)}</h3><img class="grid" alt="{text(name)}: synthetic images of equal seeds" '
                f'src="data:image/png;base64,{encoded}"></figure>'
            )
        curves.append(_curves(name, document))
    caption = (
        f"<p><strong>{text(SYNTHETIC)}</strong> A column is a seed, the same latent in all rows of the paper's networks"
        f" ({PLUS} has shorter ones); not chosen.</p>"
    )
    sections.append(section("Images", caption + "".join(strips), "wide"))
    sections.append(section("Training", f'<div class="row">{"".join(curves)}</div>', "wide"))
    write_page(path, title, sections, [RESEARCH_ONLY])


def _curves(name: str, document: dict[str, Any]) -> str:
    """Losses of one run, and its MS-SSIM beside that of real images."""
    found: dict[str, Curve] = {
        key: [(kimg, value) for kimg, value in points] for key, points in document["curves"].items() if points
    }
    end = document["kimg"]
    figures = []
    for title, unit, keys in (
        ("losses", "loss", ("loss_discriminator", "loss_generator")),
        ("likeness", "MS-SSIM of pairs", ("ms_ssim_real", "ms_ssim_generated")),
    ):
        if curves := {key: found[key] for key in keys if key in found}:
            figures.append(chart(f"{name}: {title}", unit, curves, end))
    return "".join(figures)
