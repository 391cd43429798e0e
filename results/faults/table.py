"""Write the tables of README.md anew, from the logs in this folder.

    python results/faults/table.py [--fuzz LOG]

`--fuzz` first sums up a log of the fuzzer (`python -m fuzz --log LOG`) as fuzz.csv.
"""

import argparse
import collections
import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from cluster import VICTIMS, Disturbed  # noqa: E402
from commands import COMMANDS, Fault  # noqa: E402
from conditions import Outcome  # noqa: E402
from fault_log import read_log  # noqa: E402
from kills import CONFIGURATIONS, Kill  # noqa: E402

MARKS = "<!-- table.py writes this part -->\n", "<!-- end of that part -->\n"
HEAD = ("what was done", "how often", "what happened", "lost")


def rows_of_kills(kills: Sequence[Kill]) -> Iterator[tuple[str, ...]]:
    """A row for each configuration that was killed, and one for all."""
    groups = [(name, [row for row in kills if row.configuration == name]) for name in CONFIGURATIONS]
    for name, rows in [*groups, ("all", list(kills))]:
        if not rows:
            continue
        runs = len({(row.configuration, row.seed, row.run) for row in rows})
        torn = sum(row.temporaries > 0 for row in rows)
        told = f"all {runs} runs were continued to their end; {torn} kills left a file half-written"
        if alone := sum("process 0 and 1" not in row.how for row in rows if row.configuration == "two processes"):
            told += f"; {alone} killed one process of two, and the other ended by itself"
        yield f"training, {name}: kill -9", f"{len(rows)}", told, _lost([row.lost for row in rows])


def rows_of_faults(faults: Sequence[Fault]) -> Iterator[tuple[str, ...]]:
    """A row for each command, and one for all."""
    groups = [(name, [row for row in faults if row.command == name]) for name in COMMANDS]
    for name, rows in [*groups, ("all", list(faults))]:
        if not rows:
            continue
        killed = sum(row.fault == "killed" for row in rows)
        same, ended = sum(row.again == "same" for row in rows), sum(row.status == 1 for row in rows)
        told = f"{ended} ended with one line; the same command again: {same} went on or began again"
        told += f", {len(rows) - same} said what to remove" if same < len(rows) else ""
        what = f"{name}: killed ({killed}), or a system call failed ({len(rows) - killed})"
        yield what, f"{len(rows)}", told, _lost([row.wrong for row in rows])


def rows_of_conditions(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    """A row for each condition."""
    for row in outcomes:
        yield row.condition, "1", row.happened, _lost([row.lost])


def rows_of_sweeps(sweeps: Sequence[Disturbed]) -> Iterator[tuple[str, ...]]:
    """One row for all sweeps on a Ray cluster."""
    if not sweeps:
        return
    words = " ".join(row.kills for row in sweeps).split()
    counts = {name: words.count(name) for name in VICTIMS}
    killed = ", ".join(f"{count} x {name}" for name, count in counts.items())
    again = sum(row.commands - 1 for row in sweeps)
    told = f"{killed} in {len(sweeps)} sweep{'s' * (len(sweeps) > 1)}; all came to their end"
    told += f"; commands given again: {again}"
    yield "table2 on Ray, three hosts: kill -9", f"{sum(counts.values())}", told, _lost([row.lost for row in sweeps])


def rows_of_fuzz(file: Path) -> Iterator[tuple[str, ...]]:
    """One row for all inputs of the fuzzer."""
    rows = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    counts = {name: sum(int(row[name]) for row in rows) for name in ("tried", "taken", "refused", "wrong")}
    longest = max(float(row["longest_seconds"]) for row in rows)
    largest = max(int(row["largest_mb"]) for row in rows)
    told = f"{counts['refused']:,} refused in one line; {counts['taken']:,} taken, and what was written was whole"
    told += f"; at most {longest:.1f} s of processor time and {largest:,} MB"
    lost = "nothing" if not counts["wrong"] else f"{counts['wrong']} ended wrongly"
    yield f"files and command lines damaged, of {len(rows)} kinds", f"{counts['tried']:,}", told, lost


def _lost(said: Sequence[str]) -> str:
    bad = [text for text in said if text]
    return f"{len(bad)}: {bad[0]}" if bad else "nothing"


def table() -> str:
    """The tables as Markdown, of the logs that are there."""
    rows = [*rows_of_kills(read_log(HERE / "kills.csv", Kill)), *rows_of_faults(read_log(HERE / "commands.csv", Fault))]
    rows += rows_of_conditions(read_log(HERE / "conditions.csv", Outcome))
    rows += rows_of_sweeps(read_log(HERE / "cluster.csv", Disturbed))
    if (HERE / "fuzz.csv").is_file():
        rows += rows_of_fuzz(HERE / "fuzz.csv")
    lines = [HEAD, ("---", "--:", "---", "---"), *rows]
    return "\n" + "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n\n"


def sum_up_fuzz(log: Path, file: Path) -> None:
    """Write one row for each kind of input."""
    by_kind: dict[str, list[dict]] = collections.defaultdict(list)
    for line in log.read_text("utf-8").splitlines():
        verdict = json.loads(line)
        by_kind[verdict["kind"]].append(verdict)
    with open(file, "w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("kind", "tried", "taken", "refused", "wrong", "longest_seconds", "largest_mb"))
        for kind, some in sorted(by_kind.items()):
            wrong = sum(bool(one["wrong"]) for one in some)
            taken = sum(not one["wrong"] and not one["status"] for one in some)
            counts = (len(some), taken, len(some) - taken - wrong, wrong)
            writer.writerow((kind, *counts, max(one["seconds"] for one in some), max(one["megabytes"] for one in some)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and write README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz", type=Path, metavar="LOG")
    options = parser.parse_args(arguments)
    if options.fuzz:
        sum_up_fuzz(options.fuzz, HERE / "fuzz.csv")
    readme = HERE / "README.md"
    part = re.compile(f"({re.escape(MARKS[0])}).*({re.escape(MARKS[1])})", re.DOTALL)
    text = part.sub(lambda found: found[1] + table() + found[2], readme.read_text("utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
