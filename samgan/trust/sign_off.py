"""audit-sign-offs.json: who has looked at an audit, and what they decided."""

import hashlib
import threading
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import ClassVar, Literal, get_args

from samgan.documents import Document
from samgan.errors import SamganError, UsageError

FILE = "audit-sign-offs.json"
Decision = Literal["accepted", "not accepted"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
LONGEST = {"name": 200, "remark": 4000}
"""Characters of what a person writes."""
_adding = threading.Lock()


@dataclass(frozen=True)
class SignOff:
    """One person's decision on one audit."""

    name: str
    date: str
    """Year, month and day, such as 2026-11-29."""
    decision: Decision
    remark: str
    audit_sha256: str
    """Of the file audit.json that the person saw."""


@dataclass(frozen=True, kw_only=True)
class SignOffs(Document):
    """All decisions on the audits that have been in a folder, the oldest first."""

    KIND: ClassVar[str] = "a list of sign-offs"
    MADE_BY: ClassVar[str] = "samgan studio, after you have moved it away"

    sign_offs: tuple[SignOff, ...]


def hash_audit(path: Path) -> str:
    """SHA-256 of a file of `samgan audit`, in hexadecimal.

    Raises:
        SamganError: It is not there, or cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SamganError(f"{path} cannot be read: {error.strerror}") from None


def read_sign_offs(folder: Path) -> SignOffs:
    """Read the sign-offs of a folder; none if there is no such file.

    Raises:
        SamganError: It is damaged.
    """
    path = folder / FILE
    return SignOffs.read(path) if path.exists() else SignOffs(sign_offs=())


def add_sign_off(folder: Path, sign_off: SignOff) -> None:
    """Add a decision to those of a folder.

    Raises:
        UsageError: The name is empty, something is too long, or the date is none or in the future.
        SamganError: The audit is another by now, or the earlier sign-offs are damaged; nothing is written.
    """
    if not sign_off.name.strip():
        raise UsageError("name: expected the name of the person who decides")
    for field, most in LONGEST.items():
        if len(getattr(sign_off, field)) > most:
            raise UsageError(f"{field}: expected at most {most} characters")
    try:
        day = date.fromisoformat(sign_off.date)
    except ValueError:
        raise UsageError(f"date: expected a day such as 2026-11-29, found {sign_off.date!r}") from None
    if day > date.today():
        raise UsageError(f"date: {sign_off.date} is in the future")
    with _adding:
        if hash_audit(folder / "audit.json") != sign_off.audit_sha256:
            raise SamganError("The audit was made again since you opened this page: look at it again, then sign.")
        known = read_sign_offs(folder)
        SignOffs(sign_offs=(*known.sign_offs, sign_off)).write(folder / FILE)
