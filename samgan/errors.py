"""The two exceptions that reach a user as one line without a traceback, and text that is safe to print in that line."""

import re
import unicodedata

LONGEST = 500
"""Characters of a line that says what is wrong, with the program's name."""
LONGEST_WORDS = (200, 100, 60)
"""Characters that its words are cut to, one after the other, until it is short enough."""
LEFT_OUT = "[...]"

WARNING = "WARNING: "
"""Begins a sentence about a fault that can spoil results; other sentences say what was decided."""


class SamganError(Exception):
    """Something could not be done; the message says what was expected, what was found and what to do."""

    on_all_processes = False
    """Whether every process of a run raises it. If so, only one of them reports it."""


class UsageError(SamganError):
    """The request itself was wrong (an unknown key, a value out of range): exit status 2."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type's name if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: BaseException) -> str:
    """An error's type and message without line breaks, cut to 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def shortened(text: str, most: int = LONGEST) -> str:
    """A line of at most `most` characters that keeps its beginning and its end: the remedy comes last.

    Long words, such as paths, lose their middle first; where that is not enough, the whole text does.
    """
    for longest in LONGEST_WORDS:
        if len(text) <= most:
            return text
        text = "".join(_without_middle(piece, longest) for piece in re.split(r"(\s+)", text))
    return _without_middle(text, most)


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - len(LEFT_OUT)) // 2
    return f"{text[:half]}{LEFT_OUT}{text[-half:]}"


def shown(text: str) -> str:
    r"""Text as a terminal may show it: control characters, and bytes that are not UTF-8, become escapes like \x1b.

    File names, and text from inside files, could otherwise move the cursor, change colours or break the line.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_safe(character) else _escape(character) for character in text)


def _is_safe(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # Zs: spaces of all widths


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00  # how Python carries a byte of a file name that is not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
