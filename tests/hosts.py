"""Hosts of a small network of its own: network namespaces with virtual links to a switch, on one file system.

Each host has its own name, addresses and ports. Nothing reaches another network, and nothing of it stays.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PORT = 29500
_numbers = itertools.count()


def ip(*words):
    """Run `ip` with these words; returns what it prints."""
    return subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True).stdout


def why_not():
    """Why there can be no such network here; None if there can."""
    if sys.platform != "linux":
        return "network namespaces are of Linux"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if missing := [name for name in ("ip", "unshare") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed (packages iproute2 and util-linux)"
    try:
        remove_left_behind()
        with Network(1):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespace can be made here: {getattr(error, 'stderr', '') or error}"


def remove_left_behind():
    """Remove networks of processes that were killed before they could."""
    for line in ip("netns", "list").splitlines():
        found = re.match(r"samgan(\d+)-", line)
        if found and not Path(f"/proc/{found[1]}").exists():
            remove(line.split()[0])


def remove(space):
    """End what runs in a namespace, and remove it with its links."""
    with contextlib.suppress(subprocess.CalledProcessError):
        for pid in ip("netns", "pids", space).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("netns", "delete", space)


@dataclass(frozen=True)
class Host:
    """One host of a network."""

    number: int
    space: str
    switch: str

    @property
    def name(self):
        return f"node-{self.number}"

    @property
    def address(self):
        return f"10.77.0.{self.number + 1}"

    def start(self, words, *, environment=(), quiet=False, cores=None):
        """Start a command on this host; it is a group of processes of its own."""
        name = f'hostname {self.name} && exec "$@"'
        command = ["ip", "netns", "exec", self.space, "unshare", "--uts", "sh", "-c", name, "sh", *map(str, words)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "MASTER", "NODE_RANK"))}
        settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **dict(environment)}
        sink = subprocess.DEVNULL if quiet else subprocess.PIPE
        return subprocess.Popen(
            command if cores is None else ["taskset", "--cpu-list", str(cores), *command],
            env={**kept, **settings},
            stdout=sink,
            stderr=sink,
            text=True,
            start_new_session=True,
        )

    def kill(self):
        """End every process of this host at once, as when its power fails; its network stays."""
        for pid in ip("netns", "pids", self.space).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def cut(self):
        """Cut the link to the switch, on the side of the switch: this host only hears no more."""
        ip("-n", self.switch, "link", "set", f"port{self.number}", "down")

    def slow_down(self, delay, loss):
        """Replace the link by one that delays every frame by so many seconds, and drops a part of them, `loss`.

        Raises:
            OSError: It cannot be made here.
        """
        port = f"port{self.number}"
        ip("-n", self.space, "link", "delete", "eth0")
        words = [self.space, "eth0", self.switch, port, str(delay), str(loss)]
        link = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/slow_link.py"), *words], stdout=subprocess.PIPE, start_new_session=True
        )
        with link.stdout:
            if not link.stdout.readline():
                raise OSError("no tap device can be made here")
        ip("-n", self.space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.space, "link", "set", "eth0", "up")
        ip("-n", self.switch, "link", "set", port, "master", "bridge0", "up")
        return link

    def sent(self):
        """Bytes that this host has sent over its link so far."""
        counter = "/sys/class/net/eth0/statistics/tx_bytes"
        command = ["ip", "netns", "exec", self.space, "cat", counter]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Network:
    """Some hosts at one switch; a context manager, which removes what it has made."""

    def __init__(self, count):
        self.prefix = f"samgan{os.getpid()}-{next(_numbers)}"
        self.switch = f"{self.prefix}-switch"
        self.hosts = [Host(number, f"{self.prefix}-{number}", self.switch) for number in range(count)]

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _make(self):
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge0", "up")
        for host in self.hosts:
            port = f"port{host.number}"
            ip("netns", "add", host.space)
            ip("-n", host.space, "link", "set", "lo", "up")
            peer = ("type", "veth", "peer", "name", port, "netns", self.switch)
            ip("-n", host.space, "link", "add", "eth0", *peer)
            ip("-n", host.space, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.space, "link", "set", "eth0", "up")
            ip("-n", self.switch, "link", "set", port, "master", "bridge0", "up")

    def close(self):
        """End what runs on the hosts, and remove them."""
        for space in [*(host.space for host in self.hosts), self.switch]:
            remove(space)

    def by_hand(self, host, hosts=None):
        """The variables that somebody sets who starts the processes by hand."""
        first = (hosts or self.hosts)[0]
        return {
            "MASTER_ADDR": first.address,
            "MASTER_PORT": str(PORT),
            "NODE_RANK": str((hosts or self.hosts).index(host)),
        }

    def start(self, words, *, hosts=None, **options):
        """Start the same command by hand on all hosts, or on those named; returns its processes."""
        hosts = hosts or self.hosts
        return [host.start(words, environment=self.by_hand(host, hosts), **options) for host in hosts]


def finish(processes, seconds=120):
    """Wait for processes; returns the status, the output and the errors of each."""
    end = time.monotonic() + seconds
    results = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
            results.append((process.returncode, out, err))
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return results
