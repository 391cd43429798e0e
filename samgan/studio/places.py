"""The folder that the studio shows: names of places below it, and no way out of it."""

import os
from pathlib import Path

from samgan.errors import SamganError, UsageError, shown
from samgan.files import is_system_name


class Outside(SamganError):
    """A place that is not below the root, or is not to be shown."""


class Root:
    """The folder that `samgan studio` was started with.

    A place is text: the path below the root, with slashes. Links below the root may lead anywhere below it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.own = os.path.realpath(path)
        self.path = Path(self.own)
        if not self.path.is_dir():
            raise UsageError(f"{path} is not a folder: samgan studio ROOT takes the one with your sets and runs")

    def find(self, place: str) -> Path:
        """The path of a place, whether something is there or not.

        Raises:
            Outside: It is not below the root, by its words or by links, or has a hidden part.
        """
        if place == ".":  # the root is a set or a run itself
            return self.path
        parts = place.split("/")
        if not all(parts) or any(part.startswith(".") or os.sep in part or "\0" in part for part in parts):
            raise Outside(f"{shown(place)!r} is not a place below the folder of this studio")
        path = self.path.joinpath(*parts)
        self.check(path)
        return path

    def check(self, path: Path) -> Path:
        """Return a path below the root as it is, unless links lead it outside.

        Raises:
            Outside: They do.
        """
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):  # names that no system takes
            real = ""
        if real != self.own and not real.startswith(self.own.rstrip(os.sep) + os.sep):
            named = self.place(path) if path.is_relative_to(self.path) else path.name
            raise Outside(f"{shown(named)} is a link to a place outside of the folder of this studio, or no path")
        return path

    def check_tree(self, path: Path) -> Path:
        """Return a path below the root as it is, unless links lead it, or anything in it, outside.

        For what a command will read, since commands follow links. A link to a folder below the root is looked into,
        too. Hidden files and those of the system are not looked at, as no command reads them. No file is opened:
        100,000 of them take a fraction of a second.

        Raises:
            Outside: A link leads outside; the error names the first one that was found.
        """
        waiting, seen = [path], set[str]()
        while waiting:
            folder = self.check(waiting.pop())
            real = os.path.realpath(folder)
            if real in seen:  # by another link
                continue
            seen.add(real)
            try:
                entries = list(os.scandir(folder))
            except OSError:  # a file; or not ours to read, as the command will say
                continue
            for entry in entries:
                if entry.name.startswith(".") or is_system_name(entry.name):
                    continue
                if entry.is_symlink():
                    self.check(Path(entry.path))
                    inside = os.path.isdir(entry.path)  # unlike `entry.is_dir`, no error where links go in a circle
                else:
                    inside = entry.is_dir()
                if inside:
                    waiting.append(Path(entry.path))
        return path

    @staticmethod
    def inside(place: str, name: str) -> str:
        """The place of something in a place."""
        return name if place == "." else f"{place}/{name}"

    def place(self, path: Path) -> str:
        """The place of a path below the root."""
        return path.relative_to(self.path).as_posix()
