"""The two exceptions that reach a user as one line without a traceback, and text that is safe to print in that line."""

import unicodedata

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


def shortened(text: str, most: int = 3000) -> str:
    """A text without its middle if it has more than `most` characters: a file may hold long words, a remedy is last."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} [...] {text[-half:]}"


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
