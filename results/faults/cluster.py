"""Kill workers, machines and the head of a Ray cluster in the middle of a sweep, and compare its table at the end.

    sudo python results/faults/cluster.py WORK_FOLDER [--sweeps 4] [--kills 20] [--seed 0]

The cluster has three hosts with two workers each. They are network namespaces of this machine (`tests/hosts.py`), and
each has a folder of its own for Ray. In each sweep (`samgan table2 --ray`, 20 jobs), workers, machines other than the
first, and the head are killed by SIGKILL, in an order and at moments that are drawn from the seed. A machine that was
killed comes back. If the command ends, the cluster is started anew, and the same command is given again until it is
done.

What became of each sweep is added to cluster.csv in this file's folder (`--log` names another one); a later call goes
on where it ends.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fault_log import append, read_log

from samgan.data import prepare, write_phantoms

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from hosts import Host, Network, ip, why_not  # noqa: E402

LOG = Path(__file__).parent / "cluster.csv"
ROWS = ("msg-gan-6", "msg-gan-7", "samgan-5", "samgan-8")
STEPS, BATCH = 30, 4
SEEDS = 5
SETTINGS = (
    f"--seeds={SEEDS}",
    *(f"--kimg={STEPS * BATCH / 1000}", "--snapshot-every-kimg=0.04", "--device=cpu", "--count=8"),
    *(f"--training.batch_size={BATCH}", "--network.max_channels=8", "--training.log_every_kimg=0.02"),
    *("--training.precision=fp32", "--cores-per-job=1"),
)
VICTIMS = ("worker", "machine", "head")
LONGEST_WAIT = 600.0
MOST_COMMANDS = 40
TIMED = {"wall_minutes", "wall_seconds", "images_per_second", "commit"}
"""What depends on the time in rows, logs and tables."""
RAY = str(Path(sys.executable).parent / "ray")
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PATH": os.environ["PATH"]}


@dataclasses.dataclass(frozen=True)
class Disturbed:
    """One row of the log."""

    seed: int
    sweep: int
    kills: str
    """What was killed, in this order, with the number of jobs that were done."""
    commands: int
    """How often the command had to be given until the sweep was done."""
    seconds: float
    lost: str
    """What differs from the undisturbed sweep, or was done twice; empty if nothing."""


class Cluster:
    """Ray on the hosts of a network."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.address = f"{network.hosts[0].address}:6379"

    def run(self, host: Host, *words: object, quiet: bool = True) -> "subprocess.Popen[str]":
        """Start a command on a host, with the host's own folder for Ray under a name that all hosts have."""
        own, common = self.folder / f"host-{host.number}", self.folder / "ray"
        for folder in (own, common):
            folder.mkdir(parents=True, exist_ok=True)
        shell = ["sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', own, common]
        return host.start([*shell, *words], environment=ENVIRONMENT, quiet=quiet)

    def start(self, host: Host) -> None:
        """Start Ray on a host; the first one is the head."""
        role = [f"--address={self.address}"]
        if host.number == 0:
            role = ["--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={self.folder / 'ray'}"]
        sizes = ["--num-cpus=2", "--object-store-memory=100000000"]
        self.run(
            host, RAY, "start", *role, f"--node-ip-address={host.address}", *sizes, "--disable-usage-stats", "--block"
        )

    def start_all(self) -> None:
        """Start Ray on all hosts, anew where it ran, and wait for its head."""
        for host in self.network.hosts:
            host.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        for host in self.network.hosts:
            self.start(host)
        port = "/dev/tcp/" + self.address.replace(":", "/")
        asked = ["ip", "netns", "exec", self.network.hosts[0].space, "bash", "-c", f"exec 3<>{port}"]
        _wait_for(lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0)

    def kill(self, host: Host, name: str) -> bool:
        """Kill one process of a host whose command begins with this name, or is this program; whether one was there."""
        for pid in ip("netns", "pids", host.space).split():
            with contextlib.suppress(OSError):
                program = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
                if program.startswith(name) or program.rpartition("/")[2] == name:
                    os.kill(int(pid), signal.SIGKILL)
                    return True
        return False


def disturb_sweeps(work: Path, log: Path, sweeps: int, kills: int, seed: int = 0) -> list[Disturbed]:
    """Disturb sweeps until the log has so many; returns the rows of this call."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "set").exists():
        write_phantoms(work / "images", 12, 32)
        prepare(work / "images", work / "set", resolution=32, workers=1)
    added: list[Disturbed] = []
    with Network(3) as network:
        cluster = Cluster(network, work / "cluster")
        if not (work / "undisturbed" / "table.json").exists():
            cluster.start_all()
            process = _command(cluster, work, "undisturbed")
            _, said = process.communicate(timeout=LONGEST_WAIT)
            if process.returncode:
                raise SystemExit(f"the undisturbed sweep failed: {said}")
        for number in range(len([row for row in read_log(log, Disturbed) if row.seed == seed]) + 1, sweeps + 1):
            added.append(_disturb(cluster, work, number, kills, seed))
            append(log, added[-1])
            print(added[-1], flush=True)
    return added


def _disturb(cluster: Cluster, work: Path, number: int, kills: int, seed: int) -> Disturbed:
    """Kill workers, machines and the head by turns while a sweep runs, and let it end."""
    draw = random.Random(f"{seed} {number}")
    name, begun = f"sweep-{number}", time.monotonic()
    out = work / name
    shutil.rmtree(out, ignore_errors=True)
    cluster.start_all()
    process, commands, killed, wrong = _command(cluster, work, name), 1, [], []
    first_seen: dict[str, bytes] = {}
    victims: list[str] = []
    while len(killed) < kills and commands <= MOST_COMMANDS and not _is_done(out):
        victims = victims or draw.sample(VICTIMS, len(VICTIMS))
        victim = victims.pop()
        running = len(_logged(out)) + draw.randrange(1, 4)  # so many lines of logs later
        _wait_for(lambda to=running, of=process: _look(out, first_seen) or len(_logged(out)) >= to or _over(of))
        if process.poll() is None and _kill(cluster, victim, draw):
            killed.append(f"{victim} ({len(first_seen)})")
        if victim == "head":
            process.wait(LONGEST_WAIT)
        if _over(process) and not _is_done(out):
            process, commands = _again(cluster, work, name, process, wrong), commands + 1
    while True:
        _wait_for(lambda of=process: _look(out, first_seen) or _over(of))
        if _is_done(out) or commands > MOST_COMMANDS:
            break
        process, commands = _again(cluster, work, name, process, wrong), commands + 1
    _, said = process.communicate()
    if process.returncode:
        wrong.append(f"the last command ended with {process.returncode}: {said[-300:]}")
    wrong += _compare(work / "undisturbed", out, first_seen)
    if not wrong:
        shutil.rmtree(out)
    seconds = round(time.monotonic() - begun, 1)
    return Disturbed(seed, number, ", ".join(killed), commands, seconds, " ".join("; ".join(wrong).split()))


def _command(cluster: Cluster, work: Path, name: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "samgan", "table2", work / "set", "--out", work / name, "--rows", *ROWS, *SETTINGS]
    return cluster.run(cluster.network.hosts[0], *words, "--ray", cluster.address, quiet=False)


def _again(
    cluster: Cluster, work: Path, name: str, process: "subprocess.Popen[str]", wrong: list[str]
) -> "subprocess.Popen[str]":
    """Start the cluster anew, and give the command again that has ended before the sweep was done."""
    _, said = process.communicate()
    errors = [line for line in said.splitlines() if "samgan: error" in line]
    # Status 0: some jobs have failed, as its table says.
    if process.returncode not in (0, 1) or len(errors) != process.returncode or "Traceback" in said:
        wrong.append(f"the command ended with {process.returncode}: {said[-300:]}")
    cluster.start_all()
    return _command(cluster, work, name)


def _is_done(out: Path) -> bool:
    return len(list(out.glob("rows/*.json"))) == len(ROWS) * SEEDS


def _kill(cluster: Cluster, victim: str, draw: random.Random) -> bool:
    hosts = cluster.network.hosts
    if victim == "head":
        return cluster.kill(hosts[0], "gcs_server")
    if victim == "worker":
        return any(cluster.kill(host, "ray::") for host in draw.sample(hosts, len(hosts)))
    host = draw.choice(hosts[1:])
    host.kill()
    time.sleep(draw.uniform(0.0, 5.0))
    cluster.start(host)
    return True


def _over(process: "subprocess.Popen[str]") -> bool:
    return process.poll() is not None


def _logged(out: Path) -> list[str]:
    return [line for path in out.glob("runs/*/stats.jsonl") for line in path.read_text("utf-8").splitlines()]


def _look(out: Path, first_seen: dict[str, bytes]) -> bool:
    """Remember each row as it was when it was first there."""
    for path in out.glob("rows/*.json"):
        first_seen.setdefault(path.name, path.read_bytes())
    return False


def _compare(expected: Path, out: Path, first_seen: dict[str, bytes]) -> Iterator[str]:
    """What differs between two sweeps, apart from times, or was done twice."""
    names, wanted = ({path.name for path in folder.glob("rows/*.json")} for folder in (out, expected))
    if names != wanted:
        yield f"rows: {names ^ wanted}"
    for name in names & wanted:
        if (out / "rows" / name).read_bytes() != first_seen.get(name, (out / "rows" / name).read_bytes()):
            yield f"{name} was written twice"
        if _untimed(json.loads((out / "rows" / name).read_text())) != _untimed(
            json.loads((expected / "rows" / name).read_text())
        ):
            yield f"{name} differs"
    for path in out.glob("runs/*/stats.jsonl"):
        lines, others = (
            [_untimed(json.loads(line)) for line in file.read_text("utf-8").splitlines()]
            for file in (path, expected / path.relative_to(out))
        )
        if sorted(map(repr, lines)) != sorted(map(repr, others)):
            yield f"the log of {path.parent.name} differs"
    tables = [json.loads((folder / "table.json").read_text())["lines"] for folder in (out, expected)]
    if _untimed(tables[0]) != _untimed(tables[1]):
        yield "the table differs"


def _untimed(tree: object) -> object:
    """A document without what depends on times and folders."""
    if isinstance(tree, dict):
        return {key: _untimed(value) for key, value in tree.items() if key not in TIMED}
    return [_untimed(value) for value in tree] if isinstance(tree, list) else tree


def _wait_for(condition: Callable[[], bool], seconds: float = LONGEST_WAIT) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"nothing happened within {seconds:g} seconds")
        time.sleep(0.1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line; the status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--sweeps", type=int, default=4, help="in all, those in the log included (default: 4)")
    parser.add_argument("--kills", type=int, default=20, help="in each sweep (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=LOG)
    options = parser.parse_args(arguments)
    if reason := why_not():
        parser.error(reason)
    rows = disturb_sweeps(options.work.resolve(), options.log, options.sweeps, options.kills, options.seed)
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
