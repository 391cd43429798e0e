"""Print simulation.csv as the table of README.md.

python results/balance/map/table.py
"""

import csv
from pathlib import Path

HERE = Path(__file__).parent


def table() -> str:
    """One line for each number of patients, and one for all."""
    with open(HERE / "simulation.csv", newline="") as file:
        return "\n".join(_line(row) for row in csv.DictReader(file))


def _line(row: dict[str, str]) -> str:
    shares = [f"{100 * float(row[key]):.1f} %" for key in ("intervals_that_hold", "p_below_0.05")]
    false = f"{100 * float(row['false_discovery_rate']):.1f} %" if row["false_discovery_rate"] else ""
    errors = [f"{float(row[key]):.4f}" for key in ("standard_error", "true_deviation", "detectable")]
    return f"| {' | '.join([row['gains'], row['patients'], *shares, false, *errors])} |"


if __name__ == "__main__":
    print(table())
