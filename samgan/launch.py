"""Who starts the processes of a run: a launcher (torchrun, srun, mpirun, jsrun), or this program itself.

Lightning Fabric guesses it from environment variables. Some of these are set in a job without a launcher (sbatch sets
SLURM_NTASKS), and others stay behind when a launcher has ended, so here a launcher counts only if it runs as many
processes as were asked for. Importing this file takes a second or two, and only training needs it.
"""

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from torch.distributed import PrefixStore, Store, TCPStore

from samgan.errors import UsageError
from samgan.hosts import Check, NotMet, Place, Watch, join, listen, receive

PARENT = "samgan_parent"
"""The option -X by which Python tells a worker that it is one: the number of the process that started it.

Programs that a run starts inherit its environment variables, but not this option.
"""
LEFT_OVER = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
INTERFACE = "GLOO_SOCKET_IFNAME"
SIOCGIFADDR = 0x8915  # Linux: the address of an interface


class OwnProcesses(LightningEnvironment):
    """This program starts the other processes of a host.

    Variables that a launcher has left behind are removed from the environment: they would mislead the other processes.

    Args:
        processes: Processes per host.
        hosts: Number of hosts. If there are several, MASTER_ADDR and MASTER_PORT say where the first one is, and
            NODE_RANK which one this is; otherwise none of the three is read.
    """

    def __init__(self, processes: int, hosts: int) -> None:
        super().__init__()
        self.hosts = hosts
        self.is_worker = _is_worker(processes)
        if hosts > 1:
            _check_hosts(hosts)
        if not self.is_worker:
            for name in (*LEFT_OVER, *(ADDRESS if hosts == 1 else ())):
                os.environ.pop(name, None)

    @property
    def creates_processes_externally(self) -> bool:
        """Whether this process was started by another one of the run."""
        return self.is_worker

    def local_rank(self) -> int:
        """This process's number on its host, from 0."""
        return int(os.environ["LOCAL_RANK"]) if self.is_worker else 0

    def node_rank(self) -> int:
        """This host's number, from 0."""
        return int(os.environ["NODE_RANK"]) if self.hosts > 1 else 0


def choose_environment(processes: int, hosts: int) -> ClusterEnvironment:
    """Who starts the processes of a run.

    Args:
        processes: Processes per host that were asked for.
        hosts: Number of hosts that were asked for.

    Raises:
        UsageError: A launcher has started another number of processes; or there are several hosts, and it is not known
            where the first one is, or which one this is.
        SystemExit: This is a worker, and the process that started it is gone.
    """
    _end_if_orphaned()
    asked = processes * hosts
    launchers = (
        ("torchrun", TorchElasticEnvironment.detect, TorchElasticEnvironment, "WORLD_SIZE"),
        ("srun", _is_step_of_slurm, SLURMEnvironment, "SLURM_NTASKS"),
        ("jsrun", LSFEnvironment.detect, LSFEnvironment, "JSM_NAMESPACE_SIZE"),
        ("mpirun", lambda: asked > 1 and MPIEnvironment.detect(), MPIEnvironment, "OMPI_COMM_WORLD_SIZE"),
    )
    if _is_worker(processes):
        return OwnProcesses(processes, hosts)
    for name, detect, environment, count in launchers:
        if not detect():
            continue
        started = _number(count, 1)
        if started == 1 and asked != 1:
            continue  # it started this process only, so the others are up to us
        if started == asked > 1:
            if name == "srun":
                _check_step_of_slurm(processes, hosts)
            return environment()
        if started != asked and (asked > 1 or name == "torchrun"):
            raise UsageError(
                f"--processes {processes} --hosts {hosts}: {name} has started {started} processes ({count}), and this "
                f"asks for {asked}: make the two agree, or start samgan without {name}"
            )
        break  # one process was asked for: each process of the launcher is a run of its own
    return OwnProcesses(processes, hosts)


