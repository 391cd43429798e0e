"""How long pages of the studio take, and what memory: 200 runs, a set of 100,000 images, a log of a million lines.

Every run has a checkpoint without weights, scores, an audit that is signed off, and a card with open
places; the first ones have readers. One study of `samgan balance` belongs to every ten runs.

python benchmarks/bench_studio.py [--images 100000] [--lines 1000000] [--runs 200]
"""

import argparse
import csv
import dataclasses
import hashlib
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from samgan.config import Config
from samgan.data.documents import COLUMNS, SetInfo
from samgan.files import write_json
from samgan.runs import Run
from samgan.runs.documents import TrainedOn
from samgan.runs.readers import ReaderTest, Shown
from samgan.studies.balance_documents import BalanceDocument, TrainingDocument
from samgan.studio.app import make_app
from samgan.studio.places import Root
from samgan.trust.card_form import CardForm, OpenItem
from samgan.trust.documents import ScreeningDocument
from samgan.trust.sign_off import SignOff, add_sign_off, hash_audit

HOST, TOKEN = "127.0.0.1:8017", "key"
CLASSES = ("NORMAL", "PNEUMONIA")
SET_SHA256 = "0" * 64
STUDY = BalanceDocument.read(Path(__file__).parents[1] / "results" / "balance" / "125-patients" / "balance.json")
"""A committed study, whose documents stand for those of every run."""
PAGES = (
    *(
        "/",
        "/data?set=set",
        "/data/sheet.png?set=set",
        "/data/pairs?set=set&pairs=9",
        "/train?run=runs/run-0",
        "/start",
    ),
    *("/time?run=runs/run-0", "/generate", "/compare", "/compare?model=runs/run-1", "/scores", "/scores?at=runs/run-1"),
    "/scores/compare?" + "&".join(f"of=runs/run-{number}/scores.json" for number in range(4)),
    *("/audit", "/audit?at=runs/run-1", "/balance", "/balance?at=studies/study-0", "/table2"),
    *("/card", "/card?at=runs/run-1"),
)
"""Lists of all runs, and pages of one."""


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
        fingerprint="", sha256=SET_SHA256,
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


def write_documents(run: Path, number: int) -> None:
    """What commands leave in a run; the documents are those of a committed study, each made a little different."""
    write_json(run / "environment.json", {"schema": 1, "samgan": "0", "data": {"name": "set", "sha256": SET_SHA256}})
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / f"step-{number + 1:08d}.pt").write_bytes(b"no weights")
    (name,) = STUDY.plan.missing
    dataclasses.replace(STUDY.scores[name], count=1000 + number).write(run / "scores.json")
    audit = STUDY.audit[name]
    dataclasses.replace(audit, data=dataclasses.replace(audit.data, sha256=SET_SHA256)).write(run / "audit.json")
    signed = SignOff("Ada", "2026-11-29", "accepted", f"Run {number}.", hash_audit(run / "audit.json"))
    add_sign_off(run, signed)
    (run / "MODEL_CARD.md").write_text(f"# Run {number}", "utf-8")
    items = tuple(OpenItem(f"place {place}", "General", f"What is open, {place}") for place in range(12))
    sha256 = hashlib.sha256((run / "MODEL_CARD.md").read_bytes()).hexdigest()
    CardForm(card="MODEL_CARD.md", card_sha256=sha256, items=items, unused={}).write(run / "card.json")
    for reader in range(5 if number < 10 else 0):
        write_reader(run, reader)


def write_reader(run: Path, reader: int) -> None:
    """A blinded test that was finished."""
    shown = tuple(Shown(n % 2 == 0, n, CLASSES[n % 4 // 2]) for n in range(40))
    test = ReaderTest(
        reader=f"Reader {reader}", started="2026-11-29T10:15:00+00:00", model_sha256="1" * 64, preset="samgan-8",
        images_seen=1000, data=TrainedOn("set", SET_SHA256), split="holdout", seed=reader, pictures=shown,
    )  # fmt: skip
    while test.result is None:
        test = test.answer(said_real=test.answered % 3 == 0, seconds=2.0)
    (run / "reader-study").mkdir(exist_ok=True)
    test.write(run / "reader-study" / f"reader{reader}-20261129-101500.json")


def write_study(folder: Path) -> None:
    """A study of `samgan balance` whose stages up to the screening are done."""
    (folder / "scores" / "class-0").mkdir(parents=True)
    STUDY.plan.write(folder / "plan.json")
    TrainingDocument(models=STUDY.training).write(folder / "training.json")
    next(iter(STUDY.scores.values())).write(folder / "scores" / "class-0" / "scores.json")
    ScreeningDocument(classes=STUDY.screening).write(folder / "screening.json")


def make_root(root: Path, images: int, lines: int, runs: int) -> None:
    """A root with a set, runs and studies."""
    make_set(root / "set", images)
    for number in range(runs):
        make_run(root / "runs" / f"run-{number}", 30 if number else lines)
        write_documents(root / "runs" / f"run-{number}", number)
        if number % 10 == 0:
            write_study(root / "studies" / f"study-{number}")


def memory() -> int:
    """MiB of this process."""
    return int(Path("/proc/self/status").read_text("utf-8").partition("VmRSS:")[2].split()[0]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = (root, options.images, options.lines, options.runs)
        maker = multiprocessing.get_context("spawn").Process(target=make_root, args=made)  # its memory is not ours
        maker.start()
        maker.join()
        assert maker.exitcode == 0
        client = TestClient(make_app(Root(root), hosts=[HOST], token=TOKEN), base_url=f"http://{HOST}")
        client.get("/", params={"key": TOKEN})
        print("| page | first, ms of processor (of clock) | again | memory, MiB |\n|---|---|---|---|")
        for path in PAGES:
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
