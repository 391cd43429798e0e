"""Jobs of a sweep that Slurm has, when its variables, the folder or the options of the command are others."""

import shutil

import pytest
from test_slurm import SLURM, data, jobs_of, no_features, stand_in

from samgan.errors import SamganError
from samgan.studies import Resources, Scoring, run_sweep, sweep_slurm

__all__ = ["data", "no_features", "stand_in"]  # fixtures
HERE = Resources(cores=1, device="cpu")


@pytest.fixture
def queued(data, tmp_path, no_features, stand_in):
    """Two jobs that wait in the queue, by the name of their array."""
    stand_in.outcomes["one"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(jobs_of(data, "one", "two"), tmp_path / "sweep", Scoring(), SLURM)
    (name,) = stand_in.arrays
    return name


def test_variables_of_sbatch_do_not_win_over_what_a_sweep_depends_on(data, tmp_path, monkeypatch):
    """Of arguments, variables and the script, sbatch takes the first that says something."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text('#!/bin/bash\necho "${SBATCH_JOB_NAME}" > said\nprintf \'%s\\n\' "$@" >> said\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("SBATCH_JOB_NAME", "x")
    monkeypatch.chdir(tmp_path)
    jobs, folder = jobs_of(data, "one", "two"), tmp_path / "a 100%" / "slurm"
    array = sweep_slurm.ArrayDocument.of(jobs, Scoring(), SLURM, "warn")
    tasks = sweep_slurm._submit(jobs, array, folder)
    name = tasks[jobs[0].key].name
    variable, _, *options, script = (tmp_path / "said").read_text().splitlines()
    assert variable == "x"
    expected = [f"--job-name={name}", "--array=0-1", "--requeue", "--signal=B:TERM@120", "--cpus-per-task=1"]
    expected += ["--open-mode=append", f"--output={tmp_path}/a 100%%/slurm/%x-%a.log"]
    assert options == expected
    assert script == str(folder / f"{name}.sh")


def test_jobs_of_a_folder_that_was_copied_are_not_waited_for(data, tmp_path, queued, stand_in, capsys):
    shutil.copytree(tmp_path / "sweep", tmp_path / "copy")
    rows = run_sweep(jobs_of(data, "one", "two"), tmp_path / "copy", Scoring(), SLURM)
    assert all(row.scores for row in rows)
    assert stand_in.submitted == [["one", "two"], ["one", "two"]]
    said = f"jobs of {tmp_path / 'copy'} at another place are still in Slurm's queue: scancel --name={queued} ends them"
    assert said in capsys.readouterr().err


def test_queued_jobs_run_nowhere_else_and_not_with_other_resources(data, tmp_path, queued, stand_in, monkeypatch):
    monkeypatch.setattr(stand_in, "_advance", lambda: None)
    jobs = jobs_of(data, "one", "two")
    for other in (Resources(slurm=True, cores=2), Resources(slurm=True, cores=1, gpus=1.0)):
        with pytest.raises(SamganError, match=f"earlier call with other --cores-per-job.* scancel --name={queued}"):
            run_sweep(jobs, tmp_path / "sweep", Scoring(), other)
    monkeypatch.setattr(sweep_slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(SamganError, match=f"wait for it with --slurm, or end it with scancel --name={queued}"):
        run_sweep(jobs, tmp_path / "sweep", Scoring(), HERE)
