"""The processes of a run meet, and each soon notices when another one is gone.

torch waits for half an hour for a process that does not answer, and does not say which one it is. So every process also
has a connection to the first one. There it says who it is, and then, every second, that it lives. The first process
judges who is lost, and tells the others. A process that was killed is noticed at once, because the system closes its
connections; a link that was cut is noticed after `SILENCE`.

Anyone who reaches these ports can disturb a run, as with torch's own: the network between the hosts has to be trusted.
"""

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from samgan import __version__, terminal
from samgan.errors import SamganError, first_line, shown

ARRIVAL = 600.0
"""Seconds until all processes must have come, and again until all must have reached each other."""
PATIENCE = 5.0
"""Seconds until it is said who is being waited for."""
BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = 20.0
"""A process that is not heard of for so many seconds is lost. Together with `GRACE`, less than 30."""
PAUSE = 3.0
"""A process that looks for signs of life after more than so many seconds stood still itself, as by Ctrl-Z."""
GRACE = 3.0
"""Seconds in which a process may end by itself once another one is lost. After them, it is ended."""
LONGEST = 1 << 16  # bytes of a line; longer ones are not ours
OF_TORCH = re.compile("gloo|nccl|connection (closed|reset)|broken pipe", re.IGNORECASE)
"""What torch's errors of communication have in common; Gloo's are plain RuntimeErrors."""
Check = Callable[[], None]  # called while a process waits for others; raises an error if that is of no use any more
RESUME = "Training stops here too; continue from the last checkpoint with --resume, on as many hosts as you like"


class HostLost(SamganError):
    """Another process of the run is gone, so this one cannot go on; the run's last checkpoint is intact."""

    on_all_processes = True


class NotMet(SamganError):
    """The processes of a run did not come together; nothing has been written."""

    on_all_processes = True


@dataclass(frozen=True)
class Place:
    """Which process of a run this is."""

    rank: int
    """Number among all processes, from 0; 0 is the first process."""
    host: int
    """Number of its host, from 0."""
    hosts: int
    """Number of hosts."""
    processes: int
    """Processes per host."""
    machine: str = field(default_factory=socket.gethostname)
    """The host's own name."""
    version: str = __version__
    """Of samgan."""

    @property
    def world(self) -> int:
        """Number of processes of the run."""
        return self.hosts * self.processes

    def __str__(self) -> str:
        host = f"host {self.host} ({shown(self.machine)})"
        local = self.rank % self.processes
        if self.hosts == 1:
            return f"process {local}"
        return host if self.processes == 1 else f"{host}, process {local}"


