"""What is known about a model or a set of images: everything that a card can tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from samgan.data import PreparedSet, SetInfo
from samgan.errors import UsageError
from samgan.runs import Environment, Run
from samgan.runs.readers import ReaderTest, read_reader_tests
from samgan.sampling import Model, is_model, is_run, open_model
from samgan.scoring import Scores
from samgan.trust.card_form import CardForm, read_form
from samgan.trust.documents import AuditDocument, ScreenedClass
from samgan.trust.sign_off import SignOff, hash_audit, read_sign_offs
from samgan.trust.utility_document import UtilityDocument

LICENCE, ATTRIBUTION = "licence", "attribution of the images"
"""Keys of two places that every card has."""
DOCUMENTS = ("scores", "audit", "utility")
"""Documents about a model that a card reads: names of their files."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about a model or a set. A field that is None or empty is not known."""

    model: Model | None = None
    environment: Environment | None = None
    """Of the run."""
    data: SetInfo | None = None
    synthetic: Mapping[str, int] = field(default_factory=dict)
    """Synthetic images by class, of a set that holds some. It gets a data card, even if the model is known."""
    screening: Mapping[str, ScreenedClass] = field(default_factory=dict)
    """By class."""
    scores: Scores | None = None
    audits: Mapping[str, AuditDocument] = field(default_factory=dict)
    """By class; "" for all classes together."""
    utility: UtilityDocument | None = None
    readers: tuple[ReaderTest, ...] = ()
    """Blinded tests that are finished, of the weights of the model."""
    other_readers: int = 0
    """Number of tests of other weights of the run."""
    sign_offs: tuple[SignOff, ...] = ()
    """Decisions on the audit of `audits`, the oldest first."""
    other_sign_offs: int = 0
    """Number of decisions on earlier audits."""
    attribution: str = ""
    """Of the images, in the words of the card's author."""
    licence: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    """What a person wrote at places that the record leaves open, by `OpenItem.key`."""

    @property
    def is_of_model(self) -> bool:
        """Whether the card is a model card; otherwise it is a data card."""
        return self.model is not None and not self.synthetic

    @property
    def holds_synthetic(self) -> bool:
        """Whether the set is known to hold synthetic images."""
        return bool(self.synthetic) or (self.data is not None and bool(self.data.synthetic))


def read_record(
    source: Path,
    data: PreparedSet | None = None,
    documents: Mapping[str, Path | None] | None = None,
    *,
    attribution: str = "",
    licence: str = "",
    checkpoint: str = "newest",
    form: CardForm | None = None,
) -> Record:
    """Gather what is known about a model or a prepared set.

    Args:
        source: What `samgan.sampling.open_model` takes, or the folder of a prepared set.
        data: The prepared set that the model was trained on.
        documents: Files by "scores", "audit" and "utility"; default: those in the run folder, if there are any.
        attribution: Of the images.
        licence: Of the model or set.
        checkpoint: "newest", "best" or a checkpoint file, of a run.
        form: What a person added to the card; default: card.json in the folder of the source, if it is there.

    Raises:
        UsageError: The source is none of these, or the set or a document belongs to another model or set.
        SamganError: A file cannot be read.
    """
    files = {name: path for name, path in (documents or {}).items() if path is not None}
    model = environment = None
    tests: tuple[ReaderTest, ...] = ()
    if is_model(source):
        model = open_model(source, checkpoint)
        if is_run(source):
            environment, tests = Run.open(source).environment, read_reader_tests(source)
            beside = {name: source / f"{name}.json" for name in DOCUMENTS}
            files = {name: path for name, path in beside.items() if path.is_file()} | files
    elif (source / "dataset.json").is_file():
        if data is not None:
            raise UsageError(f"--data {data.path}: {source} is a prepared set itself; leave --data out")
        data = PreparedSet.open(source)
    else:
        raise UsageError(f"{source}: expected a run folder, a .safetensors file or a prepared set")
    scores, audit, utility = _read_documents(files, model, _data_sha256(source, model, data))
    signed, earlier = _sign_offs(files["audit"]) if audit else ((), 0)
    form = form or read_form(source if source.is_dir() else source.parent)
    written = form.answers if form else {}
    own_tests = tuple(test for test in tests if model is not None and test.model_sha256 == model.sha256)
    return Record(
        model=model,
        environment=environment,
        data=data.info if data is not None else None,
        scores=scores,
        audits={"": audit} if audit is not None else {},
        utility=utility,
        readers=own_tests,
        other_readers=len(tests) - len(own_tests),
        sign_offs=signed,
        other_sign_offs=earlier,
        attribution=attribution or written.get(ATTRIBUTION, ""),
        licence=licence or written.get(LICENCE, ""),
        answers=written,
    )


def _sign_offs(audit: Path) -> tuple[tuple[SignOff, ...], int]:
    """The decisions on an audit, and the number of those on earlier ones."""
    known, sha256 = read_sign_offs(audit.parent).sign_offs, hash_audit(audit)
    signed = tuple(one for one in known if one.audit_sha256 == sha256)
    return signed, len(known) - len(signed)


def _data_sha256(source: Path, model: Model | None, data: PreparedSet | None) -> str:
    """The hash of the set that the card is about, or that the model was trained on; empty if it is not known."""
    trained_on = next(iter(model.trained_on), "") if model else ""
    if data is None:
        return trained_on
    if trained_on and trained_on != data.sha256:
        raise UsageError(
            f"{source} was trained on other data than {data.path} (sha256 {trained_on[:12]}, not {data.sha256[:12]})"
        )
    return data.sha256


def _read_documents(
    files: Mapping[str, Path], model: Model | None, data_sha256: str
) -> tuple[Scores | None, AuditDocument | None, UtilityDocument | None]:
    """Read the documents that there are, and refuse those about another model or set."""
    scores = Scores.read(files["scores"]) if "scores" in files else None
    audit = AuditDocument.read(files["audit"]) if "audit" in files else None
    utility = UtilityDocument.read(files["utility"]) if "utility" in files else None
    for name, document in (("scores", scores), ("audit", audit), ("utility", utility)):
        if document is not None:
            _check_belongs(files[name], document, model, data_sha256)
    return scores, audit, utility


def _check_belongs(
    path: Path, document: Scores | AuditDocument | UtilityDocument, model: Model | None, data_sha256: str
) -> None:
    """Refuse a document about another model or another prepared set."""
    if isinstance(document, UtilityDocument):
        made_by = set(document.models.values())
    else:
        sha256 = document.generated.model_sha256 if document.generated else None
        made_by = {sha256} if sha256 else set()
    if model is not None and made_by and model.sha256 not in made_by:
        other = next(iter(made_by))
        raise UsageError(f"{path} is about another model (sha256 {other[:12]}, not {model.sha256[:12]})")
    if isinstance(document, Scores) or document.data is None or not data_sha256:
        return  # scores may compare with images of another hospital
    if document.data.sha256 != data_sha256:
        raise UsageError(
            f"{path} is about another prepared set (sha256 {document.data.sha256[:12]}, not {data_sha256[:12]})"
        )
