"""What Windows and macOS need: modules of POSIX are never required, locks work without flock, text has an encoding."""

import ast
import errno
import multiprocessing
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import samgan
from samgan import locks
from samgan.errors import SamganError
from samgan.files import atomic_folder, atomic_write, locked

PACKAGE = Path(samgan.__file__).parent
POSIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")
# Names that Windows lacks. hasattr, getattr or an except clause may stand in for those that code cannot do without.
POSIX_NAMES = {
    "os": {"fork", "forkpty", "getuid", "geteuid", "getgid", "getpgid", "setsid", "killpg", "mkfifo", "uname", "nice"}
    | {"O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "fchmod", "fchown", "chown", "statvfs", "wait", "sched_getaffinity"},
    "signal": {"SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "alarm", "setitimer", "pause"},
}

EVERYTHING = """
import importlib, os, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"samgan(\\.|$)")
for name in sys.argv[3].split(","):
    sys.modules[name] = None  # importing it fails
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "sched_getaffinity", "fork", "getuid", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
from importlib.util import find_spec
from pathlib import Path
has_studio = find_spec("starlette") and find_spec("uvicorn")
for path in sorted(Path(sys.argv[1]).rglob("*.py")):
    module = ".".join(("samgan", *path.relative_to(sys.argv[1]).with_suffix("").parts)).removesuffix(".__init__")
    if not module.endswith("__main__") and (has_studio or ".studio" not in module):
        importlib.import_module(module)
from samgan.data import PreparedSet, prepare
from samgan.data.phantom import write_phantoms
from samgan.files import atomic_folder, atomic_write, locked, write_json
out = Path(sys.argv[2])
with locked(out, "busy"), atomic_folder(out / "folder") as folder:
    write_json(folder / "a.json", {"a": "ü"})
    with atomic_write(folder / "b") as file:
        file.write(b"b")
write_phantoms(out / "xrays", 8, seed=0)
for fit in ("crop", "pad"):  # the second replaces the set that the first wrote
    prepare(out / "xrays", out / "set", resolution=32, fit=fit, workers=2, replace=True)
print(len(PreparedSet.open(out / "set").manifest))
"""


def test_everything_is_imported_and_a_set_is_prepared_without_modules_of_posix(tmp_path):
    words = [PACKAGE, tmp_path, ",".join(POSIX_ONLY)]
    result = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", EVERYTHING, *words], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > 0
    assert sorted(os.listdir(tmp_path)) == ["folder", "set", "xrays"]
    assert not [path for path in tmp_path.rglob(".*")]


def prepare_here(folder, answers):
    """What a process that was spawned does: it shares nothing with its parent but files."""
    from samgan.data import prepare

    with locked(folder, "busy"):
        answers.put(len(prepare(folder / "xrays", folder / "set", resolution=32, workers=1).manifest))


def test_a_spawned_process_prepares_a_set(tmp_path):
    from samgan.data.phantom import write_phantoms

    write_phantoms(tmp_path / "xrays", 6, seed=0)
    context = multiprocessing.get_context("spawn")  # the only way of Windows, and the usual one of macOS
    answers = context.SimpleQueue()
    process = context.Process(target=prepare_here, args=(tmp_path, answers))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert answers.get() > 0


def unguarded(source):
    """Names of POSIX in code, without those in an `if hasattr(...)`; /proc and /sys too."""
    tree = ast.parse(source)
    guarded = [node for node in ast.walk(tree) if isinstance(node, ast.IfExp | ast.If)]
    guarded = [node for node in guarded if "hasattr" in ast.unparse(node.test)]
    safe = {id(inside) for node in guarded for inside in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and id(node) not in safe:
            if node.attr in POSIX_NAMES.get(node.value.id, ()):
                yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("/proc/", "/sys/", "/tmp", "/dev/")):
            yield node.value


def test_names_of_posix_are_used_only_where_they_exist():
    found = {(path.name, name) for path in PACKAGE.rglob("*.py") for name in unguarded(path.read_text("utf-8"))}
    # Elsewhere the name of the processor comes from platform, what memory is free and what a process was told is not
    # known, and who holds a lock is found by trying it.
    assert found == {
        ("folder.py", "/proc/cpuinfo"),
        ("room.py", "/proc/meminfo"),
        ("room.py", "/proc/self/statm"),
        ("room.py", "/sys/fs/cgroup"),
        ("processes.py", "/proc/"),
    }


def test_the_check_of_names_finds_them():
    source = "import os\nos.fork()\nx = os.nice(1) if hasattr(os, 'nice') else open('/proc/stat')"
    assert sorted(unguarded(source)) == ["/proc/stat", "os.fork"]


@pytest.fixture
def windows(monkeypatch):
    """Locks as on Windows: no flock, and a byte that is locked through its own descriptor only."""
    fcntl = pytest.importorskip("fcntl", reason="here the real thing is tested by tests/test_files.py")

    def locking(descriptor, mode, size):
        assert (size, os.lseek(descriptor, 0, os.SEEK_CUR)) == (1, locks.BYTE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN if mode == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", types.SimpleNamespace(locking=locking, LK_UNLCK=0, LK_NBLCK=2))
    opened = os.open

    def open_no_folder(path, *rest, **named):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "open", open_no_folder)


def test_locks_of_windows_keep_others_out(tmp_path, windows):
    with locked(tmp_path, "busy"):
        with pytest.raises(SamganError, match="busy"), locked(tmp_path, "busy"):
            pytest.fail("entered")
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []
    with locked(tmp_path, "busy"):
        pass


def test_a_lock_file_that_somebody_has_opened_stays_on_windows(tmp_path, windows, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    for _ in range(2):
        with locked(tmp_path, "busy"):
            pass
    assert os.listdir(tmp_path) == [".lock"]


def test_files_are_written_whole_on_windows_and_those_of_killed_processes_removed(tmp_path, windows):
    (tmp_path / ".name.1.tmp").write_bytes(b"left behind")
    (tmp_path / ".name.2.tmp").touch()
    held = os.open(tmp_path / ".name.2.tmp", os.O_RDWR)
    assert locks.lock(held)
    with atomic_write(tmp_path / "name") as file:
        file.write(b"new")
    assert (tmp_path / "name").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == [".name.2.tmp", "name"]  # its process is at work
    os.close(held)
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "file").touch()
    assert os.listdir(tmp_path / "folder") == ["file"]


def test_without_any_locks_everything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", None)
    (tmp_path / ".name.1.tmp").touch()
    with locked(tmp_path, "busy"), locked(tmp_path, "busy"), atomic_write(tmp_path / "name") as file:
        file.write(b"new")
    assert sorted(os.listdir(tmp_path)) == [".name.1.tmp", "name"]
