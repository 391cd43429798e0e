"""The notebook was executed, shows nothing of the machine that did it, and runs."""

import json
import re
import sys
import types
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_model.ipynb"
SHORT = {
    "MINUTES = 8": "MINUTES = 0.02",
    "write_phantoms(SOURCE, 500, 32)": "write_phantoms(SOURCE, 40, 32)",
    '"network.channel_base": 512': '"network.channel_base": 128, "network.max_channels": 16',
    "count=200": "count=16",
    "count=64": "count=8",
}
"""What makes the notebook run in seconds. Each must be there once at least, so that none is out of date."""


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_cell_was_executed_in_order_without_an_error(notebook):
    cells = code(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "error" not in kinds
    pictures = [output for cell in cells for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) == sum("".join(cell["source"]).count("\nImage(") for cell in cells) > 1


def test_it_says_nothing_of_the_machine_that_ran_it(notebook):
    text = json.dumps([cell["outputs"] for cell in code(notebook)])
    assert not re.findall(r"(?<![\w./-])/(?:home|tmp|root|work|usr|var)/", text)


@pytest.mark.slow
def test_its_cells_run(notebook, tmp_path, monkeypatch):
    """The same cells with a shorter training, and without Jupyter."""
    monkeypatch.chdir(tmp_path)
    shown = []
    display = types.ModuleType("IPython.display")
    display.Image = lambda path: shown.append(Path(path).stat().st_size)
    display.Markdown = lambda text: shown.append(len(text))
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    source = ["".join(cell["source"]) for cell in code(notebook)]
    for long, short in SHORT.items():
        assert any(long in cell for cell in source), long
        source = [cell.replace(long, short) for cell in source]
    names = {}
    for cell in source:
        exec(compile(cell, NOTEBOOK.name, "exec"), names)
    assert len(shown) >= 4
    assert min(shown) > 0
    assert (tmp_path / "first-model" / "run" / "report.html").exists()
