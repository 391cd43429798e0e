"""Training on several hosts: network namespaces with links of their own, which are cut and slowed down."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import hosts as laboratory
import msgspec
import pytest
import torch
from hosts import ROOT, Network, finish

import samgan.hosts
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.hosts import HostLost, NotMet, Place, _read_place, attended, join, listen, receive
from samgan.runs import Run, load_checkpoint

TINY = [
    *("--network.max_channels=8", "--training.batch_size=12", "--training.kimg=0.24", "--training.precision=fp32"),
    *("--training.log_every_kimg=0.012", "--training.snapshot_every_kimg=0.12", "--device=cpu"),
]
"""20 steps of 12 images of 32 px, with a snapshot after 10 steps."""
STEPS = 20
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def possible():
    if reason := laboratory.why_not():
        pytest.skip(reason)


@pytest.fixture
def network(possible):
    with Network(3) as made:
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    write_phantoms(folder / "images", 20, 32)
    return prepare(folder / "images", folder / "set", resolution=32, workers=1).path


@pytest.fixture
def laboratory_of(network, data, tmp_path):
    return Laboratory(network, data, tmp_path)


class Laboratory:
    """Makes rounds of jobs for `forked_hosts.py`, and runs them."""

    def __init__(self, network, data, folder):
        self.network, self.data, self.folder, self.rounds = network, data, folder, []

    def alone(self, run, *words, **more):
        """A round of one process, without hosts."""
        self.rounds.append([self._job(run, None, {}, words, more)])

    def together(self, run, count, *words, events=(), first=0, **more):
        """A round of hosts from the `first` on; `events` are (host, step, shell command)."""
        hosts = self.network.hosts[first : first + count]
        jobs = []
        for host in hosts:
            changes = [{"at": step, "do": command} for number, step, command in events if number == host.number]
            there = ("--hosts", str(count), *words) if count > 1 else words
            variables = self.network.by_hand(host, hosts) if count > 1 else {}
            jobs.append(self._job(run, host, variables, there, {**more, **(changes[0] if changes else {})}))
        self.rounds.append(jobs)

    def _job(self, run, host, environment, words, more):
        errors = self.folder / f"errors-{len(self.rounds)}-{host.number if host else 'alone'}"
        return {
            "space": host and host.space,
            "name": host and host.name,
            "environment": environment,
            "words": ["train", str(self.data), "--out", str(self.folder / run), *TINY, *map(str, words)],
            "errors": str(errors),
            **more,
        }

    def run(self, timeout=250):
        """Run all rounds; returns of each the results of its jobs, with what they said."""
        (self.folder / "rounds.json").write_text(json.dumps(self.rounds))
        command = [sys.executable, str(ROOT / "tests/forked_hosts.py"), str(self.folder / "rounds.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False)
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout.splitlines()[-1])
        for jobs, outcomes in zip(self.rounds, results, strict=True):
            for job, outcome in zip(jobs, outcomes, strict=True):
                outcome["said"] = Path(job["errors"]).read_text()
        self.rounds = []
        return results

    def state(self, run, step=STEPS):
        """The state in a checkpoint of a run."""
        return load_checkpoint(Run.open(self.folder / run).checkpoint_path(step)).state


def assert_equal(a, b, tolerance=0.0):
    """All weights and moments of two states are equal, or no further apart than `tolerance`."""
    for part in ("generator", "discriminator", "ema_generator"):
        assert a[part].keys() == b[part].keys()
        for name, value in a[part].items():
            torch.testing.assert_close(b[part][name], value, rtol=tolerance, atol=tolerance)


def errors(said):
    """The lines of a process that are errors, and nothing that looks like a traceback."""
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("samgan: error: ")]


def test_two_hosts_compute_what_one_process_does_and_one_notices_that_the_other_was_killed(laboratory_of):
    lab = laboratory_of
    lab.alone("one", double=True)
    lab.together("two", 2, double=True)
    lab.together("killed", 2, events=[(1, 15, "kill -9 PID")])
    one, two, killed = lab.run()
    assert [job["status"] for job in one + two] == [0, 0, 0], [job["said"] for job in one + two]
    assert_equal(lab.state("one"), lab.state("two"), 1e-5)
    assert [job["status"] for job in killed] == [1, -9]
    assert killed[0]["seconds"] < 30
    (line,) = errors(killed[0]["said"])
    assert "host 1 (node-1) is gone" in line
    assert "--resume" in line
    assert lab.state("killed", 10)["step"] == 10


def place(rank, hosts=2, **more):
    return Place(rank, rank, hosts, 1, f"node-{rank}", **more)


def meet(*others, first=None, told=7):
    """Let places meet at this machine; returns what each gets, the first one first: a watch, or why there is none."""
    listener = listen(0)
    port = listener.getsockname()[1]
    first = first or place(0, hosts=len(others) + 1)
    work = [lambda: receive(listener, first, told), *(partial(join, "127.0.0.1", port, other) for other in others)]
    with ThreadPoolExecutor(len(work)) as pool:
        futures = [pool.submit(one) for one in work]
    outcomes = [future.exception() or future.result() for future in futures]
    for outcome in outcomes:
        if not isinstance(outcome, NotMet):
            (outcome[0] if isinstance(outcome, tuple) else outcome).reached()
    return outcomes


@pytest.fixture
def soon(monkeypatch):
    """Nobody is waited for long."""
    for name, value in {"ARRIVAL": 1.0, "PATIENCE": 0.3, "BEAT": 0.05, "SILENCE": 0.6, "GRACE": 2.0}.items():
        monkeypatch.setattr(samgan.hosts, name, value)


def test_what_is_no_place_of_a_run_is_turned_away():
    encoded = msgspec.json.encode(place(1))
    assert _read_place(encoded.decode()) == place(1)
    for wrong in (dict(processes=0), dict(hosts=0), dict(rank="x")):
        assert _read_place(json.dumps(json.loads(encoded) | wrong)) is None


def test_processes_meet_and_end_in_peace(soon):
    first, (second, told), (third, _) = meet(place(1, 3), place(2, 3))
    assert told == 7
    assert {str(link.place) for link in first.links} == {"host 1 (node-1)", "host 2 (node-2)"}
    assert [str(link.place) for link in second.links] == ["host 0 (node-0)"]
    time.sleep(1)  # longer than the silence that is allowed
    for watch in (first, third, second):
        with attended(watch):
            pass
    assert [watch.lost for watch in (first, second, third)] == [None] * 3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            place(1, hosts=3),
            "host 1 .node-1. was started with --hosts 3 --processes 1, and host 0 .node-0. with --hosts 2",
        ),
        (place(1, version="0.0"), "host 1 .node-1. runs samgan 0.0, and host 0"),
        (place(0), "host 0 .node-0. has come twice: give every host a NODE_RANK of its own, from 0 to 1"),
    ],
)
def test_who_does_not_belong_to_the_run_is_told(soon, other, message):
    outcomes = meet(other, first=place(0))
    for outcome in outcomes:
        assert isinstance(outcome, NotMet)
        assert re.match(message, str(outcome))


def test_who_stays_away_is_named(soon, capfd):
    here, none = meet(place(1, hosts=4), first=place(0, hosts=4))
    for outcome in (here, none):
        assert str(outcome).startswith("host 2, host 3 did not come within 1 seconds: start the same command on every")
    assert capfd.readouterr().err.splitlines() == ["samgan: waiting for host 2, host 3"]


def test_a_first_host_that_does_not_answer_is_named(soon):
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NotMet, match=f"MASTER_PORT {port} cannot be opened on this host .*choose another number"):
            listen(port)
    with pytest.raises(NotMet, match=f"the first host, 127.0.0.1 port {port}, did not answer within 1 seconds"):
        join("127.0.0.1", port, place(1))
    with pytest.raises(NotMet, match=r"MASTER_ADDR no.such.host.invalid: no host is known by this name here"):
        join("no.such.host.invalid", port, place(1))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"go 7 {}\n"])
def test_another_program_at_the_port_is_no_first_host(soon, answer):
    with listen(0) as listener, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(join, "127.0.0.1", listener.getsockname()[1], place(1))
        with listener.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(answer)
        with pytest.raises(NotMet, match="another program"):
            asked.result()


def test_another_program_that_calls_is_turned_away(soon):
    listener = listen(0)
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as stranger, ThreadPoolExecutor(1) as pool:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        first = pool.submit(receive, listener, place(0), 7)
        watch, _ = join("127.0.0.1", port, place(1))
        first.result().end(failed=False)
        watch.end(failed=False)


def gloo():
    raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.77.0.2]:11701")


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda link: link.close(), "host 1 .node-1. is gone: its training was killed, or it went down"),
        (lambda link: link.send("failed"), "host 1 .node-1. has ended by an error, which it reports itself"),
        (lambda link: None, "host 1 .node-1. has not answered for 0.6 seconds: it or its network is down"),
        (lambda link: link.send("x" * (1 << 17)), "host 1 .node-1. (is gone|has not answered)"),
    ],
)
def test_who_is_lost_is_named_to_all(soon, end, message):
    first, (second, _), (third, _) = meet(place(1, 3), place(2, 3))
    second._over.set()
    second.join()
    end(second.links[0])
    for watch in (first, third):
        with pytest.raises(HostLost, match=message) as caught, attended(watch):
            gloo()
        assert "--resume" in str(caught.value)
        assert "\n" not in str(caught.value)
    second.links[0].close()


def test_an_error_of_one_process_is_told_to_the_others_and_one_of_all_is_not(soon):
    for error, told in ((MemoryError(), "host 1 .node-1. has ended by an error"), (NotMet("all"), "has ended")):
        first, (second, _) = meet(place(1))
        with pytest.raises(type(error)), attended(second):
            raise error
        with pytest.raises(HostLost, match=told), attended(first):
            gloo()
    first, (second, _) = meet(place(1))
    with pytest.raises(RuntimeError, match="a defect"), attended(first):
        raise RuntimeError("a defect")
    second.end(failed=False)


def test_time_in_which_a_process_stood_still_itself_is_nobodys_silence(soon, monkeypatch):
    """After Ctrl-Z and fg, nothing has come for long, since the others stood still as well."""
    monkeypatch.setattr(samgan.hosts, "SILENCE", 60.0)
    first, (second, _) = meet(place(1))
    second._over.set()
    second.join()  # nothing comes from it any more
    ahead, looks = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0], sleep=time.sleep)
    monkeypatch.setattr(samgan.hosts, "time", clock)
    original = first._look
    monkeypatch.setattr(first, "_look", lambda: looks.append(0) or original())
    ahead[0] = 1000.0
    until = time.monotonic() + 30
    while len(looks) < 4 and first.lost is None and time.monotonic() < until:
        time.sleep(0.01)
    assert first.lost is None
    assert len(looks) >= 4
    monkeypatch.setattr(samgan.hosts, "SILENCE", 0.3)
    assert first._found.wait(30)
    assert "host 1 (node-1) has not answered" in first.lost
    first.end(failed=False)
    second.links[0].close()


class Gone(NotMet):
    """Why nobody need wait any longer."""


def test_whoever_waits_for_the_others_learns_that_it_is_of_no_use(monkeypatch):
    """The waiting would take ten minutes."""

    def check():
        calls.append(0)
        if len(calls) == 3:
            raise Gone("gone")

    calls = []
    with pytest.raises(Gone):
        receive(listen(0), place(0), 7, check)
    with listen(0) as silent:
        port = silent.getsockname()[1]
        calls = []
        with pytest.raises(Gone):  # connected, and never answered
            join("127.0.0.1", port, place(1), check)
    calls = []
    with pytest.raises(Gone):  # nobody listens
        join("127.0.0.1", port, place(1), check)


STOOD_STILL = """
import sys, time
from pathlib import Path
import samgan.hosts
from samgan.hosts import Place, attended, join, listen, receive
samgan.hosts.BEAT, samgan.hosts.PAUSE, samgan.hosts.SILENCE, samgan.hosts.GRACE = 0.1, 1.0, 10.0, 60.0
rank, file = int(sys.argv[1]), Path(sys.argv[2])
if rank == 0:
    listener = listen(0)
    file.with_suffix(".part").write_text(str(listener.getsockname()[1]))
    file.with_suffix(".part").rename(file)
    watch = receive(listener, Place(0, 0, 1, 2), 7)
