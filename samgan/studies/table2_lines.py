"""Lines of the table: mean scores over the seeds of each row, and their rank correlation with the paper."""

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from samgan.scoring import MODE_COLLAPSE, SCORES, MeanOfPairs, Scored
from samgan.studies.claims import rank_correlation
from samgan.studies.sweep_row import Finished, RowDocument, finished_rows
from samgan.studies.table2_document import Cell
from samgan.studies.table2_rows import ROWS, Row

FLOORS = ("frechet",)
"""Scores whose floor has a column, too."""


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """A number as a mean over the scored seeds of a row; None where a seed does not have it."""

    value: float | None = None
    spread: float | None = None
    """Largest minus smallest; None for one seed."""
    floor: float | None = None
    low: float | None = None
    """Mean lower bound of the 95 % interval of a run."""
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableLine:
    """All seeds of one row."""

    row: Row
    seeds: int
    """Those that were scored."""
    failed_seeds: int
    scores: dict[str, Averaged] = field(default_factory=dict)
    ms_ssim_real: Averaged = Averaged()
    ms_ssim_generated: Averaged = Averaged()
    floor_count: int | None = None
    """Images of each set of the floor; None: as many as scores are taken at."""
    collapsed_seeds: int | None = None
    """Seeds with MG above MR by more than its 95 % interval: the paper's sign of a collapse."""
    flagged_seeds: int | None = None
    """Seeds with an alarm while they trained."""
    ended_early_seeds: int | None = None
    """Seeds that ended at their alarm."""
    gamma_generator: dict[str, float] | None = None
    """By side in pixels, the weight of attention at the end."""
    gamma_discriminator: dict[str, float] | None = None
    kimg: float | None = None
    wall_minutes: float | None = None
    images_per_second: float | None = None

    def columns(self) -> dict[str, Cell]:
        """The line as table.csv and table.json have it: a value for each of `COLUMNS`, None where there is none."""
        return {name: COLUMNS[name](self) for name in COLUMNS}


def _score(name: str, which: str) -> Callable[[TableLine], Cell]:
    return lambda line: getattr(line.scores.get(name, Averaged()), which)


def _fields(*names: str) -> dict[str, Callable[[TableLine], Cell]]:
    return {name: operator.attrgetter(name) for name in names}


def _likeness(kind: str) -> dict[str, Callable[[TableLine], Cell]]:
    name = f"ms_ssim_{kind}"
    suffixes = {"": "value", "_low": "low", "_high": "high"}
    return {f"{name}{suffix}": operator.attrgetter(f"{name}.{which}") for suffix, which in suffixes.items()}


def _columns() -> dict[str, Callable[[TableLine], Cell]]:
    found: dict[str, Callable[[TableLine], Cell]] = {"name": operator.attrgetter("row.name"), **_fields("seeds")}
    for name in SCORES:
        found |= {name: _score(name, "value"), f"{name}_spread": _score(name, "spread")}
        if name in FLOORS:
            found[f"{name}_floor"] = _score(name, "floor")
    found |= _fields("floor_count")
    found |= {**_likeness("real"), **_likeness("generated")}
    found["ms_ssim_generated_spread"] = operator.attrgetter("ms_ssim_generated.spread")
    found |= _fields("collapsed_seeds", "flagged_seeds", "ended_early_seeds", "failed_seeds")
    found |= _fields("gamma_generator", "gamma_discriminator", "kimg", "wall_minutes", "images_per_second")
    published = ("paper_fid", "paper_ms_ssim_real", "paper_ms_ssim_generated")
    found |= {name: operator.attrgetter(f"row.{name}") for name in published}
    return found


COLUMNS = _columns()
"""Columns of table.csv and table.json, in their order."""


def summarise(rows: Sequence[RowDocument]) -> list[TableLine]:
    """One line for each row of the table for which a job has ended, in the order of the table.

    Args:
        rows: From `samgan.studies.run_sweep`.
    """
    lines = []
    for name, row in ROWS.items():
        own = [one for one in rows if one.name == name]
        scored = finished_rows(own)
        if scored:
            lines.append(_line(row, scored, len(own) - len(scored)))
        elif own:
            lines.append(TableLine(row=row, seeds=0, failed_seeds=len(own)))
    return lines


def _line(row: Row, scored: list[Finished], failed: int) -> TableLine:
    trained = [one.trained for one in scored]
    scores = [one.scores for one in scored]
    tests = [one.mode_collapse for one in scores if one.mode_collapse]

    def score(name: str) -> Averaged:
        found = [one.scores.get(name) for one in scores]
        values = _values(found, "value")
        return Averaged(value=_mean(values), spread=_spread(values), floor=_mean(_values(found, "floor")))

    def gates(network: str) -> dict[str, float]:
        names = [name for name in trained[0].gamma if name.startswith(network)]
        return {
            name.rpartition("_")[2]: round(statistics.fmean(one.gamma[name] for one in trained), 4) for name in names
        }

    return TableLine(
        row=row,
        seeds=len(scored),
        failed_seeds=failed,
        scores={name: score(name) for name in SCORES},
        ms_ssim_real=_pairs([one.ms_ssim_real for one in scores]),
        ms_ssim_generated=_pairs([one.ms_ssim_generated for one in scores]),
        floor_count=scores[0].floor_count,  # all rows of a sweep are scored in one way
        collapsed_seeds=sum(test.verdict == MODE_COLLAPSE for test in tests),
        flagged_seeds=sum(one.collapse is not None for one in trained),
        ended_early_seeds=sum(one.ended_early for one in trained),
        gamma_generator=gates("generator"),
        gamma_discriminator=gates("discriminator"),
        kimg=_mean([one.kimg for one in trained]),
        wall_minutes=_mean([one.wall_minutes for one in trained]),
        images_per_second=_mean([one.images_per_second for one in trained]),
    )


def _pairs(found: Sequence[MeanOfPairs | None]) -> Averaged:
    means, lows, highs = (_values(found, which) for which in ("mean", "low", "high"))
    return Averaged(value=_mean(means), spread=_spread(means), low=_mean(lows), high=_mean(highs))


def _values(found: Sequence[Scored | MeanOfPairs | None], which: str) -> list[float]:
    """One number of each seed; none if a seed does not have it."""
    return [] if None in found else [getattr(one, which) for one in found]


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 4) if values else None


def _spread(values: Sequence[float]) -> float | None:
    return round(max(values) - min(values), 4) if len(values) > 1 else None


class Correlation(NamedTuple):
    """Spearman's rank correlation of a column with one of the paper's, its two-sided p, and the number of rows."""

    rho: float
    p: float
    rows: int


def rank_correlations(lines: Sequence[TableLine]) -> dict[str, Correlation]:
    """Rank correlation with the paper over its rows: of the Frechet distance with FID, and of MS-SSIM with MG.

    Returns:
        By our column; a pair of columns with fewer than four rows is left out.
    """
    found = {}
    pairs = {"frechet": "paper_fid", "ms_ssim_generated": "paper_ms_ssim_generated"}
    for ours, theirs in pairs.items():
        points = []
        for line in lines:
            measured, published = COLUMNS[ours](line), COLUMNS[theirs](line)
            if isinstance(measured, float) and isinstance(published, float) and not line.row.colour:
                points.append((measured, published))
        if len({measured for measured, _ in points}) < 4:
            continue
        rho, p = rank_correlation(points)
        found[ours] = Correlation(round(rho, 3), round(p, 4), len(points))
    return found
