"""Whether a model and its images can be trusted: memorisation, screening, verification, cards."""

from typing import TYPE_CHECKING

from samgan.later import import_when_used
from samgan.trust.audit_words import format_audit
from samgan.trust.documents import AuditDocument, ScreenedClass, ScreeningDocument
from samgan.trust.findings import Finding, format_findings
from samgan.trust.verify import verify_files

if TYPE_CHECKING:
    from samgan.trust.auditing import audit
    from samgan.trust.cards import OPEN, escape, format_card, make_form, write_card
    from samgan.trust.checklists import CHECKLISTS, CLAIM
    from samgan.trust.membership import judge
    from samgan.trust.publishing import Published, publish
    from samgan.trust.record import Record, read_record
    from samgan.trust.screening import REASONS, Screen, Screened, check_enough

__all__ = [
    "CHECKLISTS",
    "CLAIM",
    "OPEN",
    "REASONS",
    "AuditDocument",
    "Finding",
    "Published",
    "Record",
    "Screen",
    "Screened",
    "ScreenedClass",
    "ScreeningDocument",
    "audit",
    "check_enough",
    "escape",
    "format_audit",
    "format_card",
    "format_findings",
    "judge",
    "make_form",
    "publish",
    "read_record",
    "verify_files",
    "write_card",
]
# What examines images and models needs torch; a look at what was found does not.
__getattr__ = import_when_used(
    __name__,
    (
        "auditing",
        "cards",
        "checklists",
        "membership",
        "publishing",
        "record",
        "screening",
    ),
    __all__,
)
