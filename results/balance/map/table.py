"""The tables and the page of the map, and what travels with the package, all made from records.

python results/balance/map/table.py          # prints the tables of README.md and of docs/balance.md
python results/balance/map/table.py write    # writes map.html, and utility_map.json in the package
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import origin
import records
from markupsafe import Markup
from records import Cell, Rival, UseGain

from samgan.pages import HeatCell, heat_map, markdown_table, write_page
from samgan.studies import BalanceDocument
from samgan.studies.utility_map import KNOWN_HEADER, PATH, PlannedCell, Question, UtilityMap, Verdict, known_rows
from samgan.trust.utility_document import DECIDES, HARMS, HELPS, UNDECIDED

HERE = Path(__file__).parent
PAGE = HERE / "map.html"
EARLIER = HERE.parent
"""The folder of verdicts that are older than the map."""
ENOUGH = 0.01
"""A cell in which no gain as small as this could be shown says little: it is hatched."""
FULL = 0.05
"""The difference in AUC that has the full colour."""
EASY = "pneumonia or none, children of one hospital"
TEXTS = {
    "virus": ("the cause of a pneumonia, bacteria or virus, children of one hospital", "hard"),
    "three": ("no pneumonia, one by bacteria or one by a virus, children of one hospital", "hard"),
    "covid": ("normal, COVID or another pneumonia, adults and children; origin may give the class away", "unclear"),
}
READING = (
    "A number is the AUC with synthetic images minus that of the stronger of two ways without, or for a loss, of the "
    "one that the pilot put first; with its interval of 95 %.",
    "Blue: better with them; orange: worse. A star: a gain that is shown over both ways, or a loss that is shown "
    "against the one that the pilot put first, with at most 5 % of false discoveries over the map. A question mark: "
    "not decided yet.",
    f"Hatched: only a gain above {ENOUGH:g} would have been shown in four cases of five. If no difference is shown "
    "there, there may still be one.",
    "A cell is measured when all its draws of patients are done, and stands here from then on. Cells of a family are "
    "decided together, when all of them are measured, so that it does not matter which are done first.",
)
HEADER = (
    *("question", "px", "patients", "use", "rival", "its AUC", "gain [95 %]", "p", "detectable", "in each half"),
    *("recall at 90 % specificity [95 %]", "calibration error", "other hospital", "minutes", "verdict"),
)


def simulation_table() -> str:
    """One line for each cell, and one for all."""
    with open(HERE / "simulation.csv", newline="") as file:
        return "\n".join(_line(row) for row in csv.DictReader(file))


def _line(row: dict[str, str]) -> str:
    names = ("intervals_that_hold", "intervals_as_told_that_hold", "p_below_0.05", "helps", "harms")
    shares = [f"{100 * float(row[key]):.1f} %" for key in names]
    false = f"{100 * float(row['false_discovery_rate']):.1f} %" if row["false_discovery_rate"] else ""
    errors = [f"{float(row[key]):.4f}" for key in ("standard_error", "true_error", "detectable")]
    return f"| {' | '.join([row['gains'], row['cell'], *shares, false, *errors])} |"


def families_table() -> str:
    """What the map is planned to have, in the order in which it is measured."""
    header = ("family", "question", "px", "patients", "draws in each fold", "share of the 5 %")
    rows = [
        (family.name, cell.question, str(cell.side), str(cell.patients), str(draws), f"{family.share:g}")
        for family in records.FAMILIES
        for cell, draws in family.draws.items()
    ]
    return "\n".join(markdown_table(header, rows))


def measured() -> list[UseGain]:
    """The gains in the cells that are complete."""
    return records.gains(records.read(records.CELLS), records.read_choices())


def map_table(found: Iterable[UseGain]) -> str:
    """One line for each cell and use that was measured, or that none was."""
    rows = map_rows(found)
    return "\n".join(markdown_table(HEADER, rows)) if rows else f"Of {len(records.MAP)} cells, none is measured."


def map_rows(found: Iterable[UseGain]) -> list[tuple[str, ...]]:
    """What was measured, by `HEADER`: one row for each rival; what is beside the AUC is told once, of the first."""
    return [
        (
            one.cell.question,
            str(one.cell.side),
            str(one.cell.patients),
            one.use,
            rival.way,
            f"{rival.auc:.3f}",
            f"{rival.gain.mean:+.4f} {_interval(one, rival, 4)}",
            f"{min(1.0, 2 * min(rival.gain.p(1), rival.gain.p(-1))):.3f}",
            f"{detectable(one, rival):.4f}",
            ", ".join(f"{gain:+.4f}" for gain in rival.of_folds),
            *(_beside(one) if not rank else [""] * 4),
            word(one),
        )
        for one in found
        for rank, rival in enumerate(one.rivals)
    ]


def _beside(one: UseGain) -> list[str]:
    """Differences to the first rival, and the cost."""
    other = "" if one.other_hospital is None else f"{one.other_hospital:+.4f}"
    low, high = one.recall.interval()
    recall = f"{one.recall.mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    return [recall, f"{one.calibration:+.3f}", other, f"{one.minutes:.0f}"]


def word(one: UseGain) -> str:
    """The verdict."""
    if one.decision is None:
        return "not decided yet"
    return HELPS if one.decision.helps else HARMS if one.decision.harms else UNDECIDED


def detectable(one: UseGain, rival: Rival) -> float:
    """The smallest gain that would have been shown; before a decision, without a correction for other cells."""
    return rival.gain.detectable(one.decision.needed) if one.decision else rival.gain.detectable()


def _interval(one: UseGain, rival: Rival, digits: int) -> str:
    low, high = rival.gain.interval(one.decision.level) if one.decision else rival.gain.interval()
    return f"[{low:+.{digits}f}, {high:+.{digits}f}]"


def utility_map(found: Iterable[UseGain]) -> UtilityMap:
    """What travels with the package: the verdicts of the map, and the earlier ones."""
    found = [one for one in found if one.decision]
    questions = [Question("pneumonia", EASY, "easy", tuple(earlier()), ())]
    for name, (text, difficulty) in TEXTS.items():
        own = [one for one in found if one.cell.question == name]
        done = {one.cell for one in own}
        planned = [PlannedCell(c.side, c.patients) for c in records.MAP if c.question == name and c not in done]
        questions.append(Question(name, text, difficulty, tuple(map(_verdict, own)), tuple(planned)))
    return UtilityMap(questions=tuple(questions))


def _verdict(one: UseGain) -> Verdict:
    rival = one.decisive
    gain = rival.gain
    assert one.decision is not None
    low, high = gain.interval(one.decision.level)
    return Verdict(
        source="map/cells.jsonl",
        side=one.cell.side,
        images=None,
        patients=one.cell.patients,
        use=one.use,
        rival=rival.way,
        rival_auc=round(rival.auc, 4),
        gain=round(gain.mean, 5),
        low=round(low, 5),
        high=round(high, 5),
        verdict=word(one),
        detectable=round(gain.detectable(one.decision.needed), 5),
        draws=len(records.FOLDS) * records.DRAWS[one.cell],
    )


def earlier() -> Iterable[Verdict]:
    """The verdicts of results/balance: one model and one draw of patients each.

    The case that chose again among images of a model of another case is left out.
    """
    for path in sorted(EARLIER.glob("*/balance.json")):
        document = BalanceDocument.read(path)
        utility, plan = document.utility, document.plan
        if utility is None or plan.method == "given":
            continue
        decision, case = utility.decisions[DECIDES], path.parent.name
        uses, rivals = Counter[str](), Counter[str]()
        for pair in decision.chosen:
            uses[pair.synthetic] += pair.times
            rivals[pair.classical] += pair.times
        rival = rivals.most_common(1)[0][0]
        yield Verdict(
            source=case,
            side=plan.config["network"]["resolution"],
            images=utility.classes[utility.smallest].real,
            patients=int(case.split("-")[0]) if case.endswith("-patients") else None,
            use=uses.most_common(1)[0][0],
            rival=rival,
            rival_auc=round(utility.intervals[rival][DECIDES].mean, 4),
            gain=round(decision.mean, 5),
            low=round(decision.low, 5),
            high=round(decision.high, 5),
            verdict=decision.verdict,
            # As for a normal distribution: 1.96 + 0.84 standard errors, of which half the interval has 1.96.
            detectable=round((decision.high - decision.low) / 2 * 2.80 / 1.96, 5),
            draws=1,
        )


def known_table(known: UtilityMap) -> str:
    """What travels with the package, as docs/balance.md has it."""
    return "\n".join(markdown_table(KNOWN_HEADER, known_rows(known)))


def figure(question: str, found: Iterable[UseGain]) -> Markup:
    """The cells of one question: patients from left to right, a row for each size and use."""
    own = {(one.cell, one.use): one for one in found if one.cell.question == question}
    choices = records.read_choices()
    planned = [cell for cell in records.MAP if cell.question == question]
    counts = sorted({cell.patients for cell in planned})
    rows: dict[str, list[HeatCell | None]] = {}
    for side in sorted({cell.side for cell in planned}):
        for use in choices.uses if choices else ("",):
            cells = [Cell(question, side, count) for count in counts]
            name = f"{side} px: {use}" if use else f"{side} px"
            rows[name] = [_drawn(own.get((cell, use))) if cell in records.MAP else None for cell in cells]
    reading = f"Question: {TEXTS[question][0]} ({TEXTS[question][1]}). {origin.sentence(question)}"
    names = [str(count) for count in counts]
    return heat_map(question, "patients of the small class", names, rows, FULL, reading)


def _drawn(one: UseGain | None) -> HeatCell:
    if one is None:
        return HeatCell(None, ("not measured",))
    rival, decision = one.decisive, one.decision
    mark = " ?" if decision is None else " *" * (decision.helps or decision.harms)
    lines = (f"{rival.gain.mean:+.3f}{mark}", _interval(one, rival, 3))
    return HeatCell(rival.gain.mean, lines, hatched=detectable(one, rival) > ENOUGH)


def main(words: list[str]) -> None:
    """See the module's text."""
    found = measured()
    known = utility_map(found)
    if words == ["write"]:
        write(found, known)
    elif words:
        raise SystemExit(f"table.py {' '.join(words)}: expected nothing, or write")
    else:
        print(families_table(), simulation_table(), origin.table(), map_table(found), known_table(known), sep="\n\n")


def write(found: list[UseGain], known: UtilityMap) -> None:
    """Write the page, and what travels with the package."""
    write_page(
        PAGE,
        "utility_map.html",
        "When do synthetic radiographs help a classifier?",
        reading=READING,
        figures=[figure(question, found) for question in records.SMALL],
        known_header=KNOWN_HEADER,
        known=list(known_rows(known)),
        header=HEADER,
        rows=map_rows(found),
    )
    known.write(PATH)


if __name__ == "__main__":
    main(sys.argv[1:])
