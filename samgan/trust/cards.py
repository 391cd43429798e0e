"""Cards that go with a model or a set of images: what the record knows, and visibly open what a person has to add."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from samgan import __version__
from samgan.config import Config
from samgan.data import PreparedSet
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write
from samgan.pages import markdown_table
from samgan.runs import Run
from samgan.sampling import Model, is_model, open_model
from samgan.scoring import Scores, schema_0

OPEN = "**OPEN**"
RESEARCH_ONLY = (
    "Research only. Images of this size diagnose nobody. Every image that samgan makes is synthetic, nobody's, and "
    "says so in its metadata."
)
LIMITS = (
    "Distances at this size do not prove that nobody can be recognised; no differential privacy is claimed.",
    "Scores are against images of the same source. Another hospital's images, devices or patients may differ.",
    "A class that has few real images has few patients: their variety is all that a generator can know.",
    "Labels are those of the source's folders; nobody looked at the synthetic images to see what they show.",
)


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a model, or of a set; whatever is None or empty is not."""

    config: Config | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """environment.json of the run."""
    model_sha256: str = ""
    images_seen: int | None = None
    trained_on: Sequence[str] = ()
    """As `Run.trained_on`."""
    checkpoint: str = ""
    """As `Model.checkpoint`."""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """dataset.json of the prepared set."""
    synthetic: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Synthetic images by class, of a set that holds some: its card is a data card, also where the model is known."""
    screening: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """screening.json of `samgan balance`."""
    scores: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """scores.json of `samgan evaluate`."""
    audit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """audit.json of `samgan audit`."""
    utility: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """utility.json of `samgan utility`."""
    attribution: str = ""
    """Of the images, in the words of whoever makes the card."""
    licence: str = ""


class Item(NamedTuple):
    """One item of a checklist."""

    number: str
    asks: str
    answer: Callable[[Record], str] | None = None
    """From the record; an empty answer, or none, leaves the item open."""


# --- answers


def _class_counts(record: Record) -> str:
    counts = record.data.get("counts", {})
    return "; ".join(
        f"{name}: {', '.join(f'{count} {split}' for split, count in splits.items())}"
        + (f", {record.synthetic[name]} synthetic" if record.synthetic.get(name) else "")
        for name, splits in counts.items()
    )


def _source(record: Record) -> str:
    if not record.data:
        return record.attribution
    told = f"{record.data['source']}, prepared as a set of sha256 {record.data['sha256'][:12]}"
    return f"{told}. {record.attribution}".removesuffix(" ")


def _exclusions(record: Record) -> str:
    left_out = record.data.get("left_out")
    if left_out is None:
        return ""
    exact, bad = (len(left_out.get(key) or ()) for key in ("exact_duplicates", "bad_files"))
    other = sum((left_out.get("ignored_by_suffix") or {}).values())
    return f"{exact} exact duplicates, {bad} unreadable files, {other} files that are no images"


def _preprocessing(record: Record) -> str:
    options = record.data.get("options")
    if not options:
        return ""
    return f"to {record.data['resolution']} px, {record.data['channels']} channel(s), 8 bit; " + ", ".join(
        f"{key} {value}" for key, value in options.items() if key in ("fit", "normalize", "duplicates")
    )


def _subset(record: Record) -> str:
    taken = record.data.get("subset_of")
    if taken:
        chosen = {**taken["patients"], **taken["images"]}
        return f"part of {taken['name']}: {', '.join(f'{key} {n}' for key, n in chosen.items())}, seed {taken['seed']}"
    if record.config and record.config.data.classes and not record.synthetic:
        return f"classes {', '.join(record.config.data.classes)} of the prepared set"
    return ""


def _partitions(record: Record) -> str:
    if not record.data:
        return ""
    if record.data.get("split_by") == "source":
        return f"as the source splits them; {_class_counts(record)}"
    return f"at random, {record.data.get('options', {}).get('holdout', 'a share')} held out; {_class_counts(record)}"


def _level(record: Record) -> str:
    return f"by {record.data['split_by']}" if record.data else ""


def _network(record: Record) -> str:
    if record.config is None:
        return ""
    network = record.config.network
    told = f"told of {network.num_classes} classes" if network.num_classes else "not told of classes"
    return (
        f"samgan preset {record.config.preset}: multi-scale-gradient GAN, {network.resolution} px, "
        f"{network.image_channels} channel(s), {told}; every setting in config.json"
    )


def _software(record: Record) -> str:
    if not record.environment:
        return "samgan; a file does not tell which version trained it" if record.config else ""
    packages = ", ".join(f"{name} {version}" for name, version in record.environment["packages"].items())
    commit = record.environment.get("commit")
    return f"samgan {record.environment['samgan']}" + (f" (commit {commit[:12]})" if commit else "") + f", {packages}"


def _initial(record: Record) -> str:
    if record.config is None:
        return ""
    start = record.environment.get("start")
    if start:
        return f"networks of {start['run']} ({start['images_seen'] / 1000:g} kimg)"
    if len(record.trained_on) > 1:
        sets = ", ".join(sha256[:12] for sha256 in record.trained_on[1:])
        return f"networks of another run, trained on a prepared set of sha256 {sets}"
    return f"random, seed {record.config.training.seed}; no pre-trained weights"


def _training(record: Record) -> str:
    if record.config is None:
        return ""
    training = record.config.training
    seen = f"{record.images_seen / 1000:g} thousand images shown" if record.images_seen else "length not recorded"
    where = f", {record.environment['processor']}, {record.environment['device']}" if record.environment else ""
    return (
        f"{training.loss} loss, penalty {training.penalty}, {training.optimizer}, batches of {training.batch_size}, "
        f"{seen}{where}"
    )


def _selection(record: Record) -> str:
    if record.images_seen is None:
        return ""
    averaged = record.config is not None and record.config.training.ema_halflife_kimg > 0
    chosen = {
        "newest": "the last ones, whatever their scores",
        "best": "the best of several by quick scores, against held-out images where 64 or more are",
    }.get(record.checkpoint, "whether quick scores on held-out images had a say is for you to tell")
    kind = "averaged weights (EMA)" if averaged else "weights"
    return f"{kind} after {record.images_seen / 1000:g} thousand images; {chosen}"


def _metrics(record: Record) -> str:
    if not record.scores:
        return ""
    features = record.scores.get("features") or {}
    return "MS-SSIM of pairs, sliced Wasserstein distance" + (
        f", Frechet distance, KID, precision, recall, density, coverage with features {features['name']}"
        if features
        else ""
    )


def _uncertainty(record: Record) -> str:
    return (
        "intervals of MS-SSIM; every other score beside real images against real ones at the same count"
        if record.scores
        else ""
    )


def _results(record: Record) -> str:
    scores = record.scores
    if not scores:
        return ""
    real, made = scores["ms_ssim_real"], scores["ms_ssim_generated"]
    parts = [f"MS-SSIM {made['mean']:.3f} (real {real['mean']:.3f})"]
    for key, name in (
        ("frechet", "Frechet"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("coverage", "coverage"),
    ):
        if scores.get(key):
            parts.append(f"{name} {scores[key]['value']:.3f} (real {scores[key]['floor']:.3f})")
    return f"{', '.join(parts)}; {scores['count']} images against {scores['count']} of split {scores['data']['split']}"


def _audit_words(record: Record) -> str:
    return str(record.audit.get("verdict", ""))


def _utility_words(record: Record) -> str:
    found = record.utility
    if not found:
        return ""
    decision = found["decisions"]["auc"]
    against = dict.fromkeys(f"'{arms['classical']}'" for arms in decision["chosen"])
    return (
        f"synthetic images: {found['verdict']}; AUC {decision['mean']:+.4f} [{decision['low']:+.4f}, "
        f"{decision['high']:+.4f}] against {' and '.join(against)}, {found['held_out']['patients']} held-out patients"
    )


def _baselines(record: Record) -> str:
    return ", ".join(dict.fromkeys(found["against"] for found in record.utility.get("differences", ())))


def _internal(record: Record) -> str:
    return _utility_words(record) or (
        f"scores on split {record.scores['data']['split']} of the same set" if record.scores else ""
    )


def _model_named(record: Record) -> str:
    return f"weights of sha256 {record.model_sha256[:12]}; samgan is open (Apache-2.0)" if record.model_sha256 else ""


def _category(record: Record) -> str:
    return "generative adversarial network (deep learning) for synthetic radiographs" if record.config else ""


def _goal(record: Record) -> str:
    return "Synthetic images for research: more training images of small classes" if record.config else ""


def _limits(record: Record) -> str:
    return " ".join(LIMITS)


def _numbers(record: Record) -> str:
    left_out = _exclusions(record)
    return _class_counts(record) + (f"; left out: {left_out}" if left_out else "")


def _protocol(record: Record) -> str:
    return "config.json, environment.json and stats.jsonl of the run" if record.environment else ""


def _bits(record: Record) -> str:
    low, high = (record.data.get("enlarged"), record.data.get("near_duplicates"))
    if low is None and high is None:
        return ""
    return f"{high or 0} near duplicates kept on one side of the split; {low or 0} images were smaller than asked for"


CLAIM = (
    Item("1", "kind of AI method, in the title", _category),
    Item("2", "structured summary"),
    Item("3", "background, intended use and clinical role"),
    Item("4", "aims and hypotheses"),
    Item("5", "prospective or retrospective"),
    Item("6", "goal of the study", _goal),
    Item("7", "where the data are from", _source),
    Item("8", "criteria of inclusion and exclusion (here: what was left out of the files)", _exclusions),
    Item("9", "preprocessing", _preprocessing),
    Item("10", "how subsets were chosen", _subset),
    Item("11", "de-identification"),
    Item("12", "missing data"),
    Item("13", "how images were acquired"),
    Item("14", "reference standard: how it was obtained"),
    Item("15", "reference standard: why this one"),
    Item("16", "who annotated"),
    Item("17", "how the test set was annotated"),
    Item("18", "variability between and within raters"),
    Item("19", "how data were assigned to partitions", _partitions),
    Item("20", "level at which partitions are disjoint", _level),
    Item("21", "intended sample size"),
    Item("22", "the model", _network),
    Item("23", "software", _software),
    Item("24", "initial parameters", _initial),
    Item("25", "training", _training),
    Item("26", "how the final model was chosen", _selection),
    Item("27", "ensembles", lambda record: "none" if record.config else ""),
    Item("28", "metrics", _metrics),
    Item("29", "uncertainty", _uncertainty),
    Item("30", "robustness"),
    Item("31", "explainability"),
    Item("32", "tests on internal data", _internal),
    Item("33", "tests on external data"),
    Item("34", "registration of clinical trials"),
    Item("35", "numbers included and excluded", _numbers),
    Item("36", "demographic and clinical characteristics of partitions"),
    Item("37", "performance with uncertainty", _results),
    Item("38", "diagnostic performance and its precision", _utility_words),
    Item("39", "analysis of failures"),
    Item("40", "limitations", _limits),
    Item("41", "implications for practice"),
    Item("42", "full protocol or technical details", _protocol),
    Item("43", "availability of software, model and data", _model_named),
    Item("44", "funding"),
)
MI_CLAIM_GEN = (
    Item("study design", "clinical question and how its answer would be used"),
    Item("study design", "cohort: how it was selected", _source),
    Item("study design", "whom the cohort represents"),
    Item("study design", "baselines compared with", _baselines),
    Item("data and resources", "independence of training and test data", _level),
    Item("data and resources", "pre-trained models and what they saw", _initial),
    Item("data and resources", "architecture and optimisation", _training),
    Item("evaluation", "metrics of quality and diversity", _results),
    Item("evaluation", "benefit for the task, on held-out patients", _utility_words),
    Item("evaluation", "judgement by clinicians"),
    Item("examination", "memorisation and privacy", _audit_words),
    Item("examination", "bias among groups of patients"),
    Item("examination", "known failures", _limits),
    Item("reproducibility", "code, environment and seeds", _software),
    Item("reproducibility", "model and its licence", _model_named),
    Item("ethics", "approval, consent, and terms of the data"),
)
NEEDED = {
    "scores": ("ms_ssim_real", "ms_ssim_generated", "count", "data"),
    "audit": ("verdict",),
    "utility": ("decisions", "verdict", "held_out"),
}
"""What is read of scores.json, audit.json and utility.json."""
CHECKLISTS = {
    "CLAIM": (
        CLAIM,
        "Items by the numbers of the CLAIM 2024 update (Tejani et al., Radiology: Artificial Intelligence 2024, "
        "doi 10.1148/ryai.240300), in short words of our own. Compare with the original before you submit.",
    ),
    "MI-CLAIM-GEN": (
        MI_CLAIM_GEN,
        "Topics of MI-CLAIM-GEN (Miao et al., arXiv:2403.02558) in words and order of our own; its table says more.",
    ),
}


# --- cards


def read_record(
    source: Path,
    data: PreparedSet | None,
    documents: Mapping[str, Path | None],
    *,
    attribution: str = "",
    licence: str = "",
) -> Record:
    """Gather what is known of a run, a file of `samgan export` or a prepared set.

    Args:
        source: Run folder, .safetensors file, or folder of a prepared set.
        data: The set a model was trained on; its hash has to be that of the record.
        documents: By "scores", "audit" and "utility" the file; None: of a run, that beside it if there is one.
        attribution: Of the images.
        licence: Of the model or set.

    Raises:
        UsageError: The source is none of these, or the documents are of another model or set.
    """
    known: dict[str, Any] = {"attribution": attribution, "licence": licence}
    model: Model | None = None
    if is_model(source):
        model = open_model(source)
    if model is not None and source.is_dir():
        known["environment"] = Run.open(source).environment.to_dict()
        documents = {
            name: path or (source / f"{name}.json" if (source / f"{name}.json").is_file() else None)
            for name, path in documents.items()
        }
    elif model is None and (source / "dataset.json").is_file():
        if data is not None:
            raise UsageError(f"--data: {source} is a prepared set itself")
        data = PreparedSet.open(source)
    elif model is None:
        raise UsageError(f"{source}: expected a run folder, a .safetensors file or a prepared set")
    trained_on = next(iter(model.trained_on), "") if model else ""
    if model is not None:
        known |= describe(model)
    if data is not None:
        known["data"] = data.info.to_dict()
        if trained_on and trained_on != data.sha256:
            raise UsageError(
                f"{source} was trained on other data than {data.path} "
                f"(sha256 {trained_on[:12]}, not {data.sha256[:12]})"
            )
    for name, path in documents.items():
        if path is not None:
            document = _read(path, NEEDED[name])
            made_by = {document.get("generated", {}).get("model_sha256"), *document.get("models", {}).values()} - {None}
            if model is not None and made_by and model.sha256 not in made_by:
                of = next(iter(made_by))
                raise UsageError(f"{path} is of another model (sha256 {of[:12]}, not {model.sha256[:12]})")
            own, of = data.sha256 if data is not None else trained_on, document.get("data", {}).get("sha256")
            if name != "scores" and own and of and of != own:  # scores may be against images of another hospital
                raise UsageError(f"{path} is of another prepared set (sha256 {of[:12]}, not {own[:12]})")
            known[name] = schema_0(Scores.from_dict(document, str(path))) if name == "scores" else document
    return Record(**known)


def describe(model: Model) -> dict[str, Any]:
    """What a record knows from the model itself."""
    return {
        "config": model.config,
        "model_sha256": model.sha256,
        "images_seen": model.images_seen,
        "trained_on": model.trained_on,
        "checkpoint": model.checkpoint,
    }


def _read(path: Path, needed: Sequence[str]) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
        if lacking := [key for key in needed if not document.get(key)]:
            raise ValueError(f"it lacks {', '.join(lacking)}; if an earlier version wrote it, make it again")
    except (OSError, ValueError) as error:
        raise SamganError(f"{path} cannot be read: {error}") from None
    return document


def format_card(record: Record) -> str:
    """The card as Markdown: a model card, or, where the record knows of no model, a data card.

    Of every checklist the items that the record answers are filled in, the others are marked `OPEN`, and counted.
    """
    of_model = record.config is not None and not record.synthetic
    title = _title(record)
    tags = [
        "synthetic",
        "medical-imaging",
        "research-only",
        *(["gan", "samgan"] if of_model or record.synthetic else []),
    ]
    lines = ["---", *([f"license: {json.dumps(record.licence)}"] if record.licence else []), "tags:"]
    lines += [f"- {tag}" for tag in tags if of_model or record.synthetic or tag != "synthetic"]
    lines += ["---", "", f"# {title}", ""]
    if of_model or record.synthetic:
        lines += [f"**{RESEARCH_ONLY}**", ""]
    facts = _facts(record)
    lines += [*markdown_table(("", ""), [(name, escape(value)) for name, value in facts.items()]), ""]
    if record.synthetic or (of_model and record.data):
        lines += _classes(record)
    lines += [
        "## Intended use",
        "",
        f"{_goal(record) or 'Research on radiographs'}. {OPEN}: by whom, for which question.",
        "",
    ]
    lines += ["Not for diagnosis, not as test images, not to be shown as patients.", ""]
    for heading, words in (
        ("Scores", _results(record)),
        ("Memorisation", _audit_words(record)),
        ("Whether the images help", _utility_words(record)),
        ("Limits", _limits(record)),
    ):
        lines += [
            f"## {heading}",
            "",
            escape(words) if words else f"{OPEN}: not measured, or not given to this card.",
            "",
        ]
    for name, (items, note) in CHECKLISTS.items():
        answers = [item.answer(record) if item.answer else "" for item in items]
        done = sum(map(bool, answers))
        lines += [
            f"## {name}",
            "",
            f"{done} of {len(items)} answered from the record, {len(items) - done} left to you. {note}",
            "",
        ]
        rows = [
            (item.number, item.asks, escape(answer) if answer else OPEN)
            for item, answer in zip(items, answers, strict=True)
        ]
        lines += [*markdown_table(("", "asks for", "answer"), rows), ""]
    return "\n".join(lines)


def write_card(path: Path, record: Record) -> None:
    """Write `format_card`, atomically."""
    with atomic_write(path) as file:
        file.write(format_card(record).encode("utf-8", "surrogateescape"))  # names of files may be no UTF-8


def _title(record: Record) -> str:
    if record.config is not None and not record.synthetic:
        return f"Model card: {record.config.preset}, {record.config.network.resolution} px"
    what = "Real and synthetic radiographs" if record.synthetic else "Radiographs"
    return f"Data card: {what}, {record.data['resolution']} px"


def _facts(record: Record) -> dict[str, str]:
    facts = {
        "made by": f"samgan {__version__}",
        "model": _network(record),
        "weights": f"sha256 {record.model_sha256}" if record.model_sha256 else "",
        "training": _training(record),
        "began with": _initial(record),
        "data": _source(record),
        "preprocessing": _preprocessing(record),
        "split": _level(record),
        "patients of the set": str(record.data.get("patients", "")),
        "left out": _exclusions(record),
        "quality of the files": _bits(record),
        "command": _command(record.environment.get("command", ())),
    }
    always = {"licence": record.licence or OPEN, "attribution of the images": record.attribution or OPEN}
    return {name: value for name, value in facts.items() if value} | always


def _command(words: Sequence[str]) -> str:
    """The command without folders, which are nobody's business."""
    return " ".join(re.sub(r"^((?:--[^=]*|\w+)=)?.*/", r"\1", word) for word in words)


def _classes(record: Record) -> list[str]:
    rows = []
    trained_on = record.config.data.classes if record.config and not record.synthetic else ()
    for name, splits in record.data.get("counts", {}).items():
        if trained_on and name not in trained_on:
            continue
        made = record.synthetic.get(name, 0) if record.synthetic else "-"
        rows.append((escape(name), str(splits.get("train", 0)), str(splits.get("holdout", 0)), str(made)))
    lines = markdown_table(("class", "training images", "held out", "synthetic"), rows)
    for name, found in record.screening.items():
        left_out = ", ".join(f"{count} {reason}" for reason, count in found["left_out"].items()) or "none"
        lines += [
            "",
            f"Screening of {escape(name)}: {found['kept']} of {found['candidates']} stayed; left out: {left_out}.",
        ]
        lines += [f"* {escape(rule)}" for rule in found["rules"]]
    return [*lines, ""]


def escape(words: str) -> str:
    """Text of files and people in a cell of a table: nothing in it is markup; what this module marks as open stays."""
    if words == OPEN:
        return words
    flat = " ".join(words.split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!~" else letter for letter in flat)
