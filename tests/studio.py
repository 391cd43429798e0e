"""What the tests of the studio share: a root with a set and runs, and a client that has been let in."""

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from samgan.files import write_json
from samgan.grids import SYNTHETIC, image_grid, write_png
from samgan.studies.balance_documents import BalanceDocument, TrainingDocument
from samgan.studies.table2_document import JudgedClaim, Table
from samgan.trust.card_form import CardForm, OpenItem
from samgan.trust.documents import PairImages, ScreeningDocument

HOST = "127.0.0.1:8017"
TOKEN = "a-token-of-the-tests"
PROCESSOR = "a processor of the tests"
"""That runs of `make_run` were trained on."""
ORIGIN = {"origin": f"http://{HOST}"}


def make_client(root, *, read_only=False, open_to_others=False, enter=True, worker=None, show_bugs=True):
    """A client of a studio, with the cookie if it enters. A bug of a page fails the test if bugs are to be shown."""
    from starlette.testclient import TestClient

    from samgan.studio.app import make_app
    from samgan.studio.places import Root

    app = make_app(
        Root(root), hosts=[HOST, "localhost:8017"], token=TOKEN, read_only=read_only, open_to_others=open_to_others,
        worker=worker,
    )  # fmt: skip
    client = TestClient(
        app, base_url=f"http://{HOST}", follow_redirects=False, raise_server_exceptions=show_bugs
    )  # fmt: skip
    if enter:
        assert client.get("/", params={"key": TOKEN}).status_code == 200
    return client


