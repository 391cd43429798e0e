"""The two exceptions that a user sees as one line, without a traceback."""


class SamganError(Exception):
    """Something could not be done; the message says what was expected, what was found and what to do."""

    on_all_processes = False
    """Whether every process of a run raises it, so that only one of them needs to report it."""


class UsageError(SamganError):
    """The request itself was wrong, such as an unknown key or a value out of range; the exit status is 2."""
