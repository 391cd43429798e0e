"""The grids of a run: pictures of the same seeds at each snapshot."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from samgan.errors import SamganError
from samgan.studio.places import Root

NAME = re.compile(r"kimg-([0-9]{1,12}\.[0-9]{3})\.png")


@dataclass(frozen=True)
class Grid:
    """The grid of one snapshot."""

    name: str
    kimg: float


def find_grids(root: Root, place: str) -> list[Grid]:
    """The grids of a run, oldest first; none if there is no such folder.

    Raises:
        Outside: The place, or the folder of grids, is not below the root.
    """
    try:
        names = os.listdir(root.check(root.find(place) / "grids"))
    except OSError:
        return []
    found = ((name, NAME.fullmatch(name)) for name in names)
    return sorted((Grid(name, float(match[1])) for name, match in found if match), key=lambda grid: grid.kimg)


def has_real_grid(root: Root, place: str) -> bool:
    """Whether a run has a grid of real images beside the others."""
    return (root.find(place) / "grids" / "real.png").is_file()


def grid_file(root: Root, place: str, name: str) -> Path:
    """The file of a grid.

    Raises:
        SamganError: It is not there, or has not the name of a grid.
        Outside: It is not below the root.
    """
    if name != "real.png" and not NAME.fullmatch(name):
        raise SamganError("This is not the name of a grid.")
    path = root.check(root.find(place) / "grids" / name)
    if not path.is_file():
        raise SamganError("There is no such grid.")
    return path
