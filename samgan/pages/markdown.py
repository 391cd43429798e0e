"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table. Text from outside must not contain "|" or line breaks; see `cell`."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def cell(text: str) -> str:
    """Text from outside as one cell of a table."""
    return " ".join(text.replace("|", "/").split())
