"""Table 2: the table of a sweep, what it says about the paper's claims, and images of each row."""

import re

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from samgan.errors import SamganError
from samgan.studies.table2_document import Cell, Table
from samgan.studio.view import Page, Studio, asked, respond, studio_of

FILE = "table.json"
PICTURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.png")
KEY = re.compile(r"(.+)-seed([0-9]+)-[0-9a-f]{8}\.png")
SHOWN = {
    "name": "row",
    "seeds": "seeds",
    "frechet": "Frechet",
    "frechet_floor": "floor",
    "ms_ssim_real": "MS-SSIM real",
    "ms_ssim_generated": "MS-SSIM generated",
    "collapsed_seeds": "seeds with MG > MR",
    "kimg": "kimg",
}
"""Columns of a table of an earlier version, which has no text for readers, and what they are called."""


def table2(request: Request) -> Response:
    """The list, or one table."""
    wanted, studio = asked(request), studio_of(request)
    if "at" not in wanted:
        found = studio.catalogue.documents(Table, FILE)
        return respond(request, "table2_list.html", title="Table 2", page="/table2", found=found)
    place = wanted["at"]
    one = studio.catalogue.document(Table, place, FILE)
    header, rows = _text(one.document) if one.document else ((), [])
    return respond(
        request, "table2_page.html", title=f"Table 2: {place}", page="/table2", place=place, found=one,
        table=one.document, header=header, rows=rows, pictures=_pictures(studio, place),
    )  # fmt: skip


def row_picture(request: Request) -> Response:
    """Synthetic images of one job, as they lie in the folder of the sweep."""
    wanted, studio = asked(request), studio_of(request)
    name = wanted.get("name", "")
    if not PICTURE.fullmatch(name):
        raise SamganError("This is not the name of a picture of a row.")
    path = studio.root.check(studio.root.find(wanted.get("at", "")) / "rows" / name)
    if not path.is_file():
        raise SamganError("There is no such picture.")
    return FileResponse(path, media_type="image/png", headers={"cache-control": "private, max-age=600"})


def _text(table: Table) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and lines for readers."""
    if table.header:
        return table.header, [cells for cells in table.cells if len(cells) == len(table.header)]
    return tuple(SHOWN.values()), [tuple(_cell(line.get(name)) for name in SHOWN) for line in table.lines]


def _cell(value: Cell) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _pictures(studio: Studio, place: str) -> list[tuple[str, str]]:
    """The pictures of rows: their files, and which job each shows."""
    try:
        folder = studio.root.check(studio.root.find(place) / "rows")
        names = sorted(path.name for path in folder.iterdir() if PICTURE.fullmatch(path.name))
    except OSError:
        return []
    found = ((name, KEY.fullmatch(name)) for name in names)
    return [(name, f"{key[1]}, seed {key[2]}" if key else name.removesuffix(".png")) for name, key in found]


PAGE = Page("Table 2", "/table2", (Route("/table2", table2), Route("/table2/row.png", row_picture)))
