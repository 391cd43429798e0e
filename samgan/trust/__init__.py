"""Whether a model and its images can be trusted: memorisation, screening, verification, cards."""

from samgan.trust.audit import audit
from samgan.trust.audit_words import format_audit
from samgan.trust.cards import OPEN, escape, format_card, write_card
from samgan.trust.checklists import CHECKLISTS, CLAIM
from samgan.trust.documents import AuditDocument, ScreenedClass, ScreeningDocument
from samgan.trust.membership import judge
from samgan.trust.publish import Published, publish
from samgan.trust.record import Record, read_record
from samgan.trust.screening import REASONS, Screen, Screened, check_enough
from samgan.trust.verify import Finding, format_findings, verify_files

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
    "publish",
    "read_record",
    "verify_files",
    "write_card",
]
