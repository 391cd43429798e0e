"""The Mermaid diagrams of the documents and the drawings of them."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[1]
DIAGRAMS = DOCS / "diagrams"
FENCE = re.compile(r"^```mermaid\n(.*?)^```\n", flags=re.S | re.M)


def fingerprint(source: str) -> str:
    """SHA-256 of a diagram's source."""
    return hashlib.sha256(source.encode()).hexdigest()


def diagrams_of(page: Path) -> Iterator[tuple[str, str]]:
    """Name and source of each diagram of a document."""
    for number, source in enumerate(FENCE.findall(page.read_text("utf-8")), start=1):
        yield f"{page.stem}-{number}", source


def drawing(name: str, source: str) -> str | None:
    """The SVG of a diagram, or None if there is none of this very source."""
    path = DIAGRAMS / f"{name}.svg"
    if not path.is_file():
        return None
    first, _, svg = path.read_text("utf-8").partition("\n")
    return svg if fingerprint(source) in first else None
