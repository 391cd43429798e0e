"""The answers of a record to items of a checklist, one function for each; empty if the record does not know."""

from collections import Counter

from samgan.scoring import Scores, score_rows
from samgan.scoring.table import ScoreRow
from samgan.trust.documents import AuditDocument
from samgan.trust.record import Record

LIMITS = (
    "Distances at this size do not prove that nobody can be recognised; no differential privacy is claimed.",
    "Scores compare with images of the same source. Images of another hospital, device or patient may differ.",
    "A class with few real images shows few patients, and the generator knows only their variety.",
    "Labels are those of the source's folders or tables; nobody looked at the synthetic images to see what they show.",
)

REASONS_NAMED = 10


def class_counts(record: Record) -> str:
    """Images by class and split."""
    return "; ".join(
        f"{name}: {', '.join(f'{count} {split}' for split, count in splits.items())}"
        + (f", {record.synthetic[name]} synthetic" if record.synthetic.get(name) else "")
        for name, splits in (record.data.counts if record.data else {}).items()
    )


def source(record: Record) -> str:
    """Where the data come from."""
    if record.data is None:
        return record.attribution
    found = f"{record.data.source}, prepared as a set with sha256 {record.data.sha256[:12]}"
    return f"{found}. {record.attribution}" if record.attribution else found


def exclusions(record: Record) -> str:
    """Files that were left out of the prepared set."""
    if record.data is None or record.data.left_out is None:
        return ""
    left_out = record.data.left_out
    other = sum(left_out.ignored_by_suffix.values())
    found = (
        f"{len(left_out.exact_duplicates)} exact duplicates, {len(left_out.bad_files)} unreadable files, {other} files "
        "that are not images"
    )
    if not left_out.unused:
        return found
    reasons = Counter(file.reason.split(":")[0] for file in left_out.unused).most_common()
    named = ", ".join(f"{count} for {reason!r}" for reason, count in reasons[:REASONS_NAMED])
    more = ", ..." if len(reasons) > REASONS_NAMED else ""
    return f"{found}, {len(left_out.unused)} images for other reasons ({named}{more})"


def labels(record: Record) -> str:
    """Where the classes are from, if tables told them."""
    if record.data is None or record.data.labels is None:
        return ""
    used = record.data.labels
    tables = "; ".join(
        f"{table.name} (sha256 {table.sha256[:12]})"
        + (f", labels from {', '.join(table.labels)}" if table.labels else "")
        + (f", guessed from its header: {', '.join(table.guessed)}" if table.guessed else "")
        for table in used.tables
    )
    several = "left out" if used.several == "only-single" else "in the class of their first label"
    uncertain = {"drop": "left out", "positive": "read as present", "negative": "read as absent"}[used.uncertain]
    return (
        f"{tables}. {used.rows_matched} of {used.rows} rows belong to images; {used.files_used} of {used.files} images "
        f"were used. {used.several_labels} images with several labels were {several}; {used.uncertain_labels} with an "
        f"uncertain label were {uncertain}"
    )


def contradictions(record: Record) -> str:
    """Pictures and near duplicates in more than one class."""
    if record.data is None:
        return ""
    exact, near = record.data.contradictions or (), record.data.near_contradictions or ()
    keeps = record.data.options is not None and record.data.options.duplicates == "keep"
    parts = []
    if exact:
        files = sum(len(found.files) for found in exact)
        parts.append(f"{len(exact)} pictures ({files} files), {'kept' if keeps else 'left out'}")
    if near:
        parts.append(f"{len(near)} groups of near duplicates, kept")
    return "; ".join(parts)


def leaks(record: Record) -> str:
    """What the split has on both sides."""
    if record.data is None:
        return ""
    if record.data.leaks is None and record.data.groups_on_both_sides:
        return f"{record.data.groups_on_both_sides} patients, or groups of near duplicates"
    return ", ".join(f"{leak.count} {leak.what}" for leak in record.data.leaks or ())


def synthetic_images(record: Record) -> str:
    """Images of the source that show no patient."""
    if record.data is None or not record.data.synthetic:
        return ""
    return f"{record.data.synthetic} of {record.data.images}, by their files' own words; all are training images"


def notes(record: Record) -> str:
    """What was passed over in the files' metadata."""
    found = record.data.notes or {} if record.data else {}
    return ", ".join(f"{count} x {note}" for note, count in sorted(found.items(), key=lambda item: -item[1]))


def warnings(record: Record) -> str:
    """What `samgan prepare` decided or found wrong."""
    sentences = (record.data.warnings or ()) if record.data else ()
    return ". ".join(sentence.removesuffix(".") for sentence in sentences)


def preprocessing(record: Record) -> str:
    """How files became images of one size."""
    if record.data is None or record.data.options is None:
        return ""
    data, options = record.data, record.data.options
    return (
        f"to {data.resolution} px, {data.channels} channel(s), 8 bit; fit {options.fit}, "
        f"normalize {options.normalize}, duplicates {options.duplicates}"
    )


