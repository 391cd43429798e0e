"""How often claims of the protocol are decided wrongly where no two rows differ, by how seeds are lucky.

`samgan.studies.paired` takes it for granted that a seed is as lucky for all rows, and that runs spread equally.

    python results/verdict/error_rates.py          # writes error_rates.csv: minutes
    python results/verdict/error_rates.py table    # prints the table of protocol.md

Scores of all rows and seeds are drawn from one distribution, and judged as verdict.py judges measured ones.
"""

import csv
import functools
import io
import math
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import verdict

from samgan.files import atomic_write
from samgan.scoring import CollapseTest, MeanOfPairs, Scored, Scores
from samgan.scoring.documents import Counts
from samgan.studies import CONFIRMED, REFUTED, ROWS, SIGN, judge_claims

FILE = Path(__file__).parent / "error_rates.csv"
SEED_LUCK = 0.3
"""Standard deviation of what a seed brings to all rows alike, in ln(Frechet distance)."""
TABLES = {100: 200, 200: 400, 400: 1000}
"""How many are simulated at each length: most where few rows take part."""


class Spread(NamedTuple):
    """How runs of equal rows differ."""

    of_runs: Callable[[str], float]
    """By row, the standard deviation of what is its run's alone, in ln(Frechet distance)."""
    of_families: float = 0.0
    """That of what a seed brings to all rows of SAMGAN, or to all of MSG-GAN."""


SPREADS = {
    "as assumed": Spread(lambda row: 0.4),
    "seeds lucky by family, 0.4": Spread(lambda row: 0.4, 0.4),
    "seeds lucky by family, 0.55; runs 0.3": Spread(lambda row: 0.3, 0.55),
    "runs of SAMGAN 0.6, of MSG-GAN 0.2": Spread(lambda row: 0.6 if row.startswith("samgan") else 0.2),
}


def scores_of(luck: float, own: np.ndarray) -> Scores:
    """Scores whose three measures have this luck in common, each with a part of its own."""
    frechet, missed, likeness = luck + own
    recall = math.cos(min(max(1.1 + 0.15 * missed, 0.05), 1.56)) ** 2
    alike = 1 - math.exp(-(0.75 + 0.2 * likeness))
    pairs = MeanOfPairs(alike, alike, alike, 0.0, 1)
    return Scores(
        protocol="standard",
        resolution=64,
        seed=0,
        count=verdict.COUNT,
        counts=Counts(verdict.COUNT, verdict.COUNT),
        features=None,
        ms_ssim_real=pairs,
        ms_ssim_generated=pairs,
        mode_collapse=CollapseTest("no sign of mode collapse", 0.0, 0.0, 0.0),
        scores={"frechet": Scored(math.exp(frechet), 1.0), "recall": Scored(recall, 1.0)},
    )


def simulated(kimg: float, spread: Spread, draw: np.random.Generator) -> dict[str, dict[int, Scores]]:
    """One table of rows that do not differ."""

    @functools.cache
    def luck(family: str, seed: int) -> float:
        return float(draw.normal() * (spread.of_families if family else SEED_LUCK))

    runs: dict[str, dict[int, Scores]] = defaultdict(dict)
    for row, seed in sorted(verdict.planned_at(kimg)):
        if not ROWS[row].is_recipe:
            family = "samgan" if row.startswith("samgan") else "msg-gan"
            own = draw.normal(size=3) * spread.of_runs(row)
            runs[row][seed] = scores_of(luck("", seed) + luck(family, seed), own)
    return runs


def main() -> None:
    """Write error_rates.csv."""
    rows = []
    for name, spread in SPREADS.items():
        for kimg, tables in TABLES.items():
            claims = [claim for claim in verdict.claims_at(kimg) if claim.sentence != SIGN]
            words: dict[str, Counter[str]] = defaultdict(Counter)
            draw = np.random.default_rng(zlib.crc32(f"{name} {kimg}".encode()))
            for _ in range(tables):
                for found in judge_claims(simulated(kimg, spread, draw), claims):
                    words[found.sentence][found.word] += 1
            for sentence, count in words.items():
                shares = {word: f"{count[word] / tables:.3f}" for word in (CONFIRMED, REFUTED)}
                rows.append({"seeds": name, "kimg": kimg, "claim": sentence, "tables": tables, **shares})
            print(name, kimg, flush=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(FILE) as file:
        file.write(text.getvalue().encode())


def table() -> str:
    """Claims by line, what is assumed of seeds by column: shares of tables that confirm / do not confirm it."""
    with open(FILE, newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["seeds"] for row in rows))
    lines = [f"| claim, kimg | {' | '.join(names)} |", f"|{'---|' * (1 + len(names))}"]
    for claim in dict.fromkeys((row["claim"], row["kimg"]) for row in rows):
        own = {row["seeds"]: row for row in rows if (row["claim"], row["kimg"]) == claim}
        cells = [" / ".join(f"{100 * float(own[name][word]):.1f} %" for word in (CONFIRMED, REFUTED)) for name in names]
        lines.append(f"| {', '.join(claim)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        print(table())
    else:
        main()
