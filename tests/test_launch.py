"""The processes that are asked for are those that run, whatever the environment says."""

import os
import sys

import pytest
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from samgan.devices import OneProcess, make_fabric
from samgan.errors import UsageError
from samgan.launch import INTERFACE, PARENT, OwnProcesses, choose_environment, interface_to, name_interface

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
            if name.startswith(("SLURM", "LT_", "TORCHELASTIC", "OMPI_", "JSM_")) or name in {*LEFT_OVER, PARENT}:
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


def test_a_process_that_fabric_started_knows_its_place(environment):
    environment({**GOOD, "LOCAL_RANK": "1", "WORLD_SIZE": "2", PARENT: str(os.getppid())})
    found = choose_environment(2, 1)
    assert found.creates_processes_externally
    assert (found.local_rank(), found.node_rank(), found.main_port) == (1, 0, 29500)
    # Another program that a run has started inherits these variables too.
    for rank, parent in (("0", os.getppid()), ("2", os.getppid()), ("1", os.getpid())):
        environment({**GOOD, "LOCAL_RANK": rank, "WORLD_SIZE": "2", PARENT: str(parent)})
        assert not choose_environment(2, 1).creates_processes_externally
