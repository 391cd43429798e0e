"""What is below the root: prepared sets and runs, found by small files, and what these say at a glance."""

import contextlib
import functools
import itertools
import math
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from samgan.config import Config
from samgan.data.documents import SetInfo
from samgan.documents import Document
from samgan.errors import SamganError, one_line, shown
from samgan.files import is_system_name
from samgan.locks import find_holder
from samgan.runs import Environment, Run
from samgan.studio import processes
from samgan.studio.places import Outside, Root

DEPTH = 5
"""Folders below the root that are looked into."""
FOLDERS = 5000
"""Folders that are looked into at most; a folder of images has few folders in it, but it may be a wrong root."""
ENTRIES = 20_000
"""Entries of one folder that are looked at."""
NAMED = 3
"""Folders that a note names."""
MODEL_SUFFIX = ".safetensors"
REMEMBERED = 10 * FOLDERS
"""What is remembered of files and folders until they change: more than a walk asks for, which takes six of a run."""

TELLING = frozenset(
    {
        *("config.json", "environment.json", "dataset.json", "plan.json", "table.json", "card.json", "audit.json"),
        *("scores.json", "scores-paper.json", "scores-legacy.json"),
    }
)
"""Files that tell what a folder is, or that a page shows."""

State = Literal["running", "finished", "stopped", "damaged", "absent"]
T = TypeVar("T")
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class FoundDocument(Generic[D]):
    """A document that a command wrote."""

    place: str
    """Of its folder."""
    name: str
    document: D | None
    """None if it cannot be read."""
    problem: str = ""
    """Why not."""


@dataclass(frozen=True)
class FoundSet:
    """A prepared set."""

    place: str
    info: SetInfo | None = None
    """None if it cannot be read."""
    problem: str = ""
    """Why not."""


@dataclass(frozen=True)
class FoundRun:
    """A run, as far as it has come."""

    place: str
    state: State
    problem: str = ""
    """What is damaged."""
    config: Config | None = None
    environment: Environment | None = None
    pid: int | None = None
    """The process that trains; None if nobody does, or it is not known."""
    minutes: float | None = None
    """Minutes of training after which that process ends, or one that continues as the run was begun; None: no limit,
    or it is not known."""
    line: dict[str, Any] = field(default_factory=dict)
    """The newest line of the log; empty before the first."""
    saved_step: int = 0
    """Step of the newest checkpoint; 0 if there is none."""
    changed: float = 0.0
    """When the log was last written to, in seconds since 1970; 0: never."""

    @property
    def kimg(self) -> float:
        """Thousands of images seen."""
        return float(self.line.get("images_seen", 0)) / 1000

    @property
    def goal_kimg(self) -> float:
        """Where the run ends; 0 if its settings cannot be read."""
        return self.config.training.kimg if self.config else 0.0

    @property
    def images_per_second(self) -> float:
        """Of the newest line."""
        return float(self.line.get("images_per_second", 0.0))

    @property
    def seconds_left(self) -> float | None:
        """Until the goal, at the speed of the whole run, or until time is up; None if nothing tells it."""
        seconds, kimg = float(self.line.get("wall_seconds", 0.0)), self.kimg
        if kimg <= 0 or seconds <= 0:
            return None
        left = (self.goal_kimg - kimg) * seconds / kimg
        return max(0.0, left if self.minutes is None else min(left, 60 * self.minutes - seconds))


@dataclass(frozen=True)
class Found:
    """Everything below the root."""

    sets: tuple[FoundSet, ...]
    runs: tuple[FoundRun, ...]
    notes: tuple[str, ...] = ()
    """What was not looked at."""


@dataclass
class _Passed:
    """What was passed over on a walk."""

    links: int = 0
    """To folders."""
    deep: int = 0
    """Folders that are too deep."""
    unread: list[str] = field(default_factory=list)
    """Places of folders that cannot be read."""
    large: list[str] = field(default_factory=list)
    """Places of folders of which only a part was looked at."""

    def sentences(self) -> Iterator[str]:
        """The same, for a reader."""
        if self.links:
            yield f"{_counted(self.links, 'link to a folder is', 'links to folders are')} not followed."
        if self.deep:
            number = _counted(self.deep, "folder is", "folders are")
            yield f"{number} more than {DEPTH} levels deep and not looked into."
        if self.unread:
            yield f"{_counted(len(self.unread), 'folder', 'folders')} cannot be read: {_named(self.unread)}."
        if self.large:
            number = _counted(len(self.large), "folder has", "folders have")
            yield f"{number} more than {ENTRIES:,} files, and not all were looked at: {_named(self.large)}."


