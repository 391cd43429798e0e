"""The processes that are asked for are those that run, whatever the environment says, and none is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.devices import OneProcess, make_fabric
from samgan.errors import UsageError
from samgan.hosts import NotMet
from samgan.launch import INTERFACE, PARENT, OwnProcesses, Workers, choose_environment, interface_to, name_interface

ROOT = Path(__file__).parents[1]

BATCH = {"SLURM_JOB_ID": "12345678", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"} | {
    "SLURM_NODEID": "0",
    "SLURM_NNODES": "1",
}
"""What sbatch sets in a job script, besides SLURM_NTASKS."""
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_NTASKS_PER_NODE": "2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
LEFT_OVER = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "10.1.2.3", "MASTER_PORT": "1"} | {
    "NODE_RANK": "1",
    "GROUP_RANK": "1",
}


@pytest.fixture
def environment(monkeypatch):
    """Sets exactly these variables, of all that launchers set; undone afterwards, whatever the code has changed."""
    before = dict(os.environ)

    def set_only(variables):
        for name in list(os.environ):
            if name.startswith(("SLURM", "LT_", "TORCHELASTIC", "OMPI_", "JSM_")) or name in LEFT_OVER:
                del os.environ[name]
        os.environ.update(variables)

    yield set_only
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("variables", "processes", "expected"),
    [
        ({}, 1, OwnProcesses),
        ({}, 2, OwnProcesses),
        ({**BATCH, "SLURM_NTASKS": "4"}, 1, OwnProcesses),
        ({**BATCH, "SLURM_NTASKS": "4"}, 2, OwnProcesses),
        ({**BATCH, "SLURM_NTASKS": "1"}, 2, OwnProcesses),
        ({**STEP, "SLURM_NTASKS": "2"}, 2, SLURMEnvironment),
        ({**STEP, "SLURM_NTASKS": "1"}, 2, OwnProcesses),
        ({**STEP, "SLURM_NTASKS": "4"}, 1, OwnProcesses),  # four runs side by side
        ({**STEP, "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}, 2, OwnProcesses),
        ({**STEP, "SLURM_NTASKS": "many"}, 2, OwnProcesses),
        ({**TORCHRUN, "WORLD_SIZE": "2"}, 2, TorchElasticEnvironment),
        ({**TORCHRUN, "WORLD_SIZE": "1"}, 1, OwnProcesses),
        (LEFT_OVER, 1, OwnProcesses),
        (LEFT_OVER, 2, OwnProcesses),
        ({**LEFT_OVER, "LT_DEVICES": "3", "LT_NUM_NODES": "2", "LT_STRATEGY": "ddp_spawn"}, 2, OwnProcesses),
    ],
)
def test_a_launcher_counts_if_it_started_what_was_asked_for(environment, variables, processes, expected):
    environment(variables)
    fabric = make_fabric("cpu", processes)
    if isinstance(fabric, OneProcess):
        found = choose_environment(processes, 1)
    else:
        found = getattr(fabric.strategy, "cluster_environment", None) or fabric._connector.cluster_environment
    assert type(found) is expected
    assert fabric.world_size == processes
    assert fabric.global_rank == fabric.local_rank == fabric.node_rank == 0
    if expected is OwnProcesses:
        assert not found.creates_processes_externally
        assert found.main_address == "127.0.0.1"
        assert found.main_port > 1


@pytest.mark.parametrize(
    ("variables", "processes", "hosts"),
    [
        ({**STEP, "SLURM_NTASKS": "4"}, 2, 1),
        ({**STEP, "SLURM_NTASKS": "2"}, 2, 2),
        ({**TORCHRUN, "WORLD_SIZE": "4"}, 1, 1),
        ({**TORCHRUN, "WORLD_SIZE": "4"}, 2, 1),
    ],
)
def test_another_number_is_refused_in_one_line(environment, variables, processes, hosts):
    environment(variables)
    with pytest.raises(
        UsageError, match=rf"--processes {processes} --hosts {hosts}: (srun|torchrun) has started \d "
    ) as e:
        make_fabric("cpu", processes, hosts)
    assert "\n" not in str(e.value)


def test_srun_needs_no_tasks_per_node_but_must_spread_its_tasks_evenly(environment):
    plain = {name: value for name, value in STEP.items() if name != "SLURM_NTASKS_PER_NODE"}
    environment({**plain, "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"})
    assert type(choose_environment(2, 1)) is SLURMEnvironment
    environment({**plain, "SLURM_NTASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"})
    assert type(choose_environment(2, 2)) is SLURMEnvironment
    for spread in ("3,1", "4"):
        environment({**plain, "SLURM_NTASKS": "4", "SLURM_STEP_TASKS_PER_NODE": spread})
        with pytest.raises(UsageError, match=rf"expected 2\(x2\) tasks .*found {spread} .*srun --nodes=2 --ntasks-per"):
            choose_environment(2, 2)


GOOD = {"MASTER_ADDR": "10.1.2.3", "MASTER_PORT": "29500", "NODE_RANK": "1"}


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
        ({"NODE_RANK": ""}, "NODE_RANK is not set"),
        ({"NODE_RANK": "2"}, "NODE_RANK is 2; expected 0 to 1"),
        ({"NODE_RANK": "-1"}, "NODE_RANK is -1"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is http"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000"),
    ],
)
def test_several_hosts_need_to_know_each_other(environment, odd, message):
    environment({**GOOD, **odd})
    with pytest.raises(UsageError, match=f"--hosts 2: {message}"):
        choose_environment(1, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked for on Linux alone")
def test_the_interface_to_the_first_host_is_named(environment, monkeypatch):
    assert interface_to("127.0.0.1") == "lo"
    assert interface_to("") is interface_to("no.such.host.invalid") is None
    environment({})
    monkeypatch.delenv(INTERFACE, raising=False)
    name_interface("127.0.0.1")
    assert os.environ[INTERFACE] == "lo"
    monkeypatch.setenv(INTERFACE, "ib0")
    name_interface("127.0.0.1")
    assert os.environ[INTERFACE] == "ib0"


def test_several_hosts(environment):
    environment({**GOOD, "LOCAL_RANK": "3"})
    found = choose_environment(2, 2)
    assert (found.main_address, found.main_port, found.node_rank(), found.local_rank()) == ("10.1.2.3", 29500, 1, 0)


def worker_of(monkeypatch, parent):
    """Make this process a worker that `parent` has started, as far as Python's options go."""
    monkeypatch.setitem(sys._xoptions, PARENT, str(parent))


