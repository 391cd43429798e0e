"""Public names of a wing that are imported when they are first used."""

import importlib
from collections.abc import Callable, Collection, Sequence
from typing import Any


def import_when_used(wing: str, modules: Sequence[str], public: Collection[str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a wing, whose light modules can then be used without a wait for its heavy ones.

    Args:
        wing: Its name, such as "samgan.scoring".
        modules: Those of its modules that have the names.
        public: Names that may be asked for.
    """

    def find(name: str) -> Any:
        if name in public:
            for module in modules:
                known = vars(importlib.import_module(f"{wing}.{module}"))
                if name in known:
                    return known[name]
        raise AttributeError(f"module {wing!r} has no attribute {name!r}")

    return find