class Catalogue:
    """Finds and describes sets and runs. What small files say is remembered until they change.

    Several threads may use it: the worst that can happen is that a file is read twice.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self.known: OrderedDict[tuple[str, str], tuple[tuple[int, ...], Any]] = OrderedDict()

    def remembered(self, path: Path, what: str, read: Callable[[], T]) -> T:
        """`read()`, or what it returned when the file last changed.

        Raises:
            Outside: A link leads it out of the root.
            OSError: There is no such file.
            SamganError: From `read`; it is not remembered.
        """
        self.root.check(path)
        status = path.stat()
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        key = (os.fspath(path), what)
        known = self.known.get(key)
        if known is None or known[0] != version:
            known = (version, read())
            self.known[key] = known
            while len(self.known) > REMEMBERED:
                self.known.popitem(last=False)
        value: T = known[1]
        return value

    def look(self) -> Found:
        """Find all sets and runs; the runs that changed last come first."""
        sets: list[FoundSet] = []
        runs: list[FoundRun] = []
        notes: list[str] = []
        for path, kind in self._walk(notes.append):
            if kind == "set":
                sets += self._described(self.describe_set, self.root.place(path), notes.append)
            elif kind == "run":
                runs += self._described(self.describe_run, self.root.place(path), notes.append)
        runs.sort(key=lambda run: (run.state != "running", -run.changed, run.place))
        return Found(tuple(sorted(sets, key=lambda found: found.place)), tuple(runs), tuple(notes))

    def sets(self) -> list[FoundSet]:
        """All sets that can be read, without a look at the runs."""
        places = [self.root.place(path) for path, kind in self._walk(lambda text: None) if kind == "set"]
        found = (each for place in places for each in self._described(self.describe_set, place))
        return [each for each in found if each.info]

    def set_of(self, sha256: str) -> FoundSet | None:
        """The set with this hash, on which a model was trained; None if it is not below the root, or not known."""
        return next((found for found in self.sets() if found.info and found.info.sha256 == sha256), None)

    def folders(self) -> list[str]:
        """Places of folders that are neither sets nor runs, in order."""
        own = self.root.path
        return sorted(
            self.root.place(path)
            for path, kind in self._walk(lambda text: None, every=True)
            if not kind and path != own
        )

    def document(self, kind: type[D], place: str, name: str) -> FoundDocument[D]:
        """Read a document of a folder, or say why it cannot be read.

        Raises:
            Outside: The place is not below the root.
        """
        path = self.root.find(place) / name
        try:
            return FoundDocument(place, name, self.remembered(path, kind.KIND, lambda: kind.read(path)))
        except FileNotFoundError:
            return FoundDocument(place, name, None, f"There is no {name} in {place}, or not any more.")
        except (OSError, SamganError, ValueError) as error:
            return FoundDocument(place, name, None, _words(error))

    def documents(self, kind: type[D], *names: str) -> list[FoundDocument[D]]:
        """All documents of these names, also those that cannot be read."""
        found: list[FoundDocument[D]] = []
        for place, name in self.holding(*names):
            found += self._described(functools.partial(self.document, kind, name=name), place)
        return found

    def holding(self, *names: str) -> list[tuple[str, str]]:
        """Places and names of files of these names, of which pages show the content; of `TELLING` only."""
        found = []
        for path, kind in self._walk(lambda text: None, every=True):
            if kind != "model":
                with contextlib.suppress(OSError, Outside):  # deleted meanwhile
                    there = self._list(path)[0]
                    found += [(self.root.place(path), name) for name in names if name in there]
        return found

    def models(self) -> list[tuple[Path, str]]:
        """Runs, as kind "run", and files that may be exported models, as kind "model"."""
        return [(path, kind) for path, kind in self._walk(lambda text: None) if kind != "set"]

    def _described(
        self, describe: Callable[[str], T], place: str, note: Callable[[str], object] = lambda text: None
    ) -> Iterator[T]:
        """What is said of a folder that was found; only a note if a link has taken its place since."""
        try:
            yield describe(place)
        except Outside as error:
            note(f"Not shown: {error}.")

    def _walk(self, note: Callable[[str], object], every: bool = False) -> Iterator[tuple[Path, str]]:
        """Folders that are sets or runs, and files of weights; or every folder. Nothing in them is looked into.

        Level by level, so that a large folder hides nothing beside it: one with more folders than may still be looked
        into has to wait for all others. Links and hidden folders are not followed.

        Raises:
            SamganError: The root itself cannot be read.
        """
        self._check_root()
        waiting, large = deque([(self.root.path, 0)]), deque[tuple[Path, int]]()
        seen, passed = 0, _Passed()
        while (waiting or large) and seen < FOLDERS:
            folder, depth = (waiting or large).popleft()
            seen += 1
            try:
                names, inside, more, whole = self._list(folder)
            except (OSError, SamganError) as error:
                if not isinstance(error, FileNotFoundError):  # deleted meanwhile
                    passed.unread.append(self.root.place(folder))
                continue
            yield from ((folder / name, "model") for name in sorted(names) if name.endswith(MODEL_SUFFIX))
            if "config.json" in names and ("environment.json" in names or "checkpoints" in inside):
                yield folder, "run"
            elif "dataset.json" in names:
                yield folder, "set"
            else:
                if every:
                    yield folder, ""
                passed.links += more
                passed.large += [] if whole else [self.root.place(folder)]
                if depth == DEPTH:
                    passed.deep += len(inside)
                elif seen + len(waiting) + len(inside) <= FOLDERS:
                    waiting += [(folder / name, depth + 1) for name in inside]
                else:
                    large += [(folder / name, depth + 1) for name in inside[: FOLDERS - len(large)]]
        if waiting or large:
            note(f"More than {FOLDERS:,} folders are here, and not all were looked into: name a smaller one.")
        for sentence in passed.sentences():
            note(sentence)

    def _check_root(self) -> None:
        try:
            self._list(self.root.path)
        except (OSError, SamganError) as error:
            why = getattr(error, "strerror", None) or one_line(error)
            raise SamganError(f"The folder of this studio, {self.root.path}, cannot be read: {why}") from None

    def _list(self, folder: Path) -> tuple[frozenset[str], tuple[str, ...], int, bool]:
        """The telling files of a folder, its sub-folders, the number of links to folders, and whether these are all.

        Raises:
            OSError: It was deleted meanwhile, or is not ours to read.
            Outside: A link has taken its place.
        """

        def read() -> tuple[frozenset[str], tuple[str, ...], int, bool]:
            files, folders, links = set(), [], 0
            with os.scandir(folder) as entries:
                for entry in itertools.islice(entries, ENTRIES):
                    if entry.name in TELLING:
                        files.add(entry.name)
                    elif entry.name.startswith(".") or is_system_name(entry.name):
                        continue
                    elif entry.name.endswith(MODEL_SUFFIX) and entry.is_file(follow_symlinks=False):
                        files.add(entry.name)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_symlink() and entry.is_dir():
                        links += 1
                whole = next(entries, None) is None
            return frozenset(files), tuple(sorted(folders)), links, whole

        return self.remembered(folder, "folders", read)

    def describe_set(self, place: str) -> FoundSet:
        """Describe a prepared set by its dataset.json.

        Raises:
            Outside: The place is not below the root.
        """
        folder = self.root.find(place)
        path = folder / "dataset.json"
        try:
            return FoundSet(place, self.remembered(path, "set", lambda: SetInfo.read(folder)))
        except FileNotFoundError:
            return FoundSet(place, problem="There is no prepared set here (no dataset.json).")
        except (OSError, SamganError, ValueError) as error:
            return FoundSet(place, problem=_words(error))

    def describe_run(self, place: str) -> FoundRun:
        """Describe a run by its small files and the end of its log.

        Raises:
            Outside: The place is not below the root.
        """
        run = Run(self.root.find(place))
        holder = find_holder(run.path / ".lock")
        problems: list[str] = []

        def read(name: str, what: str, reader: Callable[[], T]) -> T | None:
            try:
                return self.remembered(run.path / name, what, reader)
            except FileNotFoundError:
                return None  # not yet, or of an old run
            except (OSError, SamganError, ValueError) as error:
                problems.append(_words(error))
                return None

        config = read("config.json", "config", lambda: run.config)
        state: State = "stopped" if config else "damaged" if problems else "absent"
        environment = read("environment.json", "environment", lambda: run.environment)
        line = read("stats.jsonl", "line", lambda: run.last_line() or {}) or {}
        changed = read("stats.jsonl", "changed", lambda: (run.path / "stats.jsonl").stat().st_mtime) or 0.0
        saved = read("checkpoints", "saved", run.last_step) or 0
        if holder is not None:
            state = "running"
        elif config and saved >= config.training.total_steps:
            state = "finished"
        pid = holder.pid if holder else None
        # a process that continues a run may have been given others than the first
        command = processes.command_of(pid) if pid else ()
        minutes = _minutes(command or (environment.command if environment else ()))
        if holder is None and minutes is not None and 60 * minutes <= float(line.get("wall_seconds", 0.0)):
            minutes = None  # they are over
        return FoundRun(place, state, " ".join(problems), config, environment, pid, minutes, line, saved, changed)


TRAINS = ("train", "demo", "balance", "table2")
"""Commands that train."""


def _minutes(command: Sequence[str]) -> float | None:
    """The --minutes of a command that trains one model: those of `samgan balance` are of several together."""
    # The first of these words is the command; after it, a folder may have such a name.
    if next((word for word in command if word in TRAINS), "") not in ("train", "demo"):
        return None
    for place, word in enumerate(command):
        name, _, value = word.partition("=")
        if name == "--minutes":
            try:
                minutes = float(value or command[place + 1])
            except (IndexError, ValueError):
                return None
            return minutes if 0 < minutes < math.inf else None
    return None


def _counted(number: int, one: str, several: str) -> str:
    """A number and what it counts."""
    return f"{number:,} {one if number == 1 else several}"


def _named(places: list[str]) -> str:
    """Some of several places, in words."""
    more = len(places) - NAMED
    names = ("the folder of this studio" if place == "." else shown(place) for place in sorted(places)[:NAMED])
    return ", ".join(names) + (f", and {more:,} more" if more > 0 else "")


def _words(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error) if isinstance(error, SamganError) else one_line(error)
