"""The wheel and the source archive, built and installed in an empty environment."""

import os
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

import samgan

pytestmark = pytest.mark.slow
ROOT = Path(samgan.__file__).parents[1]
FIRST_MINUTE = 30
"""Seconds that the first images may take."""


def run(*words, cwd):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run([*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    builder = folder / "builder"
    venv.create(builder, with_pip=True)
    run(builder / "bin" / "python", "-m", "pip", "install", "--quiet", "build", cwd=folder)
    run(builder / "bin" / "python", "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """An environment with nothing but the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", built[1], cwd=folder)
    return python


def test_both_hold_the_whole_package_and_nothing_else(built):
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "samgan").rglob("*") if path.is_file()}
    own = {name for name in own if "__pycache__" not in name}
    source, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if not name.startswith("samgan-")} == own
    assert "samgan/py.typed" in names
    with tarfile.open(source) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert own <= inside
    assert wheel.stat().st_size < 8e6


def test_it_starts_at_once_and_needs_no_clone(installed, tmp_path):
    def fastest(*words):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run(*words, cwd=tmp_path)
            times.append(time.perf_counter() - start)
        return min(times)

    nothing = fastest(installed, "-c", "pass")
    # The limits are wide, because a slow or busy machine is no defect.
    assert fastest(installed, "-c", "import samgan") - nothing < 0.5
    assert fastest(installed.parent / "samgan", "--help") < 1
    assert samgan.__version__ in run(installed.parent / "samgan", "--version", cwd=tmp_path)


def test_the_first_images_come_within_half_a_minute(installed, tmp_path):
    start = time.perf_counter()
    words = ("sample", "pneumonia-64", "--count", "64", "--sheets", "grid", "--out", "xrays")
    run(installed.parent / "samgan", *words, cwd=tmp_path)
    assert time.perf_counter() - start < FIRST_MINUTE
    assert len(list((tmp_path / "xrays").glob("seed-*.png"))) == 64
    assert (tmp_path / "xrays" / "sheets").is_dir()


def test_it_is_typed_for_who_imports_it(installed, tmp_path):
    (tmp_path / "user.py").write_text("import samgan\n\nreveal_type(samgan.prepare)\n")
    python = installed.parent / "python"
    words = ("-m", "mypy", "--python-executable", python, tmp_path / "user.py")
    assert "PreparedSet" in run(sys.executable, *words, cwd=tmp_path)
