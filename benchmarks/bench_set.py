"""Measure what a large prepared set costs: memory and seconds to open it, to draw batches from it and to check it.

    python benchmarks/bench_set.py [--images 100000] [--side 512] [--batches 200] [--json] [--folder FOLDER]

The set is a sparse file, so it takes no disk; its images are black, which changes nothing here. Each line is a process
of its own: what it has at most beyond what Python and the libraries take. "plainly" draws the same batches by indexing
the memory map, for comparison: every page that is read then counts as the process's memory, until the system needs it.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lines import Line, add_json_option, peak_gb, show

from samgan.config import Config
from samgan.data import PreparedSet, prepare
from samgan.data.documents import ManifestRow, SetInfo
from samgan.data.write import finish_set, write_images
from samgan.training import Sampler

BATCH = 32


def make(folder: Path, count: int, side: int) -> Path:
    """A prepared set of black images, in a sparse file, of a fifth as many patients; one in five is held out."""
    out = folder / "set"
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), np.uint8)
    np.savez(folder / "few.npz", train_images=images, train_labels=np.arange(4) % 2)
    info = prepare(folder / "few.npz", out, resolution=32, workers=1).info
    with open(out / "images.npy", "wb") as file:
        write_images(file, (count, 1, side, side), ())
        file.truncate(file.tell() + count * side**2)
    names, rows = info.classes, []
    for index in range(count):
        name, patient = names[index % len(names)], f"patient{index // 5:06d}"
        split = "train" if index // 5 % 5 else "holdout"
        sha256 = hashlib.sha256(str(index).encode()).hexdigest()
        source = f"{name}/{patient}/{index:06d}.png"
        rows.append(ManifestRow(index, source, sha256, 2 * side, 2 * side, 8, name, patient, split))
    info = info.to_dict() | {"images": count, "resolution": side}
    info["counts"] = {
        name: {
            split: sum(row.class_name == name and row.split == split for row in rows) for split in ("train", "holdout")
        }
        for name in names
    }
    (out / "dataset.json").write_text(json.dumps(info))

    finish_set(out, rows, SetInfo.read(out))
    return out


def opened(path: Path, batches: int) -> None:
    PreparedSet.open(path)


def chosen(path: Path, batches: int) -> None:
    data = PreparedSet.open(path)
    data.groups(data.indices("train"))
    data.labels(data.classes)


def drawn(path: Path, batches: int) -> None:
    _draw(path, batches, plainly=False)


def drawn_plainly(path: Path, batches: int) -> None:
    _draw(path, batches, plainly=True)


def _draw(path: Path, batches: int, *, plainly: bool) -> None:
    data = PreparedSet.open(path)
    images = np.asarray(data.images) if plainly else data.images  # no np.memmap: what was read is not given back
    network = {"resolution": data.resolution, "max_channels": 128}
    config = Config().override({"network": network, "training.batch_size": BATCH})
    sampler = Sampler(images, config, torch.device("cpu"), data.indices("train"))
    for step in range(batches):
        sampler(step)


def prepared(path: Path, batches: int) -> None:
    """Prepare some images of the same size from small ones."""
    side, count = PreparedSet.open(path).resolution, 10 * batches
    images = np.random.default_rng(0).integers(0, 256, (count, 24, 24), np.uint8)
    np.savez(path / "small.npz", train_images=images, train_labels=np.arange(count) % 2)
    prepare(path / "small.npz", path / "small", resolution=side, workers=1)


def verified(path: Path, batches: int) -> None:
    PreparedSet.open(path).verify()


WORK: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "opened": ("opened", opened),
    "chosen": ("split, patients and classes looked up", chosen),
    "drawn": ("batches drawn", drawn),
    "plainly": ("batches drawn plainly", drawn_plainly),
    "prepared": ("ten images a batch prepared", prepared),
    "verified": ("checked before a training (SHA-256)", verified),
}


def measure(name: str, path: Path, batches: int) -> dict[str, float]:
    """Do one thing in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, "--folder", str(path), "--batches", str(batches)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.splitlines()[-1])


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where to make the set; default: a temporary folder")
    parser.add_argument("--measure", choices=list(WORK), help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.measure:
        before, start = peak_gb(), time.perf_counter()
        WORK[options.measure][1](options.folder, options.batches)
        print(json.dumps({"gb": peak_gb() - before, "seconds": time.perf_counter() - start}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = make(Path(folder), options.images, options.side)
        size = (path / "images.npy").stat()
        lines = [
            Line("size of images.npy", size.st_size / 1e9, unit=" GB"),
            Line("its disk", size.st_blocks * 512 / 1e9, unit=" GB"),
        ]
        for name, (what, _) in WORK.items():
            told = measure(name, path, options.batches)
            read = f"{options.batches} of {BATCH}, " if "drawn" in what else ""
            goal = None if name == "plainly" else 0.5
            lines.append(Line(what, told["gb"], goal, " GB", note=f"{read}{told['seconds']:.1f} s"))
    show(lines, options.json)


if __name__ == "__main__":
    main()
