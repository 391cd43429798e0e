"""Memory that is freed stays with the process."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library takes the setting")
def test_freed_memory_is_kept():
    """64 MiB are 16,384 pages of 4 KiB, which the system clears whenever it hands them out."""
    script = """if True:
        import resource, torch
        from samgan.memory import keep_freed_memory
        def use(number):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            # Each a little smaller than the last: aligned memory asks for more than it takes.
            torch.ones((16 << 20) - 4096 * number)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        before = min(map(use, range(3)))
        assert keep_freed_memory()
        print(before, min(map(use, range(3, 9))))
    """
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    before, after = map(int, out.split())
    assert before > 1000 > after