def make_run(folder, config, *, lines=40, grids=2, checkpoint=None, sha256=""):
    """A run folder as training leaves it, without its weights."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "grids").mkdir()
    environment = {"schema": 1, "samgan": "0", "data": {"name": "set", "sha256": sha256}}
    write_json(folder / "environment.json", environment | {"device": "cpu", "processor": PROCESSOR})
    write_json(folder / "config.json", config.to_dict())
    with open(folder / "stats.jsonl", "w", encoding="utf-8") as log:
        for step in range(1, lines + 1):
            log.write(json.dumps(line(step)) + "\n")
    for number in range(grids):
        picture(folder / "grids" / f"kimg-{number:010.3f}.png", 40 * number)
    picture(folder / "grids" / "real.png", 200)
    if checkpoint is not None:
        (folder / "checkpoints" / f"step-{checkpoint:08d}.pt").write_bytes(b"no weights")
    return folder


def line(step, **more):
    known = {"kind": "train", "step": step, "images_seen": 4 * step, "wall_seconds": 0.5 * step}
    known |= {"images_per_second": 8.0, "loss_discriminator": 0.5, "loss_generator": 1.0 + step % 7}
    return known | {"gradient_generator": 1.0, "sign_real": 0.1, "gamma": {}} | more


def make_worker():
    """A worker whose process is this one: quick, but every task and answer is a line of JSON, as between two."""
    import msgspec

    from samgan.studio.maker import Maker, answer
    from samgan.studio.tasks import Answer
    from samgan.studio.worker import Worker

    maker = Maker()

    class Inside(Worker):
        asked = 0

        def _ask(self, task):
            self.asked += 1
            done, files = answer(maker, msgspec.json.encode(task))
            return msgspec.json.decode(msgspec.json.encode(done), type=Answer), files

    return Inside()


def train(folder, config, *, seed=0, step=3, sha256=""):
    """A run with weights that were never trained."""
    import torch

    from samgan.networks import Generator
    from samgan.runs import Run, TrainedOn, describe_environment, save_checkpoint

    if not folder.exists():
        Run.create(folder, config, describe_environment("cpu", TrainedOn("set", sha256) if sha256 else None))
    torch.manual_seed(seed)
    weights = Generator(config.network).state_dict()
    state = {"config": config.to_dict(), "step": step, "images_seen": 4 * step}
    save_checkpoint(Run(folder).checkpoint_path(step), {**state, "generator": weights, "ema_generator": weights})
    return folder


def picture(path, grey):
    with open(path, "wb") as file:
        write_png(file, np.full((1, 65, 65), grey, np.uint8), {})


HOLD = """
import pathlib, signal, sys, time
from samgan.files import locked
def leave(number, frame):
    pathlib.Path(sys.argv[1], "stopped").write_text(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
with locked(pathlib.Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held(folder, *words):
    """Another process that holds the lock of a run, and notes that it was asked to stop; `words` end its command."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


BALANCE = BalanceDocument.read(Path(__file__).parents[1] / "results" / "balance" / "125-patients" / "balance.json")
"""A committed study, whose documents stand for those of any command."""
(NAME,) = BALANCE.plan.missing
SCORES, AUDIT = BALANCE.scores[NAME], BALANCE.audit[NAME]
RUN = "runs/first"


def write_audit(folder, data, audit=AUDIT):
    """An audit of a set with pairs that are there: two synthetic ones, and one of held-out images."""
    tiles = np.stack([np.full((1, 32, 32), grey, np.uint8) for grey in (40, 80)])
    file = io.BytesIO()
    write_png(file, image_grid(tiles, 2, gap=0), {"Description": SYNTHETIC})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.png").write_bytes(file.getvalue())
    first = dataclasses.replace(audit.pixels.pairs[0], place=7, training=0, mirrored=True, distance=0.01, farther=0.995)
    second = dataclasses.replace(first, place=3, training=1, mirrored=False, distance=0.02, farther=0.9)
    held_out = dataclasses.replace(second, image="row 2")
    closer = dataclasses.replace(audit.pixels.closer, threshold=0.015)
    measured = {"pairs": (first, second), "held_out_pairs": (held_out,), "closer": closer}
    document = dataclasses.replace(
        audit,
        data=dataclasses.replace(audit.data, sha256=data.sha256),
        pixels=dataclasses.replace(audit.pixels, **measured),
        features=dataclasses.replace(audit.features, **measured),
        images=PairImages("audit.png", 2, (3, 7), hashlib.sha256(file.getvalue()).hexdigest()),
    )
    document.write(folder / "audit.json")
    return document


def write_balance(folder):
    """A study whose stages up to the screening are done."""
    folder.mkdir(parents=True)
    BALANCE.plan.write(folder / "plan.json")
    TrainingDocument(models=BALANCE.training).write(folder / "training.json")
    number = list(BALANCE.plan.classes).index(NAME)
    (folder / "scores" / f"class-{number}").mkdir(parents=True)
    SCORES.write(folder / "scores" / f"class-{number}" / "scores.json")
    ScreeningDocument(classes=BALANCE.screening).write(folder / "screening.json")


def write_documents(root, data):
    """A document of every kind, in a root with the set `data` and the runs RUN and runs/second."""
    for place in (RUN, "runs/second"):
        SCORES.write(root / place / "scores.json")
    write_audit(root / RUN, data)
    write_balance(root / "balanced")
    table = Table(
        title="Table 2 of the paper",
        command="samgan table2",
        lines=({"name": "samgan-8", "frechet": 1.5},),
        header=("row", "Frechet"),
        cells=(("samgan-8", "1.500"),),
        claims=(JudgedClaim("attention helps", "undecided at this scale", ("samgan-8 against samgan-1: +0.1",)),),
        notes=("One seed of each.",),
    )
    (root / "sweep" / "rows").mkdir(parents=True)
    table.write(root / "sweep" / "table.json")
    shutil.copy(root / RUN / "audit.png", root / "sweep" / "rows" / "samgan-8-0.png")
    (root / RUN / "MODEL_CARD.md").write_text("# A card, **OPEN**", "utf-8")
    written = hashlib.sha256((root / RUN / "MODEL_CARD.md").read_bytes()).hexdigest()
    items = (OpenItem("licence", "General", "licence of the model"), OpenItem("CLAIM: funding", "CLAIM", "44: funding"))
    CardForm(card="MODEL_CARD.md", card_sha256=written, items=items, unused={}).write(root / RUN / "card.json")
