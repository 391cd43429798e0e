"""Make a balanced set from an imbalanced one, in stages that each write a file or a folder.

These are plan.json, training.json (and the runs under `models`), scores/, screening.json and .csv, audit/, set/,
utility/ and report.html. A finished stage is not done again.
"""

from dataclasses import replace
from pathlib import Path

from samgan.data import PreparedSet, check_prepared
from samgan.devices import choose_device
from samgan.errors import SamganError
from samgan.files import Location, locked
from samgan.studies.balance_advice import short_advice
from samgan.studies.balance_documents import BalanceDocument, Plan, TrainingDocument
from samgan.studies.balance_page import write_report
from samgan.studies.balance_plan import BalanceRequest, keep_plan, make_plan
from samgan.studies.balance_set import write_cards, write_set
from samgan.studies.balance_stages import (
    Work,
    audit_model,
    check_classes,
    check_screening,
    score_model,
    screen_images,
    stage,
    train_models,
)
from samgan.studies.downstream import utility
from samgan.terminal import say
from samgan.trust import ScreeningDocument
from samgan.trust.utility_document import ClassImages, UtilityDocument


def balance(data: PreparedSet, out: Location, request: BalanceRequest | None = None) -> tuple[BalanceDocument, Path]:
    """Make the images that classes lack, screen and audit them, write the set, and test whether it helps a classifier.

    Args:
        data: Prepared set with two classes or more. Only training's quick scores, which choose nothing here,
            audit and utility use its held-out images; no image is made or chosen with their help.
        out: Folder to write: new, or one that was begun with the same request.
        request: What to make; default: as many images of every class as the largest has, by one model trained for an
            hour.

    Returns:
        The document and the path of the report.

    Raises:
        UsageError: The request is not possible, or differs from the one that the folder was begun with.
        SamganError: Another call uses the folder; there are too few training images of a class that lacks some, or too
            few held-out ones; or a stage failed. Finished stages are kept, and the next call continues after them.
    """
    check_prepared(data)
    request, out = request or BalanceRequest(), Path(out)
    device = choose_device(request.device)
    if not request.features and (out / "plan.json").is_file():  # go on as the folder was begun
        request = replace(request, features=Plan.read(out / "plan.json").features)
    plan = make_plan(data, request, device)
    if not (out / "plan.json").is_file():
        keep_plan(plan, out)  # makes the folder, which the lock needs
    with locked(out, f"{out} is in use by another samgan balance; wait for it to end, or stop it"):
        keep_plan(plan, out)
        if not (out / "training.json").is_file():
            say(f"samgan: {short_advice()}")  # before hours are spent
        return _make(Work(data, out, plan, device, request.features_file), request.originals)


def _make(work: Work, originals: Path | None) -> tuple[BalanceDocument, Path]:
    """Do all stages that are not finished yet."""
    out, plan = work.out, work.plan
    work.models = stage(out / "training.json", "training", TrainingDocument, lambda: train_models(work)).models
    check_classes(out / "training.json", work.models, plan)
    scores = {name: score_model(work, name) for name in plan.missing}
    screening = stage(out / "screening.json", "screening", ScreeningDocument, lambda: screen_images(work)).classes
    check_screening(out, screening, plan)
    audits = {name: audit_model(work, name) for name in plan.missing}
    write_set(work, originals)
    found = _test(work)
    document = BalanceDocument(
        plan=plan,
        training=work.models,
        scores=scores,
        screening=screening,
        audit=audits,
        utility=found,
        skipped=tuple(work.skipped),
        counts={
            name: ClassImages(counts.real, screening[name].kept if name in screening else 0)
            for name, counts in plan.classes.items()
        },
    )
    write_cards(work, document)
    write_report(work, document)
    document.write(out / "balance.json")
    return document, out / "report.html"


def _test(work: Work) -> UtilityDocument | None:
    """Test on held-out patients whether the images that were kept help a classifier."""
    asked, folder = work.plan.utility, work.out / "utility"
    if not asked.seeds:
        return None
    path = folder / "utility.json"
    if path.is_file():
        try:
            UtilityDocument.read(path)
        except SamganError as error:  # cheap: most predictions are in the cache
            say(f"samgan: {error}; the test is done again now")
            path.unlink()

    def make() -> UtilityDocument:
        synthetic = {name: work.images(name) for name in work.plan.missing}
        if none := [name for name, images in synthetic.items() if not len(images)]:
            raise SamganError(f"screening kept no synthetic image of {none[0]}")
        beside = {name: len(synthetic.get(name, ())) for name in work.names}
        synthetic |= work.counterparts(max(beside.values()))
        document, _ = utility(
            work.data,
            synthetic,
            folder,
            classes=work.names,
            beside=beside,
            seeds=asked.seeds,
            steps=asked.steps,
            device=work.device,
            models={name: model.sha256 for name, model in work.models.items()},
        )
        return document

    return work.optional(path, "utility", UtilityDocument, make)
