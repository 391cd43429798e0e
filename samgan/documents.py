"""Typed documents: records that enter or leave the package as JSON, checked once, when they are read.

A document is a frozen dataclass. It is written as a JSON object with a schema number. Reading checks every field
against its type annotation, so code that holds a document can rely on all of its fields.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from samgan.errors import SamganError
from samgan.files import write_json

T = TypeVar("T", bound="Document")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A document of one kind. A subclass adds fields, and names its kind and the command that makes it.

    Fields may be numbers, text, booleans, None, tuples, dictionaries with text as keys, and other dataclasses.
    """

    SCHEMA: ClassVar[int] = 1
    """Increase it when older documents can no longer be read without `upgrade`."""
    KIND: ClassVar[str] = "document"
    """The kind of document, for messages."""
    MADE_BY: ClassVar[str] = "samgan"
    """The command that makes one, for messages."""

    def to_dict(self) -> dict[str, Any]:
        """The document as plain JSON types, with its schema number."""
        tree = {"schema": self.SCHEMA, **msgspec.to_builtins(self)}
        return json.loads(json.dumps(tree))  # lists instead of tuples, as when it is read back

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Bring a document of an earlier schema up to date; documents without a schema number count as schema 0.

        It may raise KeyError, TypeError, ValueError or AttributeError on a malformed document.
        """
        return tree

    @classmethod
    def from_dict(cls: type[T], tree: Any, where: str) -> T:
        """Check a tree of plain JSON types and turn it into a document.

        Args:
            tree: The content of the file.
            where: The file, for messages.

        Raises:
            SamganError: It is not a document of this kind, was edited by hand, or belongs to another version.
        """
        remedy = f"make it again with {cls.MADE_BY}"
        if not isinstance(tree, dict):
            found = type(tree).__name__
            raise SamganError(f"{where}: expected {cls.KIND} (a JSON object), found {found}; {remedy}")
        schema = tree.get("schema", 0)
        if type(schema) is not int or schema > cls.SCHEMA:
            raise SamganError(
                f"{where}: expected {cls.KIND} of schema {cls.SCHEMA} or lower, found schema {schema!r}; use the "
                f"version of samgan that wrote it, or {remedy}"
            )
        try:
            if schema < cls.SCHEMA:
                tree = cls.upgrade(dict(tree), schema)
            return msgspec.convert(tree, cls)
        except msgspec.ValidationError as error:
            problem = explain(error)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            problem = f"{type(error).__name__}: {error}"
        raise SamganError(
            f"{where} is not {cls.KIND} that this version of samgan can read: {' '.join(problem.split())}; {remedy}"
        )

    @classmethod
    def read(cls: type[T], path: Path) -> T:
        """Read a document from a file.

        Raises:
            SamganError: The file is missing, is not JSON, or `from_dict` refuses its content.
        """
        return cls.from_dict(read_json(path, f"make it again with {cls.MADE_BY}"), str(path))

    def write(self, path: Path) -> None:
        """Write the document as JSON, atomically."""
        write_json(path, self.to_dict())


def explain(error: msgspec.ValidationError) -> str:
    """Describe what is wrong with a document, and where."""
    return str(error).replace("`", "").replace("$.", "").replace(" - at $", "")


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        remedy: What to do if it cannot be read, for the message.

    Raises:
        SamganError: The file is missing, cannot be read or is not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise SamganError(f"{path} does not exist; {remedy}") from None
    except OSError as error:
        raise SamganError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SamganError(f"{path} is not valid JSON ({' '.join(str(error).split())}); {remedy}") from None


def parse_json(content: bytes) -> Any:
    """Parse JSON as standards have it: finite numbers, of 64 bits at most, and text that can be written again.

    Names of files that are no text in UTF-8 come as Python has them, with a surrogate from U+DC80 on for each byte.

    Raises:
        ValueError: It is no such JSON.
        RecursionError: It is nested too deeply.
    """
    text = content.decode(json.detect_encoding(content))
    tree = json.loads(text, parse_int=_whole_number, parse_float=_finite, parse_constant=_finite)
    if "\\ud" in text.casefold():
        try:
            json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ValueError(f"half a character, {error.object[error.start]!r}") from None
    return tree


def _finite(words: str) -> float:
    """Parse a number with a decimal point; NaN, Infinity and what is too large for 64 bits are none."""
    number = float(words)
    if not math.isfinite(number):
        raise ValueError(f"the number {words[:20]} is not finite")
    return number


def _whole_number(digits: str) -> int:
    """Parse a whole number below 2^63, which can also become a float; no count or seed is larger."""
    number = int(digits)
    if abs(number) >= 1 << 63:
        raise ValueError(f"a whole number of {len(digits)} digits is out of range")
    return number