def subset(record: Record) -> str:
    """How images or classes were chosen from a larger set."""
    if record.data is not None and (taken := record.data.subset_of):
        chosen = {**taken.patients, **taken.images}
        return f"part of {taken.name}: {', '.join(f'{key} {n}' for key, n in chosen.items())}, seed {taken.seed}"
    if record.model is not None and record.model.config.data.classes and record.is_of_model:
        return f"classes {', '.join(record.model.config.data.classes)} of the prepared set"
    return ""


def partitions(record: Record) -> str:
    """How images were assigned to training and held-out images."""
    if record.data is None:
        return ""
    if record.data.split_by == "source":
        return f"as in the source; {class_counts(record)}"
    share = f"{record.data.options.holdout:g}" if record.data.options else "a share"
    return f"at random, {share} held out; {class_counts(record)}"


def split_level(record: Record) -> str:
    """The unit of the split: patients or single images."""
    return f"by {record.data.split_by}" if record.data else ""


def network(record: Record) -> str:
    """The architecture, in short."""
    if record.model is None:
        return ""
    config, settings = record.model.config, record.model.config.network
    labels = f"with labels of {settings.num_classes} classes" if settings.num_classes else "without class labels"
    return (
        f"samgan preset {config.preset}: multi-scale-gradient GAN, {settings.resolution} px, "
        f"{settings.image_channels} channel(s), {labels}; all settings are in config.json"
    )


def software(record: Record) -> str:
    """Versions of the software."""
    environment = record.environment
    if environment is None or not environment.samgan:
        return "samgan; an exported file does not record which version trained it" if record.model else ""
    commit = f" (commit {environment.commit[:12]})" if environment.commit else ""
    packages = "".join(f", {name} {version}" for name, version in environment.packages.items())
    return f"samgan {environment.samgan}{commit}{packages}"


def initial_weights(record: Record) -> str:
    """The weights that the training began with."""
    if record.model is None:
        return ""
    if record.environment is not None and (start := record.environment.start):
        return f"the networks of {start.run} ({start.images_seen / 1000:g} kimg)"
    if len(record.model.trained_on) > 1:
        sets = ", ".join(sha256[:12] for sha256 in record.model.trained_on[1:])
        return f"the networks of another run, trained on a prepared set with sha256 {sets}"
    return f"random, seed {record.model.config.training.seed}; no pre-trained weights"


def training(record: Record) -> str:
    """Loss, optimizer, length and machine."""
    if record.model is None:
        return ""
    settings, seen = record.model.config.training, record.model.images_seen
    length = f"{seen / 1000:g} thousand images shown" if seen else "length not recorded"
    environment = record.environment
    machine = [environment.processor, environment.device] if environment is not None else []
    parts = [
        f"{settings.loss} loss",
        f"penalty {settings.penalty}",
        settings.optimizer,
        f"batches of {settings.batch_size}",
        length,
        *filter(None, machine),
    ]
    return ", ".join(parts)


def selection(record: Record) -> str:
    """How the final weights were chosen."""
    if record.model is None:
        return ""
    chosen = {
        "newest": "the newest ones, whatever their scores",
        "best": "the best of several by quick scores; these compare with held-out images if there are 64 or more",
    }.get(record.model.checkpoint, "add whether quick scores on held-out images decided: this is not recorded")
    averaged = record.model.config.training.ema_halflife_kimg > 0
    kind = "averaged weights (EMA)" if averaged else "weights"
    return f"{kind} after {record.model.images_seen / 1000:g} thousand images; {chosen}"


def metrics(record: Record) -> str:
    """Which scores were computed."""
    if record.scores is None:
        return ""
    features = f"; features of {record.scores.features.name}" if record.scores.features else ""
    return ", ".join(["MS-SSIM of pairs", *(row.label for row in _score_rows(record.scores))]) + features


def _score_rows(scores: Scores) -> list[ScoreRow]:
    """Each score once, without its levels."""
    return [row for row in score_rows(scores) if not row.by_level]


def uncertainty(record: Record) -> str:
    """What the scores say about their uncertainty."""
    if record.scores is None:
        return ""
    half, count = record.scores.floor_count, record.scores.count
    many = "equally many" if half is None else f"{half}, not {count},"
    return f"MS-SSIM has an interval; every other score is given with that of {many} real images against real ones"


def results(record: Record) -> str:
    """The scores, each with its floor: the same score of real images."""
    scores = record.scores
    if scores is None:
        return ""
    parts = []
    if scores.ms_ssim_real and scores.ms_ssim_generated:
        parts.append(f"MS-SSIM {scores.ms_ssim_generated.mean:.3f} (real {scores.ms_ssim_real.mean:.3f})")
    parts += [f"{row.label} {row.value} (real {row.floor})" for row in _score_rows(scores)]
    half = scores.floor_count
    of_real = "" if half is None else f" (real: {half} against {half}, other than MS-SSIM)"
    return f"{', '.join(parts)}; {scores.count} images against {scores.count}{_of_split(record)}{of_real}"