class Link:
    """The connection to another process, which carries lines of text.

    Args:
        place: Whose process it is; None while that is not known.
        connection: An open connection.
    """

    def __init__(self, place: Place | None, connection: socket.socket) -> None:
        self.place, self.connection = place, connection
        self.unread = b""
        self.heard = time.monotonic()
        self.left = False
        """Whether the other process has said that it ends."""

    def send(self, line: str) -> None:
        """Send a line, if the connection takes it."""
        with contextlib.suppress(OSError):
            self.connection.send(f"{line}\n".encode())

    def lines(self) -> list[str]:
        """The lines that have come, without waiting.

        Raises:
            EOFError: The other process, or its system, has closed the connection, and all lines were read.
        """
        closed = False
        self.connection.setblocking(False)
        try:
            while block := self.connection.recv(4096):
                self.unread += block
                if len(self.unread) > LONGEST:
                    break
            closed = True
        except BlockingIOError:
            pass
        except OSError:
            closed = True
        *lines, self.unread = self.unread.split(b"\n")
        if lines:
            self.heard = time.monotonic()
        elif closed:
            raise EOFError
        return [line.decode(errors="replace") for line in lines]

    def line(self, seconds: float, check: Check = lambda: None) -> str:
        """The next line, waited for.

        Raises:
            EOFError: None came within `seconds`, or the connection was closed.
        """
        until = time.monotonic() + seconds
        self.connection.settimeout(min(seconds, 0.5))
        with contextlib.suppress(OSError):
            while b"\n" not in self.unread and len(self.unread) < LONGEST and time.monotonic() < until:
                check()
                with contextlib.suppress(TimeoutError):
                    block = self.connection.recv(4096)
                    if not block:
                        break
                    self.unread += block
        line, found, self.unread = self.unread.partition(b"\n")
        if not found:
            raise EOFError
        self.heard = time.monotonic()
        return line.decode(errors="replace")

    def close(self) -> None:
        """Close the connection after what was sent."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self.connection.close()


class Watch(threading.Thread):
    """Says every second that this process lives, and ends it if another one is lost. It begins at once.

    torch's messages cannot be interrupted. A process that waits in one for somebody who is gone is ended by `os._exit`,
    after one line on standard error; if it gets an error by itself, `attended` turns that into a `HostLost`.

    Args:
        place: Of this process.
        links: The first process has one to each other process, the others have one to the first process.
    """

    def __init__(self, place: Place, links: Iterable[Link]) -> None:
        super().__init__(name="hosts", daemon=True)
        self.place, self.links = place, list(links)
        self.lost: str | None = None
        """Why the run cannot go on."""
        self._found, self._over = threading.Event(), threading.Event()
        now = time.monotonic()
        self._reach_by: float | None = now + ARRIVAL
        for link in self.links:
            link.heard = now
        self.start()

    def reached(self) -> None:
        """This process has its connections to all others."""
        self._reach_by = None

    def why(self, error: Exception) -> SamganError:
        """What to report instead of an error of the communication: who is lost, which is known within `SILENCE`."""
        self._found.wait(SILENCE + GRACE)
        if self.lost is not None:
            return HostLost(self.lost)
        gone = [str(link.place) for link in self.links if link.left]
        told = f"{gone[0]} has ended" if gone else first_line(error)
        return HostLost(f"the processes of the run cannot talk to each other: {told}. {RESUME}")

    def end(self, failed: bool) -> None:
        """Tell the others that this process ends, and watch no longer.

        Args:
            failed: Whether it ends by an error that the others do not have.
        """
        self._over.set()
        self.join()
        for link in self.links:
            link.send("failed" if failed else "left")
            link.close()

    def run(self) -> None:
        """Watch until `end`."""
        before = time.monotonic()
        while self.lost is None and not self._over.wait(BEAT):
            now = time.monotonic()
            stood_still, before = max(0.0, now - before - PAUSE), now
            for link in self.links:
                link.heard += stood_still  # nobody could be heard then, and the others may have stopped too
                link.send("beat")
            self.lost = self._look()
        if self.lost is None:
            return
        for link in self.links:
            link.send(f"lost {self.lost}")
        self._found.set()
        if not self._over.wait(GRACE):
            if self.place.rank % self.place.processes == 0:
                terminal.say(f"samgan: error: {shown(self.lost)}")
                os._exit(1)
            os._exit(0)  # the launcher would kill the first process of the host before that has reported

    def _look(self) -> str | None:
        """Why the run cannot go on; None if it can."""
        for link in self.links:
            if link.left:
                continue
            try:
                lines = link.lines()
            except EOFError:
                return f"{link.place} is gone: its training was killed, or it went down. {RESUME}"
            for line in lines:
                word, _, text = line.partition(" ")
                if word == "lost":
                    return text
                if word == "failed":
                    return f"{link.place} has ended by an error, which it reports itself. {RESUME}"
                link.left = link.left or word == "left"
            if time.monotonic() - link.heard > SILENCE and not link.left:
                return f"{link.place} has not answered for {SILENCE:g} seconds: it or its network is down. {RESUME}"
        if self._reach_by is not None and time.monotonic() > self._reach_by:
            return (
                f"the hosts reach the first one, but did not all reach each other within {ARRIVAL:g} seconds: open all "
                "ports between them, or name the network interface to use in GLOO_SOCKET_IFNAME"
            )
        return None


@contextlib.contextmanager
def attended(watch: Watch | None) -> Iterator[None]:
    """Within it, a lost process is named instead of what torch says; at its end, the others are told.

    Args:
        watch: From `receive` or `join`; None for a run of one process.

    Raises:
        HostLost: Another process of the run is gone.
    """
    if watch is None:
        yield
        return
    failed = True
    try:
        yield
        failed = False
    except RuntimeError as error:
        if not OF_TORCH.search(str(error)):
            raise
        failed = False
        raise watch.why(error) from None
    except Exception as error:
        failed = not getattr(error, "on_all_processes", False)
        raise
    finally:
        watch.end(failed)


def listen(port: int) -> socket.socket:
    """Open the port at which the first process is met; 0 chooses one.

    Raises:
        NotMet: Another program has it.
    """
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise NotMet(
            f"MASTER_PORT {port} cannot be opened on this host ({error.strerror}): choose another number, and give the "
            "same to every host"
        ) from None


def receive(listener: socket.socket, place: Place, told: int, check: Check = lambda: None) -> Watch:
    """On the first process: wait for all others, and tell them a number.

    Args:
        listener: From `listen`; it is closed.
        place: Of this process.
        told: What `join` returns to the others.
        check: Called again and again while it waits.

    Raises:
        NotMet: Somebody has not come, or was started with other numbers or another version. Or an error of `check`.
    """
    links: dict[int, Link] = {}
    begun, has_said = time.monotonic(), False
    try:
        with listener:
            listener.settimeout(0.2)
            while len(links) < place.world - 1:
                check()
                with contextlib.suppress(OSError):
                    _admit(Link(None, listener.accept()[0]), place, links)
                for rank, link in list(links.items()):
                    try:
                        link.lines()
                    except EOFError:  # it has ended before the run began
                        del links[rank]
                missing, waited = _missing(place, links), time.monotonic() - begun
                if missing and waited > PATIENCE and not has_said:
                    terminal.say(f"samgan: waiting for {missing}")
                    has_said = True
                if missing and waited > ARRIVAL:
                    raise NotMet(
                        f"{missing} did not come within {ARRIVAL:g} seconds: start the same command on every host, "
                        "each with a NODE_RANK of its own, and let all hosts reach MASTER_PORT of the first one"
                    )
    except NotMet as error:
        for link in links.values():
            link.send(f"no {error}")
            link.close()
        raise
    for link in links.values():
        link.send(f"go {told} {msgspec.json.encode(place).decode()}")
    return Watch(place, links.values())


def join(address: str, port: int, place: Place, check: Check = lambda: None) -> tuple[Watch, int]:
    """On every other process: find the first one, and wait until all have come.

    Args:
        address: Name or address of the first process's host.
        port: At which it listens.
        place: Of this process.
        check: Called again and again while it waits.

    Returns:
        The watch, and the number that the first process tells.

    Raises:
        NotMet: The first process does not answer, or refuses this one. Or an error of `check`.
    """
    link = Link(None, _connect(address, port, check))
    link.send(msgspec.json.encode(place).decode())
    try:
        link.place, number = _read_answer(link.line(ARRIVAL + GRACE, check), address, port)
    except EOFError:
        link.close()
        raise NotMet(
            f"the first host, {address}, ended before all hosts had come, or another program has its port {port}: see "
            "what it says, and start all hosts again"
        ) from None
    except NotMet:
        link.close()
        raise
    return Watch(place, [link]), number


def _read_answer(line: str, address: str, port: int) -> tuple[Place, int]:
    word, _, text = line.partition(" ")
    if word == "no":
        raise NotMet(text)
    number, _, encoded = text.partition(" ")
    first = _read_place(encoded)
    if word != "go" or not number.isdigit() or first is None:
        raise NotMet(f"{address} port {port}: expected the first process of the run, found another program")
    return first, int(number)


def _connect(address: str, port: int, check: Check) -> socket.socket:
    begun, has_said = time.monotonic(), False
    while True:
        check()
        try:
            return socket.create_connection((address, port), timeout=5)
        except socket.gaierror as error:
            raise NotMet(f"MASTER_ADDR {address}: no host is known by this name here ({error.strerror})") from None
        except OSError as error:
            told = f"the first host, {address} port {port}"
            waited = time.monotonic() - begun
            if waited > ARRIVAL:
                raise NotMet(
                    f"{told}, did not answer within {ARRIVAL:g} seconds ({error.strerror or error}): start the same "
                    "command there, with NODE_RANK=0, and let all hosts reach this port"
                ) from None
            if waited > PATIENCE and not has_said:
                terminal.say(f"samgan: waiting for {told} ({error.strerror or error})")
                has_said = True
        time.sleep(0.5)


def _admit(link: Link, place: Place, links: dict[int, Link]) -> None:
    """Ask somebody who has come who they are; programs that do not belong to a run are turned away."""
    try:
        other = _read_place(link.line(PATIENCE))
    except EOFError:
        other = None
    if other is None:
        link.close()
        return
    link.place = other
    if other.version != place.version:
        reason = f"{other} runs samgan {other.version}, and {place} {place.version}: install the same on all hosts"
    elif (other.hosts, other.processes) != (place.hosts, place.processes):
        reason = (
            f"{other} was started with --hosts {other.hosts} --processes {other.processes}, and {place} with --hosts "
            f"{place.hosts} --processes {place.processes}: start the same command on every host"
        )
    elif other.rank in links or not 0 < other.rank < place.world:
        reason = f"{other} has come twice: give every host a NODE_RANK of its own, from 0 to {place.hosts - 1}"
    else:
        links[other.rank] = link
        return
    link.send(f"no {reason}")
    link.close()
    raise NotMet(reason)


def _missing(place: Place, links: dict[int, Link]) -> str:
    ranks = [rank for rank in range(1, place.world) if rank not in links]
    if place.hosts == 1:
        return ", ".join(f"process {rank}" for rank in ranks)
    return ", ".join(f"host {host}" for host in dict.fromkeys(rank // place.processes for rank in ranks))


def _read_place(line: str) -> Place | None:
    """A place that was sent; None if it is none."""
    try:
        place = msgspec.json.decode(line, type=Place)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return place if place.processes > 0 and place.hosts > 0 else None
