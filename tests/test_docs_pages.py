"""What the pages on Python and on presets show must run and must be true."""

import os
import pkgutil
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import samgan
from samgan.commands.main import COMMANDS
from samgan.data.chunks import CHUNK_IMAGES
from samgan.data.phantom import write_phantoms
from samgan.presets import PRESETS
from samgan.scoring import documents

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_the_python_example_runs_as_a_script(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), flags=re.S)
    length = '"training.kimg": 400'
    assert length in code
    # The same lines, for seconds instead of a night.
    code = code.replace(length, '"training.kimg": 0.032, "network.max_channels": 8')
    (tmp_path / "script.py").write_text(code)
    write_phantoms(tmp_path / "xrays", CHUNK_IMAGES // 2 + 2, 32)  # of each class: more than one chunk
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    # no weights of the Inception at hand, and no network to fetch them
    environment |= {"TORCH_HOME": str(tmp_path), "NO_PROXY": "", "no_proxy": ""}
    environment |= dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    result = subprocess.run(
        [sys.executable, "script.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        cwd=tmp_path,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "samples").glob("seed-*.png"))) == 100
    assert (tmp_path / "runs/plus/report.html").exists()
    assert "report.html" in result.stdout


def test_the_table_of_presets_is_the_presets():
    lines = re.findall(r"^\| ((?:msg-gan|samgan)-\d.*) \|$", (DOCS / "presets.md").read_text(), flags=re.M)
    rows = [line.split(" | ") for line in lines]
    assert len(rows) == len(PRESETS)
    for cells, row in zip(rows, PRESETS, strict=True):
        switches = [{True: "yes", False: "no"}[value] for value in (row.spectral_norm, row.attention, row.flip)]
        rest = [row.optimizer, f"{row.learning_rate:g}", row.loss, row.data, f"{row.paper_fid:g}"]
        assert cells[:-1] == [row.name, *switches, *rest]
        real, generated = row.paper_ms_ssim_real, row.paper_ms_ssim_generated
        assert cells[-1] == ("-" if real is None else f"{real:.2f} / {generated:.2f}")


WITHOUT_FUNCTION = {"card", "models", "studio", "presets", "settings", "completion"}


def test_every_other_command_is_a_function():
    assert {command.name for command in COMMANDS} - {*samgan.__all__} == WITHOUT_FUNCTION
    text = (DOCS / "python.md").read_text()
    _, _, last = text.partition("These commands have no function:")
    assert {*re.findall(r"`samgan (\w+)`", last)} == WITHOUT_FUNCTION
    functions = {command.name for command in COMMANDS} - WITHOUT_FUNCTION
    assert functions <= {*re.findall(r"samgan\.(\w+)", text)}


def test_every_record_of_the_scores_is_described():
    hints = typing.get_type_hints(documents.Scores).values()
    records = {word for hint in hints for word in re.findall(r"samgan\.scoring\.documents\.(\w+)", repr(hint))}
    text = (DOCS / "reference/scores.md").read_text()
    assert records <= {*re.findall(r"autoclass:: (\w+)\(\)", text)}


def test_every_name_of_the_package_is_one():
    pages = [*DOCS.glob("*.md"), *DOCS.glob("reference/*.md"), *DOCS.glob("tutorials/*.md")]
    pages += [DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md")]
    for page in [*pages, *Path(samgan.__file__).parent.rglob("*.py")]:
        for name in re.findall(r"`(samgan(?:\.[A-Za-z_]\w*)+)`", page.read_text(encoding="utf-8")):
            if name == "samgan.json":  # a file
                continue
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError) as error:
                pytest.fail(f"{page}: {name}: {error}")
