"""A sweep as an array of Slurm: by a stand-in that answers for it, and, where it is installed, by Slurm itself."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm as laboratory
import torch

from samgan import api
from samgan.commands.main import main
from samgan.config import Config
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.metrics import load_features
from samgan.metrics.load_features import Default
from samgan.runs import Run, load_checkpoint
from samgan.studies import Job, Resources, RowDocument, Scoring, TableRequest, run_sweep, sweep_slurm, sweep_task

ROOT = Path(__file__).parents[1]
TINY = {
    "network": {"resolution": 32, "max_channels": 8},
    "training": {"batch_size": 4, "kimg": 0.012, "log_every_kimg": 0.004, "snapshot_every_kimg": 0.012},
}
SLURM = Resources(slurm=True, cores=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    write_phantoms(folder / "images", 16, resolution=32)
    return prepare(folder / "images", folder / "set", resolution=32, workers=1)


@pytest.fixture
def no_features(monkeypatch):
    monkeypatch.setattr(load_features, "default_features", lambda shape: Default(None, "no weights here"))


def jobs_of(data, *names):
    return [Job(name, Config().override(TINY), str(data.path), data.sha256, None) for name in names]


class StandIn:
    """Answers as sbatch and squeue do, and runs a task of an array when it is told to."""

    def __init__(self):
        self.arrays, self.states, self.submitted, self.outcomes, self.refusal = {}, {}, [], {}, None

    def ask(self, *words):
        if self.refusal:
            return subprocess.CompletedProcess(words, 1, "", self.refusal)
        if words[0] == "squeue":
            lines = [f"{name}|{number}|{state}" for (name, number), state in self.states.items()]
            self._advance()
            others = ["bash|N/A|RUNNING", "samgan-x|N/A|RUNNING"]
            return subprocess.CompletedProcess(words, 0, "\n".join([*others, *lines]), "")
        script = Path(words[-1])
        subprocess.run(["bash", "-n", script], check=True)
        document = json.loads(script.with_suffix(".json").read_text())
        self.arrays[script.stem] = script.with_suffix(".json")
        self.submitted.append([job["name"] for job in document["jobs"]])
        self.states |= {(script.stem, number): "PENDING" for number in range(len(document["jobs"]))}
        return subprocess.CompletedProcess(words, 0, "7\n", "")

    def _advance(self):
        """Between two looks at the queue, the next task runs, or ends in the state that `outcomes` has for it."""
        task = next((task for task, state in self.states.items() if state == "PENDING"), None)
        if task is None:
            return
        name = json.loads(self.arrays[task[0]].read_text())["jobs"][task[1]]["name"]
        outcome = self.outcomes.pop(name, "COMPLETED")
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome == "COMPLETED":
            sweep_task.run_task(self.arrays[task[0]], task[1])
        self.states[task] = outcome


@pytest.fixture
def stand_in(monkeypatch):
    made = StandIn()
    monkeypatch.setattr(sweep_slurm, "_ask", made.ask)
    monkeypatch.setattr(sweep_slurm, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(sweep_slurm, "LATE_SECONDS", 0.05)
    return made


def test_an_array_gives_the_rows_of_this_process_and_only_what_is_missing_is_submitted_again(
    data, tmp_path, no_features, stand_in, capsys
):
    jobs = jobs_of(data, "one", "two")
    here = run_sweep(jobs, tmp_path / "here", Scoring(), Resources(cores=1, device="cpu"))
    stand_in.outcomes["two"] = "CANCELLED"
    one, two = run_sweep(jobs, tmp_path / "there", Scoring(), SLURM)
    assert one.scores == here[0].scores
    (log,) = (line for line in capsys.readouterr().err.splitlines() if "ended before it was done" in line)
    name = next(iter(stand_in.arrays))
    place = tmp_path / "there" / "slurm" / f"{name}-1.log"
    assert log == f"samgan: {jobs[1].key}: its job in Slurm ended before it was done (CANCELLED); see {place}"
    assert f"samgan: {jobs[1].key}: {two.failed}" == log
    rows = run_sweep(jobs, tmp_path / "there", Scoring(), SLURM)
    assert [row.scores for row in rows] == [row.scores for row in here]
    assert run_sweep(jobs, tmp_path / "there", Scoring(), SLURM) == rows
    assert stand_in.submitted == [["one", "two"], ["two"]]


def test_jobs_in_the_queue_are_waited_for_and_not_submitted_again(data, tmp_path, no_features, stand_in, capsys):
    jobs = jobs_of(data, "one", "two")
    stand_in.outcomes["one"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(jobs, tmp_path, Scoring(), SLURM)
    (name,) = stand_in.arrays
    assert f"2 jobs go on in Slurm: the same command waits, scancel --name={name} ends them" in capsys.readouterr().err
    with pytest.raises(SamganError, match=f"one-seed0.* is in Slurm's queue .*scancel --name={name}"):
        run_sweep(jobs, tmp_path, Scoring(count=8), SLURM)
    rows = run_sweep([*jobs, *jobs_of(data, "three")], tmp_path, Scoring(), SLURM)
    assert all(row.scores for row in rows)
    assert stand_in.submitted == [["one", "two"], ["three"]]


def test_what_fails_within_a_job_is_kept_as_elsewhere_and_its_log_is_named(
    data, tmp_path, no_features, stand_in, monkeypatch, capsys
):
    def fails(*_, **__):
        raise SamganError("loss is nan")

    monkeypatch.setattr(api, "train", fails)
    (row,) = run_sweep(jobs_of(data, "one"), tmp_path, Scoring(), SLURM)
    assert row.failed == "loss is nan"
    assert RowDocument.read(tmp_path / "rows" / f"{row.key}.json") == row
    assert f": loss is nan; see {tmp_path / 'slurm'}" in capsys.readouterr().err


def test_a_job_that_leaves_no_row_is_given_up_after_a_while(data, tmp_path, no_features, stand_in, monkeypatch):
    monkeypatch.setattr(sweep_task, "run_task", lambda *_: None)
    (row,) = run_sweep(jobs_of(data, "one"), tmp_path, Scoring(), SLURM)
    assert "ended before it was done (COMPLETED); see" in row.failed
    assert RowDocument.read(tmp_path / "rows" / f"{row.key}.json") == row


def test_a_task_of_another_version_or_edited_by_hand_ends_in_one_line(data, tmp_path, no_features, capsys):
    array = sweep_slurm.ArrayDocument.of(jobs_of(data, "one"), Scoring(), SLURM, "warn")
    assert sweep_slurm.ArrayDocument.from_dict(array.to_dict(), "here") == array
    tree = array.to_dict()
    tree["jobs"][0]["config"]["training"]["seed"] = 5
    path = tmp_path / "slurm" / "array.json"
    path.parent.mkdir()
    path.write_text(json.dumps(tree))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert sweep_task.main([str(path), "0"]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("samgan: error: expected the job one-seed0-")
    assert "another version of samgan" in line


def test_a_refusal_a_silence_and_no_slurm_at_all_end_in_one_line(data, tmp_path, no_features, stand_in, monkeypatch):
    monkeypatch.setattr(sweep_slurm, "SILENT_SECONDS", 0.0)
    stand_in.refusal = "squeue: error: slurm_receive_msg: Socket timed out\n"
    with pytest.raises(SamganError, match=r"Slurm does not answer .*Socket timed out.*the same command goes on"):
        run_sweep(jobs_of(data, "one"), tmp_path, Scoring(), SLURM)
    monkeypatch.setattr(sweep_slurm, "_states", dict)
    stand_in.refusal = "sbatch: error: Invalid account\n"
    with pytest.raises(SamganError, match=r"sbatch refused .*Invalid account; .*SBATCH_ACCOUNT"):
        run_sweep(jobs_of(data, "one"), tmp_path, Scoring(), SLURM)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="--slurm: squeue is not on this machine"):
        list(sweep_slurm.run_on_slurm(jobs_of(data, "one"), tmp_path, Scoring(), SLURM, "warn"))


def test_the_script_says_what_a_job_takes(data, tmp_path):
    array = sweep_slurm.ArrayDocument.of(
        jobs_of(data, "one", "two"), Scoring(), Resources(slurm=True, cores=8, gpus=1.0), "warn"
    )
    assert array.device == "auto"
    assert sweep_slurm.ArrayDocument.of(jobs_of(data, "one"), Scoring(), SLURM, "warn").device == "cpu"
    script = array.script(tmp_path / "a 100%")
    for words in ("--array=0-1", "--cpus-per-task=8", "--gpus=1", f'--output="{tmp_path}/a 100%%/%x-%a.log"'):
        assert f"#SBATCH {words}\n" in script
    assert f"-P -m samgan.studies.sweep_task '{tmp_path}/a 100%/samgan-" in script


def test_a_dry_run_shows_the_script_and_contradictions_are_refused(data, tmp_path, capsys):
    command = ["table2", str(data.path), "--rows", "msg-gan-6", "--kimg", "0.02", "--slurm", "--dry-run"]
    assert main([*command, "--out", str(tmp_path / "sweep")]) == 0
    assert "#!/bin/bash\n#SBATCH --job-name=samgan-" in capsys.readouterr().out
    assert not (tmp_path / "sweep").exists()
    assert main(command) == 2
    assert "the script needs both" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--ray and --slurm"):
        TableRequest(slurm=True, ray="auto")
    with pytest.raises(UsageError, match=r"--gpus-per-job 0\.5: expected a whole number"):
        TableRequest(slurm=True, gpus_per_job=0.5)


@pytest.fixture
def cluster(tmp_path_factory):
    if reason := laboratory.why_not():
        pytest.skip(reason)
    try:
        made = laboratory.Cluster(tmp_path_factory.mktemp("daemons")).start()
    except (OSError, TimeoutError) as error:
        pytest.skip(f"Slurm does not start here: {error}")
    with contextlib.closing(made):
        made.environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        yield made


SAMGAN = [sys.executable, "-m", "samgan"]
SMALL = ("--network.max_channels=8", "--training.batch_size=4")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_processes_that_srun_starts_are_those_of_the_run(cluster, data, tmp_path):
    command = [*SAMGAN, "train", data.path, *SMALL, "--training.kimg=0.04", "--device=cpu"]
    command += ["--training.precision=fp32", "--processes", 2, "--out"]
    cluster.run("srun", "-n", 2, *command, tmp_path / "srun", timeout=600)
    cluster.run(*command, tmp_path / "own", timeout=600)
    srun, own = (load_checkpoint(Run.open(tmp_path / name).checkpoint_path(10)).state for name in ("srun", "own"))
    for name, value in own["generator"].items():
        assert torch.equal(srun["generator"][name], value), name
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cluster.run("srun", "-n", 2, *command[:-2], 4, "--out", tmp_path / "other", timeout=600)
    assert "srun has started 2 processes (SLURM_NTASKS)" in caught.value.stderr


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_by_slurm_goes_on_after_it_was_stopped_and_a_job_cancelled(cluster, data, tmp_path):
    rows = ("msg-gan-6", "msg-gan-7", "samgan-5")
    command = [*SAMGAN, "table2", str(data.path), "--rows", *rows, "--kimg", "0.02", "--device", "cpu", *SMALL]
    command += ["--cores-per-job", "1"]
    there = [*command, "--slurm", "--out", str(tmp_path / "there")]

    def start():
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(there, env=cluster.environment, **pipes)

    first = start()
    while not cluster.run("squeue", "--noheader", "--array", "--format=%K"):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.5)
    (job,) = set(cluster.run("squeue", "--noheader", "--array", "--format=%F").split())
    (script,) = (tmp_path / "there").glob("slurm/*.sh")
    cluster.run("scancel", f"{job}_2")  # it had to wait for one of two CPUs
    cancelled = next(line for line in first.stderr if "CANCELLED" in line)
    log = tmp_path / "there" / "slurm" / f"{script.stem}-2.log"
    assert f": its job in Slurm ended before it was done (CANCELLED); see {log}" in cancelled
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 143
    assert "2 jobs go on in Slurm: the same command waits" in said

    second = start()
    _, said = second.communicate(timeout=600)
    assert second.returncode == 0, said
    assert "samgan: 1 jobs submitted to Slurm as" in said, "nothing runs twice"
    assert len(list((tmp_path / "there").glob("rows/*.json"))) == 3
    for path in (tmp_path / "there").glob("runs/*/stats.jsonl"):
        steps = [line["step"] for line in map(json.loads, path.read_text().splitlines()) if line["kind"] == "train"]
        assert steps == sorted(set(steps)), path

    here = [*command, "--out", str(tmp_path / "here")]
    subprocess.run(here, env=cluster.environment, check=True, timeout=600, stdout=subprocess.DEVNULL)
    for path in (tmp_path / "here").glob("rows/*.json"):
        assert RowDocument.read(path).scores == RowDocument.read(tmp_path / "there" / "rows" / path.name).scores
