"""What the README shows must run and must be true."""

import re
from pathlib import Path

from samgan.data.phantom import write_phantoms
from samgan.presets import PRESETS

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    length = '"training.kimg": 400'
    assert length in code
    # The same lines, for seconds instead of a night.
    code = code.replace(length, '"training.kimg": 0.032, "network.max_channels": 8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", _no_network)
    write_phantoms(Path("xrays"), 20)
    exec(compile(code, "README.md", "exec"), {})
    assert len(list(Path("samples").glob("seed-*.png"))) == 100
    assert Path("runs/samgan-8/report.html").exists()
    assert "report.html" in capsys.readouterr().out


def _no_network(*_, **__):
    raise OSError("no network")


def test_the_table_of_presets_is_the_presets():
    lines = re.findall(r"^\| ((?:msg-gan|samgan)-\d.*) \|$", README, flags=re.M)
    rows = [line.split(" | ") for line in lines]
    assert len(rows) == len(PRESETS)
    for cells, row in zip(rows, PRESETS, strict=True):
        switches = [{True: "yes", False: "no"}[value] for value in (row.spectral_norm, row.attention, row.flip)]
        rest = [row.optimizer, f"{row.learning_rate:g}", row.loss, row.data, f"{row.paper_fid:g}"]
        assert cells[:-1] == [row.name, *switches, *rest]
        real, generated = row.paper_ms_ssim_real, row.paper_ms_ssim_generated
        assert cells[-1] == ("-" if real is None else f"{real:.2f} / {generated:.2f}")
