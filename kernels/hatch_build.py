"""Compile kernels.c for each set of instructions when a wheel is built."""

import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

X86 = {
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "avx2": ("-march=x86-64-v3",),
    "default": ("-march=x86-64",),
}
OTHERS = {"default": ()}
# Rounding of products and sums may differ, exceptions of arithmetic are not used; NaN and infinity are kept.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")


class KernelsHook(BuildHookInterface):
    """Adds one library for each set of instructions, and the tag of a wheel without Python code of its own."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile with $CC, cc, gcc or clang."""
        compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
        if compiler is None:
            raise RuntimeError("samgan-kernels needs a C compiler (cc, gcc, clang or $CC); samgan works without it")
        source = Path(self.root, "samgan_kernels", "kernels.c")
        self.built = Path(tempfile.mkdtemp())
        machine = platform.machine().lower()
        for name, own in (X86 if machine in ("x86_64", "amd64") else OTHERS).items():
            library = self.built / f"kernels_{name}.so"
            words = [compiler, *FLAGS, *own, "-o", str(library), str(source), "-lm"]
            if subprocess.run([*words, "-fopenmp"], capture_output=True).returncode:
                subprocess.run(words, check=True)  # one thread, for compilers without OpenMP
            build_data["force_include"][str(library)] = f"samgan_kernels/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        shutil.rmtree(self.built)
