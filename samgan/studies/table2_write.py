"""Write the table: for people (table.md, table.html), for spreadsheets (table.csv) and for programs (table.json)."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from samgan.files import atomic_write
from samgan.pages import Curve, chart, intervals, markdown_table, png_picture, write_page
from samgan.pictures import SYNTHETIC
from samgan.scoring import SCORES, Score, Scores
from samgan.studies.claims import CLAIMS, REFUTED, Claim, Verdict, judge_claims
from samgan.studies.sweep_row import Finished, RowDocument, finished_rows
from samgan.studies.table2_alarms import ALARM_HEADER, alarm_lines, alarm_summary
from samgan.studies.table2_document import JudgedClaim, Table
from samgan.studies.table2_lines import COLUMNS, Averaged, Correlation, TableLine, rank_correlations, summarise
from samgan.studies.table2_rows import ROWS

HOW_CLAIMS_ARE_TESTED = f"""Claims are tested on runs of the paper's networks, without those that ended early. \
"{REFUTED}" means that the opposite was measured, by more than seeds differ (95 % interval; a wider one for a claim of \
several pairs, because one pair is enough to contradict it). Rows are compared within seeds, which share the order of \
images and latents. Where a run of a row failed, nothing is claimed of that row."""
PUBLISHED = ("paper's FID", "paper's MR / MG")
"""Columns of table.md and table.html for which a table without rows of the paper's networks has no value."""
NOT_COMPARABLE = """The paper's FID was measured with other features, on other images and after longer training, so \
only the order of the rows can be compared with it."""
NOT_SHOWN = ("precision", "density")
"""Scores that only table.csv and table.json have."""


@dataclass(frozen=True, kw_only=True)
class _Result:
    """Everything that the table says."""

    title: str
    header: list[str]
    cells: list[list[str]]
    verdicts: list[Verdict]
    """Empty without claims to test, or without runs of the paper's networks."""
    ranks: list[str]
    """Rank correlations with the paper, one sentence each."""
    alarms: list[tuple[str, ...]]
    alarm_summary: str
    notes: list[str]


def write_table(
    out: Path,
    rows: Sequence[RowDocument],
    *,
    command: str,
    title: str,
    jobs: int | None = None,
    claims: Sequence[Claim] = CLAIMS,
    pictures: Mapping[str, Path] | None = None,
    notes: Sequence[str] = (),
) -> tuple[Table, list[Path]]:
    """Write `table.md`, `table.csv`, `table.json` and `table.html`.

    Args:
        out: The folder.
        rows: From `samgan.studies.run_sweep`.
        command: What was typed, for readers who want to do the same.
        title: Of the page.
        jobs: Number of jobs of the whole sweep, if some may not have ended.
        claims: Those to test.
        pictures: PNG files of synthetic images by the key of a row; default: `rows/KEY.png` of the folder.
        notes: Sentences that stand first among those below the table.

    Returns:
        What table.json holds, and the files.
    """
    lines, judged = summarise(rows), _judged(rows)
    of_paper = any(not line.row.is_recipe for line in lines)
    names, cells = header(_shown(lines)), [_cells(line, _shown(lines)) for line in lines]
    columns = [place for place, name in enumerate(names) if of_paper or name not in PUBLISHED]
    result = _Result(
        title=title,
        header=[names[place] for place in columns],
        cells=[[line[place] for place in columns] for line in cells],
        verdicts=judge_claims(judged, claims, _failed(rows)) if judged else [],
        ranks=_rank_sentences(rank_correlations(lines)),
        alarms=alarm_lines(rows),
        alarm_summary=alarm_summary(rows),
        notes=[*notes, *_notes(rows, command, jobs or len(rows), of_paper)],
    )
    document = Table(
        title=title,
        command=command,
        lines=tuple(line.columns() for line in lines),
        header=tuple(result.header),
        cells=tuple(map(tuple, result.cells)),
        claims=tuple(JudgedClaim(found.sentence, found.word, tuple(found.evidence)) for found in result.verdicts),
        ranks=tuple(result.ranks),
        alarms=result.alarm_summary,
        notes=tuple(result.notes),
    )
    document.write(out / "table.json")
    for name, content in {"table.csv": _csv(lines), "table.md": _markdown(result)}.items():
        with atomic_write(out / name) as file:
            file.write(content.encode("utf-8", "backslashreplace"))
    if pictures is None:
        pictures = {row.key: out / "rows" / f"{row.key}.png" for row in rows}
    _write_page(out / "table.html", result, rows, pictures)
    return document, [out / f"table.{suffix}" for suffix in ("md", "csv", "json", "html")]


