"""The two exceptions that reach a user as one line and no traceback."""


class SamganError(Exception):
    """Something asked for could not be done; the message says what was expected, what came, what to do."""

    on_all_processes = False
    """Whether every process of a run raises it: then it is enough that one of them tells it."""


class UsageError(SamganError):
    """The request itself was wrong (an unknown key, a value out of range): exit status 2."""