def _of_split(record: Record) -> str:
    data = record.scores.data if record.scores else None
    return f" of split {data.split}" if data and data.split else ""


def memorisation(record: Record) -> str:
    """The verdict of the audit, or of each class's audit, and what a reader needs to know to judge it."""
    return " ".join(_of_audit(name, audit) for name, audit in record.audits.items())


def _of_audit(class_name: str, audit: AuditDocument) -> str:
    of = [class_name] if class_name else []
    if not audit.generated.model_sha256:
        word = "of" if of else "Of"
        of.append(f"{word} the images {audit.generated.name}, whose model is not recorded")
    verdict = f"{', '.join(of)}: {audit.verdict}" if of else audit.verdict
    left_out = ", ".join(part.what for part in audit.skipped)  # the reasons can hold folders of the machine
    return " ".join([verdict, *audit.notes, *([f"Left out of the audit: {left_out}."] if left_out else [])])


def sign_offs(record: Record) -> str:
    """Who looked at the audit of memorisation, when, and what they decided; names are as they were typed."""
    parts = [
        f"{one.name}, {one.date}: {one.decision}{f' ({one.remark})' if one.remark else ''}; audit.json with SHA-256 "
        f"{one.audit_sha256[:16]}."
        for one in record.sign_offs
    ]
    if record.other_sign_offs:
        parts.append(f"Decisions on earlier audits, which do not count here: {record.other_sign_offs}.")
    return " ".join(parts)


def readers(record: Record) -> str:
    """What readers found in blinded tests of real and synthetic pictures."""
    parts = []
    for test in record.readers:
        found = test.result
        assert found is not None
        right, real, made = found.accuracy, found.real_called_real, found.synthetic_called_synthetic
        against = "held-out" if test.split == "holdout" else "training"
        words = (
            f"{test.reader} ({test.started[:10]}): {right.count} of {right.total} pictures named rightly, "
            f"{100 * right.value:.0f} % [{100 * right.low:.0f}, {100 * right.high:.0f}]; "
            f"{real.count} of {real.total} real ({against}) and {made.count} of {made.total} synthetic images"
        )
        if found.median_seconds is not None:
            words += f"; median {found.median_seconds:.1f} s a picture"
        if found.classes:
            by_class = (f"{name} {rate.count} of {rate.total}" for name, rate in found.classes.items())
            words += f"; by class: {', '.join(by_class)}"
        parts.append(f"{words}.")
    if record.other_readers:
        parts.append(f"Tests of other weights of this run, which do not count here: {record.other_readers}.")
    return " ".join(parts)


def utility(record: Record) -> str:
    """Whether synthetic images helped a classifier."""
    found = record.utility
    if found is None:
        return ""
    auc = found.decisions["auc"]
    against = dict.fromkeys(f"'{arms.classical}'" for arms in auc.chosen)
    return (
        f"synthetic images: {found.verdict}; AUC {auc.mean:+.4f} [{auc.low:+.4f}, {auc.high:+.4f}] against "
        f"{' and '.join(against)}, {found.held_out.patients} held-out patients"
    )


def baselines(record: Record) -> str:
    """The classifiers without synthetic images that the others were compared with."""
    return ", ".join(dict.fromkeys(found.against for found in record.utility.differences)) if record.utility else ""


def internal_tests(record: Record) -> str:
    """Tests on data of the same source."""
    if record.utility is not None:
        return utility(record)
    return f"scores{_of_split(record)} of the same set" if record.scores else ""


def availability(record: Record) -> str:
    """Which weights, and whether the software is open source."""
    return f"weights with sha256 {record.model.sha256[:12]}; samgan is open source (Apache-2.0)" if record.model else ""


def category(record: Record) -> str:
    """The kind of method."""
    return "generative adversarial network (deep learning) for synthetic radiographs" if record.model else ""


def goal(record: Record) -> str:
    """What the model is for."""
    return "Synthetic images for research: more training images of small classes" if record.model else ""


def ensembles(record: Record) -> str:
    """Whether several models work together."""
    return "none" if record.model else ""


def limits(record: Record) -> str:
    """Limits of every model and set that samgan makes."""
    return " ".join(LIMITS)


def numbers(record: Record) -> str:
    """How many images were included and excluded."""
    left_out = exclusions(record)
    return class_counts(record) + (f"; left out: {left_out}" if left_out else "")


def protocol(record: Record) -> str:
    """Where the full settings and the log are."""
    return "config.json, environment.json and stats.jsonl of the run" if record.environment else ""


def file_quality(record: Record) -> str:
    """Near duplicates and enlarged images."""
    if record.data is None or (record.data.enlarged is None and record.data.near_duplicates is None):
        return ""
    near, enlarged = record.data.near_duplicates or 0, record.data.enlarged or 0
    return f"{near} near duplicates, kept on one side of the split; {enlarged} images had to be enlarged"