def _judged(rows: Sequence[RowDocument]) -> dict[str, dict[int, Scores]]:
    """Scores that claims are tested on, by row and seed: full runs of the paper's networks on radiographs."""
    runs: dict[str, dict[int, Scores]] = {}
    for one in finished_rows(rows):
        row = ROWS[one.row.name]
        if not one.trained.ended_early and not row.colour and not row.is_recipe:
            runs.setdefault(row.name, {})[one.row.seed] = one.scores
    return runs


def _failed(rows: Sequence[RowDocument]) -> dict[str, list[int]]:
    """Seeds whose runs failed, by row."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row.failed is not None:
            found.setdefault(row.name, []).append(row.seed)
    return found


def _csv(lines: Sequence[TableLine]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        cells = line.columns()
        writer.writerow({key: json.dumps(cell) if isinstance(cell, dict) else cell for key, cell in cells.items()})
    return file.getvalue()


def _shown(lines: Sequence[TableLine]) -> list[Score]:
    """Scores in table.md and table.html: those that some row has; the Frechet distance has its own place."""
    known = {name for line in lines for name, found in line.scores.items() if found.value is not None}
    return [score for score in SCORES.values() if score.name in known - {*NOT_SHOWN, "frechet"}]


def header(scores: Sequence[Score]) -> list[str]:
    """Columns of table.md and table.html."""
    published = ["row", PUBLISHED[0], SCORES["frechet"].short, "floor", PUBLISHED[1]]
    published += ["MS-SSIM real [95 %]", "MS-SSIM generated [95 %]", "sign"]
    names = [score.short or score.label for score in scores]
    return [*published, *names, "seeds", "kimg", "minutes", "images/s", "gamma G", "gamma D"]


def _cells(line: TableLine, scores: Sequence[Score]) -> list[str]:
    """A line of the table as `header` names it."""
    row, frechet = line.row, line.scores.get("frechet", Averaged())
    paper_pair = " / ".join(_paper(value) for value in (row.paper_ms_ssim_real, row.paper_ms_ssim_generated))
    if not line.seeds:
        failed = [row.name, _paper(row.paper_fid), f"failed ({line.failed_seeds})", "-", paper_pair]
        return failed + ["-"] * (len(header(scores)) - len(failed))
    sign = f"MG > MR in {line.collapsed_seeds} of {line.seeds}" if line.collapsed_seeds else "no sign"
    return [
        row.name,
        _paper(row.paper_fid),
        _with_spread(frechet),
        _number(frechet.floor) + (f" (at {line.floor_count})" if line.floor_count else ""),
        paper_pair,
        _number(line.ms_ssim_real.value) + _interval(line.ms_ssim_real),
        _with_spread(line.ms_ssim_generated) + _interval(line.ms_ssim_generated),
        sign,
        *(_with_spread(line.scores[score.name], score.decimals) for score in scores),
        str(line.seeds) + (f" ({line.failed_seeds} failed)" if line.failed_seeds else ""),
        _number(line.kimg, 1) + (f" ({line.ended_early_seeds} ended early)" if line.ended_early_seeds else ""),
        _number(line.wall_minutes, 1),
        _number(line.images_per_second, 1),
        _gates(line.gamma_generator),
        _gates(line.gamma_discriminator),
    ]


def _paper(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _number(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _with_spread(found: Averaged, decimals: int = 3) -> str:
    spread = "" if found.spread is None else f" (spread {_number(found.spread, decimals)})"
    return _number(found.value, decimals) + spread


def _interval(found: Averaged) -> str:
    return f" [{_number(found.low)}, {_number(found.high)}]"


def _gates(found: dict[str, float] | None) -> str:
    return " ".join(f"{side}: {value:+.3f}" for side, value in found.items()) if found else "-"


def _notes(rows: Sequence[RowDocument], command: str, jobs: int, of_paper: bool) -> list[str]:
    trained = [row.trained for row in rows if row.trained]

    def several(name: str) -> str:
        found = sorted({str(value) for one in trained if (value := getattr(one, name))})
        return ", ".join(found) or "unknown"

    scored = [row.scores for row in rows if row.scores]
    names = {one.features.sha256: one.features.name for one in scored if one.features}
    features = sorted(names.values()) or ["none"]
    counts = sorted({one.count for one in scored})
    halves = sorted({one.floor_count for one in scored if one.floor_count})
    of_halves = f", at {', '.join(map(str, halves))} images per set: too high for distances at more images"
    notes = [
        f"Command: {command}",
        f"Processor: {several('processor')}; device: {several('device')}; source: {several('commit')}.",
        f"Frechet distance, KID, recall and coverage: features {', '.join(features)}, "
        f"{', '.join(map(str, counts))} images per set. The floor is the score of real images against other real "
        f"images{of_halves if halves else ''}.",
        *([NOT_COMPARABLE] if of_paper else []),
        "Spread: largest minus smallest value of the seeds. MS-SSIM: bounds of the 95 % interval of a run, as means "
        "over the seeds.",
    ]
    if len(rows) < jobs:
        notes.insert(0, f"Not finished: {len(rows)} of {jobs} jobs have ended.")
    return notes + [f"Failed: {row.title}: {row.failed}" for row in rows if row.failed is not None]


def _rank_sentences(correlations: dict[str, Correlation]) -> list[str]:
    names = {"frechet": "Frechet distance with the paper's FID", "ms_ssim_generated": "MS-SSIM with the paper's MG"}
    return [
        f"{names[key]}, {found.rows} rows: {found.rho:+.2f} (p {found.p:.2g})" for key, found in correlations.items()
    ]


def _markdown(result: _Result) -> str:
    parts = [
        f"# {result.title}",
        "",
        *markdown_table(result.header, result.cells),
        "",
        *(f"* {note}" for note in result.notes),
    ]
    if result.verdicts:
        parts += ["", "## The paper's claims", "", HOW_CLAIMS_ARE_TESTED, ""]
    for verdict in result.verdicts:
        parts += [f"* {verdict.sentence}: **{verdict.word}**", *(f"  * {line}" for line in verdict.evidence)]
    if result.verdicts:
        parts += ["", "## Rank correlation with the paper", "", *(f"* {line}" for line in result.ranks)]
    parts += ["", "## Collapses, and when they were noticed", "", result.alarm_summary, ""]
    return "\n".join([*parts, *markdown_table(ALARM_HEADER, result.alarms)]) + "\n"


def _write_page(path: Path, result: _Result, rows: Sequence[RowDocument], pictures: Mapping[str, Path]) -> None:
    strips: list[str] = []
    charts: list[str] = []
    for one in finished_rows(rows):
        picture = pictures.get(one.row.key)
        if picture and picture.is_file():
            with Image.open(picture) as image:
                width = image.width
            spoken = f"{one.row.title}: synthetic images of equal seeds"
            strips.append(png_picture(picture.read_bytes(), one.row.title, spoken, width=width))
        charts += _charts(one)
    write_page(
        path,
        "table2.html",
        result.title,
        result=result,
        claims=[(found.sentence, found.word, "\n".join(found.evidence)) for found in result.verdicts],
        claim_figures=[
            intervals(found.sentence, "below 0: as the claim says; 95 %", found.intervals)
            for found in result.verdicts
            if found.intervals
        ],
        how_claims_are_tested=HOW_CLAIMS_ARE_TESTED,
        alarm_header=ALARM_HEADER,
        synthetic=SYNTHETIC,
        strips=strips,
        charts=charts,
    )


def _charts(one: Finished) -> list[str]:
    """Losses of one run, and its MS-SSIM beside that of real images."""
    found: dict[str, Curve] = {key: list(points) for key, points in one.trained.curves.items() if points}
    return [
        chart(f"{one.row.title}: {title}", unit, curves, one.trained.kimg)
        for title, unit, keys in (
            ("losses", "loss", ("loss_discriminator", "loss_generator")),
            ("likeness", "MS-SSIM of pairs", ("ms_ssim_real", "ms_ssim_generated")),
        )
        if (curves := {key: found[key] for key in keys if key in found})
    ]
