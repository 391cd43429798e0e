"""How long pages of the studio take, and what memory: 200 runs, a set of 100,000 images, a log of a million lines.

python benchmarks/bench_studio.py [--images 100000] [--lines 1000000]
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from samgan.config import Config
from samgan.data.documents import COLUMNS, SetInfo
from samgan.files import write_json
from samgan.runs import Run
from samgan.studio.app import make_app
from samgan.studio.places import Root

HOST, TOKEN = "127.0.0.1:8017", "key"
CLASSES = ("NORMAL", "PNEUMONIA")


def make_set(folder: Path, images: int) -> None:
    """A set of black images of 64 px."""
    folder.mkdir()
    np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(images, 1, 64, 64)).flush()
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for i in range(images):
            near = i - 1 if i % 50 == 1 else ""
            split = "holdout" if i % 5 == 0 else "train"
            row = (i, f"folder-{i % 7}/image-{i}.png", f"{i:064x}", 1024, 1024, 8, CLASSES[i % 2], f"p{i // 3}", split)
            table.writerow((*row, near))
    counts = {name: {"train": images * 2 // 5, "holdout": images // 10} for name in CLASSES}
    info = SetInfo(
        source="xrays", images=images, channels=1, resolution=64, classes=CLASSES, counts=counts, split_by="patient",
        fingerprint="", sha256="0" * 64,
    )  # fmt: skip
    write_json(folder / "dataset.json", info.to_dict())


def make_run(folder: Path, lines: int) -> None:
    """A run with a log."""
    run = Run.create(folder, Config())
    known = {"kind": "train", "wall_seconds": 1.0, "images_per_second": 40.0, "logit_real": 0.123456789, "gamma": {}}
    known |= {"loss_discriminator": 0.123456789, "loss_generator": 0.123456789, "gradient_generator": 0.123456789}
    known |= {"gradient_discriminator": 0.123456789, "sign_real": 0.123456789, "penalty": 0.123456789, "augment": 0.0}
    with open(run.path / "stats.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(known | {"step": i, "images_seen": 16 * i}) + "\n" for i in range(1, lines + 1))


def memory() -> int:
    """MiB of this process."""
    return int(Path("/proc/self/status").read_text("utf-8").partition("VmRSS:")[2].split()[0]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_set(root / "set", options.images)
        for number in range(200):
            make_run(root / "runs" / f"run-{number}", 30 if number else options.lines)
        client = TestClient(make_app(Root(root), hosts=[HOST], token=TOKEN), base_url=f"http://{HOST}")
        client.get("/", params={"key": TOKEN})
        print("| page | first, ms of processor (of clock) | again | memory, MiB |\n|---|---|---|---|")
        for path in ("/", "/data?set=set", "/data/sheet.png?set=set", "/train?run=runs/run-0", "/start"):
            cells = []
            for _ in range(2):
                start, used = time.perf_counter(), time.process_time()
                assert client.get(path).status_code == 200
                cells.append(f"{1000 * (time.process_time() - used):.0f} ({1000 * (time.perf_counter() - start):.0f})")
            print(f"| `{path}` | {' | '.join(cells)} | {memory()} |")
        used, pieces, since, more = time.process_time(), 0, {"file": 0, "after": 0}, True
        while more:
            answer = client.get("/train/curves", params={"run": "runs/run-0", **since}).json()
            since, more, pieces = {"file": answer["file"], "after": answer["after"]}, answer["more"], pieces + 1
        used = time.process_time() - used
        print(f"\n{options.lines:,} lines as curves: {pieces} pieces, {used:.1f} s of processor; {memory()} MiB then.")


if __name__ == "__main__":
    main()
