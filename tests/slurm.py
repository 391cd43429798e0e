"""A Slurm of one node, in a folder of its own: munged, slurmctld and slurmd, which end with it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
SETTINGS = """
ClusterName=samgan
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1
ReturnToService=2
KillWait=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def why_not():
    """Why no Slurm can be started here; None if it can be tried."""
    if sys.platform != "linux":
        return "Slurm is tried on Linux only"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{missing[0]} is not installed (Debian: slurm-wlm and munge)"
    if os.geteuid() != 0:
        return "only root may start a slurmd"
    return None


class Cluster:
    """A Slurm of one node, between `start` and `close`. Its commands need `environment`.

    Args:
        folder: Where it keeps everything; it must be there.
        cpus: Number of CPUs that the node says it has.
    """

    def __init__(self, folder, cpus=2):
        self.folder, self.cpus, self.daemons = folder, cpus, []
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SQUEUE"))}
        self.environment = {**kept, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self):
        """Start it, and wait until the node is ready.

        Raises:
            TimeoutError: Something did not come up.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self):
        folder = self.folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        settings = SETTINGS.format(host=host, folder=folder, ports=_free_ports(2), cpus=self.cpus)
        (folder / "slurm.conf").write_text(settings)
        places = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
        places |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
        self._daemon("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in places.items()))
        self._wait_for(lambda: (folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D", "-N", host)
        self._wait_for(lambda: "idle" in self._said("sinfo", "--noheader", "--format=%T"), "the node")

    def _daemon(self, *words):
        sink = subprocess.DEVNULL
        self.daemons.append(
            subprocess.Popen(words, env=self.environment, stdin=sink, stdout=sink, stderr=sink, start_new_session=True)
        )

    def _said(self, *words):
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout

    def _wait_for(self, condition, what):
        end = time.monotonic() + 30
        while not condition():
            if time.monotonic() > end:
                logs = [path.read_text(errors="replace")[-300:] for path in self.folder.glob("*.log")]
                raise TimeoutError(f"{what} did not come up: {' '.join(' '.join(logs).split())}")
            time.sleep(0.2)

    def run(self, *words, **more):
        """Run a command of Slurm; returns what it prints.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        return subprocess.run(
            list(map(str, words)), env=self.environment, capture_output=True, text=True, check=True, **more
        ).stdout

    def close(self):
        """Cancel all jobs, and end the daemons."""
        if len(self.daemons) == 3:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._said("scancel", "--signal=KILL", "--full", "--user=root")
                self._said("scancel", "--user=root")
                end = time.monotonic() + 20
                while self._said("squeue", "--noheader") and time.monotonic() < end:
                    time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
