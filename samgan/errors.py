"""The two exceptions that reach a user as one line without a traceback, and the text of other errors in one line."""


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