def test_a_worker_knows_its_place(environment, monkeypatch):
    variables = {**GOOD, "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    environment(variables)
    assert not choose_environment(2, 1).creates_processes_externally  # another program that inherits these variables
    worker_of(monkeypatch, os.getppid())
    environment(variables)
    found = choose_environment(2, 1)
    assert found.creates_processes_externally
    assert (found.local_rank(), found.node_rank(), found.main_port) == (1, 0, 29500)
    for rank in ("0", "2"):
        environment({**variables, "LOCAL_RANK": rank})
        assert not choose_environment(2, 1).creates_processes_externally


def test_a_worker_whose_parent_has_ended_ends_too_and_starts_nothing(environment, monkeypatch, capfd):
    environment({**GOOD, "LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    worker_of(monkeypatch, os.getpid())  # which is not the number of its parent
    with pytest.raises(SystemExit) as caught:
        make_fabric("cpu", 2)
    assert not caught.value.code
    assert capfd.readouterr().err == ""
    with pytest.raises(SystemExit):  # and while it waits for the others
        Workers(OwnProcesses(2, 1), 2, 1).check()


@pytest.fixture
def started(environment, monkeypatch, tmp_path):
    """Makes workers that run a script, which finds its variables and numbers written down in a file."""
    environment({})
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    made = []

    def start(then):
        script = tmp_path / "script.py"
        told = "json.dumps([dict(os.environ), sys._xoptions, os.getppid(), sys.argv[1:]])"
        write = f"Path({str(tmp_path / 'part')!r}).write_text({told}); os.rename({str(tmp_path / 'part')!r}, "
        imports = "import json, os, sys, time; from pathlib import Path"
        script.write_text(f"{imports}\n{write}{str(tmp_path / 'told')!r})\n{then}\n")
        monkeypatch.setattr(sys, "argv", [str(script), "--a", "b"])
        made.append(Workers(OwnProcesses(2, 1), 2, 1))
        return made[-1]

    yield start
    for workers in made:
        for process in workers.procs:
            process.kill()
            process.wait()


def until(happened, seconds=120):
    """Wait until something has happened."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.05)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, NotMet])
def test_workers_end_with_a_process_that_does_not_get_to_meet_them(started, tmp_path, error):
    workers = started("time.sleep(600)")

    def meet():
        until((tmp_path / "told").exists)
        workers.check()
        raise error

    with pytest.raises(error):
        workers.launch(meet)
    (process,) = workers.procs
    assert process.wait(60) == -signal.SIGTERM
    variables, options, parent, words = json.loads((tmp_path / "told").read_text())
    assert variables["LOCAL_RANK"] == "1"
    assert (variables["WORLD_SIZE"], variables["NODE_RANK"], variables["MASTER_ADDR"]) == ("2", "0", "127.0.0.1")
    assert variables["MASTER_PORT"] == str(workers.cluster_environment.main_port)
    assert options[PARENT] == str(parent) == str(os.getpid())
    assert words == ["--a", "b"]


def test_a_worker_that_fails_before_all_have_come_is_named(started):
    """Nobody kills this process for it, as Fabric's own thread would."""
    workers = started("sys.exit(3)")

    def meet():
        workers.procs[0].wait(60)
        assert "child-process-observer" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(NotMet, match="process 1 ended with status 3 before all had come: see what it says"):
            workers.check()

    workers.launch(meet)


def test_a_worker_that_ends_in_peace_is_no_error(started):
    workers = started("sys.exit(0)")  # after an error that all have, which this process is yet to find
    workers.launch(lambda: workers.procs[0].wait(60))
    workers.check()


def test_a_run_of_several_processes_starts_them_in_this_way(environment):
    environment({})
    assert type(make_fabric("cpu", 2).strategy.launcher) is Workers


# ---- whole commands

TRAIN = [
    *("--network.max_channels=8", "--training.batch_size=4", "--training.precision=fp32", "--device=cpu"),
    *("--training.log_every_kimg=0.008", "--processes=2"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    write_phantoms(folder / "images", 20, 32)
    return prepare(folder / "images", folder / "set", resolution=32, workers=1).path


def processes_of(run):
    """Numbers of the processes that have this run folder on their command line, newest last."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if f"--out={run}".encode() in words:
            found.append(int(path.parent.name))
    return sorted(found)


@pytest.fixture
def train(data, tmp_path):
    """Starts `samgan train` in a group of its own, which is ended at last."""
    started = []

    def start(*words, code="from samgan.commands.main import main; sys.exit(main())"):
        script = tmp_path / "program.py"
        script.write_text(f"import os, signal, sys, time\n{code}\n")
        command = [sys.executable, str(script), "train", str(data), f"--out={tmp_path / 'run'}", *TRAIN, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with open(tmp_path / "said", "w") as said:
            started.append(subprocess.Popen(command, env=environment, stderr=said, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        for number in processes_of(tmp_path / "run"):
            os.kill(number, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_is_ended_at_the_start_leaves_no_worker_behind(train, tmp_path, number):
    run = tmp_path / "run"
    parent = train("--training.kimg=1000")
    until(lambda: len(processes_of(run)) == 2)
    time.sleep(0.5)  # the worker is still importing
    parent.send_signal(number)
    assert parent.wait(120) in (-number, 128 + number)
    until(lambda: not processes_of(run))
    assert not (run / "config.json").exists()
    assert "error" not in (tmp_path / "said").read_text()


IN_A_SNAPSHOT = """
import samgan.training.snapshots
original = samgan.training.snapshots.save_checkpoint
def slow(path, state):
    original(path, state)
    open(sys.argv[3].removeprefix("--out=") + "/in", "w").close()
    time.sleep(30)
samgan.training.snapshots.save_checkpoint = slow
from samgan.commands.main import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_that_is_killed_during_a_snapshot_is_named(train, tmp_path):
    run = tmp_path / "run"
    first = train("--training.kimg=1000", "--training.snapshot_every_kimg=0.04", code=IN_A_SNAPSHOT)
    until((run / "in").exists)
    (worker,) = set(processes_of(run)) - {first.pid}
    os.kill(worker, signal.SIGKILL)
    assert first.wait(120) == 1
    said = (tmp_path / "said").read_text()
    assert "samgan: error: process 1 is gone: its training was killed" in said
    assert "Traceback" not in said
    assert "Child process" not in said
