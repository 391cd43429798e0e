"""docs/architecture.md is true: its wings, its picture and its walks; so is the table of CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

import pytest
from test_imports import MODULES, WINGS, imports, path_of

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
LONGEST = {"From a prepared set to the loss:": 6, "From a seed to a PNG file:": 5}
LONG_FILE, LONG_FUNCTION = 450, 60


def arrows():
    """For each wing, or file that stands by itself, those it imports from."""
    found = {}
    for module in MODULES:
        top = module.split(".")[0]
        found.setdefault(top, set()).update(other.split(".")[0] for other in imports(module))
        found[top].discard(top)
    return found


def implied(graph):
    """Arrows that a longer way implies."""

    def reached(start):
        seen, waiting = set(), list(graph[start])
        while waiting:
            top = waiting.pop()
            if top not in seen:
                seen.add(top)
                waiting += graph[top]
        return seen

    return {(a, b) for a in graph for b in graph[a] for c in graph[a] - {b} if b in reached(c)}


def test_the_picture_shows_the_imports():
    graph = arrows()
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", ARCHITECTURE, flags=re.M))
    assert drawn == {(a, b) for a in graph for b in graph[a] if a != "__main__"} - implied(graph)


def test_every_wing_has_its_line():
    assert sorted(re.findall(r"^\| `(\w+)/` \|", ARCHITECTURE, flags=re.M)) == WINGS


def walk(title):
    text = ARCHITECTURE.partition(title)[2].partition("\n\nFrom ")[0]
    return re.findall(r"^\d\. `samgan/([\w/]+)\.py`: (?:`(\w+)`)", text, flags=re.M)


@pytest.mark.parametrize("title", LONGEST)
def test_a_walk_passes_through_few_files_that_know_each_other(title):
    steps = walk(title)
    assert 2 < len(steps) <= LONGEST[title]
    for place, (file, name) in enumerate(steps):
        tree = ast.parse(path_of(file.replace("/", ".")).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        assert name in defined | {target.id for target in targets if isinstance(target, ast.Name)}
        if place:  # an earlier file of the walk takes the name, or the record it stands in
            before = "\n".join(path_of(earlier.replace("/", ".")).read_text() for earlier, _ in steps[:place])
            known_as = {"relativistic_average_hinge": "recipe.loss.of", "discriminator_loss": "train_step"}
            assert known_as.get(name, name) in before, f"nothing before {file} names {name}"


def rows_of_contributing():
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| what to add |")[2].partition("\n\n")[0]
    return re.findall(r"^\| ([^|]+) \| ([^|]+) \|", table, flags=re.M)[1:]


def test_the_table_of_changes_names_files_that_are_there():
    rows = rows_of_contributing()
    assert len(rows) > 10
    for what, where in rows:
        paths = re.findall(r"`((?:samgan|results|tests)/[\w/.]+)`", where)
        assert paths, what
        for path in paths:
            assert (ROOT / path).exists(), f"{what}: {path}"
        for name in re.findall(r"`([A-Z_]{4,})`", where):
            assert any(name in (ROOT / path).read_text() for path in paths if path.endswith(".py")), f"{what}: {name}"


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short_or_say_why_not(module):
    text = path_of(module).read_text()
    assert text.count("\n") <= LONG_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > LONG_FUNCTION:
            assert "Long " in (ast.get_docstring(node) or ""), f"{node.name} has more than {LONG_FUNCTION} lines"