class Workers(_SubprocessScriptLauncher):
    """Starts the other processes of this host, the workers, and ends them if the processes do not meet.

    Fabric's own launcher also kills this process when a worker fails, without a word. Here `check` says it until all
    have met, and their `Watch` afterwards.
    """

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start the workers, then call `function`, in which the processes meet."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        try:
            if not environment.creates_processes_externally:
                self._start()
            _set_num_threads_if_needed(num_processes=self.num_processes)
            return function(*args, **kwargs)
        except BaseException:  # also a signal: the workers would wait for this process
            for process in self.procs:
                process.terminate()
            raise

    def _start(self) -> None:
        import __main__

        spec = __main__.__spec__  # of `python -m`
        program = [os.path.abspath(sys.argv[0])] if spec is None else ["-m", spec.name]
        command = [sys.executable, "-X", f"{PARENT}={os.getpid()}", *program, *sys.argv[1:]]
        found = self.cluster_environment
        place = {
            "MASTER_ADDR": found.main_address,
            "MASTER_PORT": str(found.main_port),
            "NODE_RANK": str(found.node_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        for number in range(1, self.num_processes):
            self.procs.append(subprocess.Popen(command, env={**os.environ, **place, "LOCAL_RANK": str(number)}))

    def check(self) -> None:
        """Check that the processes of this host that this one waits for are there.

        Raises:
            NotMet: A worker has ended by an error.
            SystemExit: This is a worker, and the process that started it is gone.
        """
        _end_if_orphaned()
        host = self.cluster_environment.node_rank()
        for rank, process in enumerate(self.procs, host * self.num_processes + 1):
            if process.poll():  # it ends with 0 after an error that every process has
                raise NotMet(
                    f"{Place(rank, host, self.num_nodes, self.num_processes)} ended with status {process.returncode} "
                    "before all had come: see what it says, and start again; if it says nothing, memory may be short"
                )


class Together(DDPStrategy):
    """Several processes, which meet before torch connects them, and watch over each other.

    Only the start of the processes, devices and precision are Fabric's: gradients are averaged by
    `samgan.distributed`.
    """

    watch: Watch | None = None
    """Over the other processes, from the launch on."""

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Workers(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        """Meet the other processes.

        Raises:
            NotMet: Some have not come, or the port of the first host is taken.
        """
        assert isinstance(self._launcher, Workers)
        found = self.cluster_environment
        assert found is not None
        found.set_global_rank(self.node_rank * self.num_processes + self.local_rank)
        found.set_world_size(self.num_nodes * self.num_processes)
        place = Place(found.global_rank(), self.node_rank, self.num_nodes, self.num_processes)
        address = found.main_address
        backend = "nccl" if self.root_device.type == "cuda" else "gloo"
        if place.hosts > 1 and backend == "gloo":
            name_interface(address)
        self.watch, store = _meet(found, address, place, self._launcher.check)
        # Who is lost is for the watch to say: the first process may take its time over a snapshot.
        torch.distributed.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.world, timeout=timedelta(days=1)
        )
        self.watch.reached()
        super().setup_environment()


def _meet(found: ClusterEnvironment, address: str, place: Place, check: Check) -> tuple[Watch, Store]:
    """The watch over the other processes, and where torch tells them how to reach each other."""
    agent, port = None, found.main_port
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun itself listens at this port
        agent = PrefixStore(
            f"samgan {os.environ.get('TORCHELASTIC_RESTART_COUNT')}",
            TCPStore(address, port, None, False, wait_for_workers=False),
        )
    if place.rank > 0:
        watch, port = join(address, int(agent.get("port")) if agent else port, place, check)
        return watch, agent or TCPStore(address, port, None, False, wait_for_workers=False)
    listener = listen(0 if agent else port)
    if agent:
        agent.set("port", str(listener.getsockname()[1]))
    store = agent or TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    return receive(listener, place, 0 if isinstance(store, PrefixStore) else store.port, check), store


def name_interface(address: str) -> None:
    """Tell Gloo by which network interface the first host is reached, unless the environment does.

    Gloo takes the address of the host's own name otherwise. On many machines that is 127.0.0.1 or 127.0.1.1, which no
    other host can reach.

    Args:
        address: IPv4 address or name of the first host.
    """
    if INTERFACE not in os.environ and (name := interface_to(address)):
        os.environ[INTERFACE] = name


def interface_to(address: str) -> str | None:
    """The name of the network interface that leads to an IPv4 address or a host's name; None if it is not known."""
    if sys.platform != "linux" or not address:
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((address, 9))  # sends nothing
        except OSError:
            return None
        own = asked.getsockname()[0]
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # one without an address
                found = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == own:
                    return name
    return None


@contextlib.contextmanager
def without_overrides() -> Iterator[None]:
    """Hide variables such as LT_DEVICES, which Fabric prefers to what it is told."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("LT_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _is_worker(processes: int) -> bool:
    """Whether this process was started for the run of another one, which is the first of this host."""
    return PARENT in sys._xoptions and 0 < _number("LOCAL_RANK", 0) < processes


def _end_if_orphaned() -> None:
    """End a worker whose parent is gone, without a word: it has nobody to train with. Windows does not tell it."""
    if sys._xoptions.get(PARENT, str(os.getppid())) != str(os.getppid()):
        sys.exit(0)


def _is_step_of_slurm() -> bool:
    """Whether srun has started this process. In a job script of sbatch there is a job, but no step of it.

    In an interactive shell of srun (`srun --pty bash`) there is a step, whose only task is the shell.
    """
    names = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS")
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return all(os.environ.get(name, "").isdigit() for name in names) and not shell


def _check_step_of_slurm(processes: int, hosts: int) -> None:
    """Check that srun has spread its tasks evenly, as `srun -n 2` does on one host."""
    spread = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    expected = f"{processes}(x{hosts})" if hosts > 1 else str(processes)
    if spread and spread != expected:
        raise UsageError(
            f"--processes {processes} --hosts {hosts}: expected {expected} tasks on each node, found {spread} "
            f"(SLURM_STEP_TASKS_PER_NODE): start it with srun --nodes={hosts} --ntasks-per-node={processes}"
        )
    # Lightning wants this variable, which srun sets only if it was given --ntasks-per-node.
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(processes))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default


def _check_hosts(hosts: int) -> None:
    missing = [name for name in ADDRESS if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"--hosts {hosts}: {missing[0]} is not set; expected MASTER_ADDR and MASTER_PORT of the first host, and in "
            f"NODE_RANK the number of this one, from 0 to {hosts - 1}"
        )
    if not 0 <= _number("NODE_RANK", -1) < hosts:
        raise UsageError(f"--hosts {hosts}: NODE_RANK is {os.environ['NODE_RANK']}; expected 0 to {hosts - 1}")
    if not 0 < _number("MASTER_PORT", -1) < 1 << 16:
        raise UsageError(f"--hosts {hosts}: MASTER_PORT is {os.environ['MASTER_PORT']}; expected 1 to 65535")