else:
    while not file.exists():
        time.sleep(0.05)
    watch, _ = join("127.0.0.1", int(file.read_text()), Place(1, 0, 1, 2))
watch.reached()
while watch.lost is None:
    print("beat", flush=True)
    time.sleep(0.1)
print(watch.lost, flush=True)
"""


@pytest.mark.slow
def test_processes_that_all_stand_still_go_on_and_one_alone_is_named(tmp_path):
    command = [sys.executable, "-c", STOOD_STILL]
    pair = [
        subprocess.Popen([*command, str(rank), tmp_path / "port"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for rank in (0, 1)
    ]
    try:
        for process in pair:
            assert process.stdout.readline() == "beat\n"
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in pair:
                process.send_signal(number)
            time.sleep(13)
        pair[1].send_signal(signal.SIGSTOP)
        *before, last = pair[0].communicate(timeout=120)[0].splitlines()
        assert len(before) > 20
        assert last.startswith("process 1 has not answered for 10 seconds")
    finally:
        for process in pair:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_hosts_and_two_with_the_variables_of_slurm_compute_what_one_process_does(laboratory_of):
    lab, network = laboratory_of, laboratory_of.network
    lab.alone("one", double=True)
    lab.together("three", 3, double=True)
    lab.together("slurm", 2, double=True)
    for number, job in enumerate(lab.rounds[-1]):
        step = {"SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "job", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"}
        step |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
        step |= {"SLURM_PROCID": str(number), "SLURM_NODEID": str(number)}
        job["environment"] = step | {"SLURM_NODELIST": ",".join(host.address for host in network.hosts[:2])}
    rounds = lab.run(timeout=400)
    assert [job["status"] for jobs in rounds for job in jobs] == [0] * 6, rounds
    for run in ("three", "slurm"):
        assert_equal(lab.state("one"), lab.state(run), 1e-5)


def slowed(network, delay, loss):
    try:
        return network.hosts[1].slow_down(delay, loss)
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_slow_and_lossy_link_loses_nobody(laboratory_of):
    lab = laboratory_of
    link = slowed(lab.network, 0.02, 0.02)
    try:
        begun = time.monotonic()
        ping = ["ip", "netns", "exec", lab.network.hosts[0].space, "bash", "-c"]
        closed = f"exec 3<>/dev/tcp/{lab.network.hosts[1].address}/9"  # nobody listens there: the answer comes at once
        subprocess.run([*ping, closed], capture_output=True, check=False)
        assert time.monotonic() - begun > 0.04, "the link is not slow"
        lab.alone("one", double=True)
        lab.together("slow", 2, double=True)
        one, slow = lab.run(timeout=600)
    finally:
        link.kill()
        link.wait()
    assert [job["status"] for job in one + slow] == [0, 0, 0], slow
    assert_equal(lab.state("one"), lab.state("slow"), 1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_host_whose_slow_link_then_loses_everything_is_named_within_half_a_minute(laboratory_of):
    lab = laboratory_of
    link = slowed(lab.network, 0.02, 0.02)
    stops = f"kill -STOP {link.pid}"  # the link stays up, and nothing comes through any more
    lab.together("stopped", 2, events=[(0, 15, stops)])
    try:
        (stopped,) = lab.run(timeout=600)
    finally:
        link.kill()
        link.wait()
    assert [job["status"] for job in stopped] == [1, 1]
    for job, name in zip(stopped, ("host 1 (node-1)", "host 0 (node-0)"), strict=True):
        (line,) = errors(job["said"])
        assert f"{name} has not answered for 20 seconds" in line
        assert job["seconds"] < 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_lost_a_host_goes_on_with_any_number_of_hosts(laboratory_of):
    lab = laboratory_of
    lab.alone("one", double=True)
    lab.together("two", 2, double=True)
    lab.together("killed", 2, double=True, events=[(1, 15, "kill -9 PID")])
    one, two, killed = lab.run(timeout=400)
    assert [job["status"] for job in one + two + killed] == [0, 0, 0, 1, -9]
    for run in ("alone", "three", "again"):
        shutil.copytree(lab.folder / "killed", lab.folder / run)
    lab.together("alone", 1, "--resume", double=True)
    lab.together("again", 2, "--resume", double=True)
    lab.together("three", 3, "--resume", double=True)
    rounds = lab.run(timeout=400)
    assert [job["status"] for jobs in rounds for job in jobs] == [0] * 6, rounds
    assert_equal(lab.state("two"), lab.state("again"))  # bit for bit
    for run in ("alone", "three"):
        assert_equal(lab.state("one"), lab.state(run), 1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_is_cut_off_or_was_first_is_named_within_half_a_minute(laboratory_of):
    lab, network = laboratory_of, laboratory_of.network
    lab.together("first", 3, events=[(0, 15, "kill -9 PID")])
    cut = f"ip -n {network.switch} link set port2 down"
    lab.together("cut", 3, events=[(1, 15, cut)])
    first, cut = lab.run(timeout=400)
    assert [job["status"] for job in first] == [-9, 1, 1]
    assert [job["status"] for job in cut] == [1, 1, 1]
    for job in first[1:]:
        (line,) = errors(job["said"])
        assert "host 0 (node-0) is gone" in line
    for job, name in zip(cut, ("host 2 (node-2)", "host 2 (node-2)", "host 0 (node-0)"), strict=True):
        (line,) = errors(job["said"])
        assert f"{name} has not answered for 20 seconds" in line
    assert max(job["seconds"] for job in first + cut) < 30
    for run in ("first", "cut"):
        assert lab.state(run, 10)["step"] == 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_by_hand_and_by_torchrun_train_together(network, data, tmp_path):
    hosts = network.hosts[:2]
    command = ["train", data, *TINY, "--hosts", 2, "--processes", 1, "--out"]
    by_hand = [sys.executable, "-m", "samgan", *command, tmp_path / "hand"]
    done = finish(network.start(by_hand, hosts=hosts), 200)
    assert [status for status, *_ in done] == [0, 0], done
    started = []
    for host in hosts:
        words = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={host.number}", f"--master-addr={hosts[0].address}"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *words, "--master-port=29500", "-m", "samgan"]
        started.append(host.start([*torchrun, *command, tmp_path / "torchrun"]))
    done = finish(started, 200)
    assert [status for status, *_ in done] == [0, 0], done
    runs = [load_checkpoint(Run.open(tmp_path / run).checkpoint_path(STEPS)).state for run in ("hand", "torchrun")]
    assert_equal(*runs)
