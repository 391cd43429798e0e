"""What the tests of the studio share: a root with a set and runs, and a client that has been let in."""

import contextlib
import json
import subprocess
import sys

import numpy as np

from samgan.files import write_json
from samgan.grids import write_png

HOST = "127.0.0.1:8017"
TOKEN = "a-token-of-the-tests"
ORIGIN = {"origin": f"http://{HOST}"}


def make_client(root, *, read_only=False, enter=True, worker=None):
    """A client of a studio, with the cookie if it enters."""
    from starlette.testclient import TestClient

    from samgan.studio.app import make_app
    from samgan.studio.places import Root

    app = make_app(Root(root), hosts=[HOST, "localhost:8017"], token=TOKEN, read_only=read_only, worker=worker)
    client = TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)
    if enter:
        assert client.get("/", params={"key": TOKEN}).status_code == 200
    return client


def make_run(folder, config, *, lines=40, grids=2, checkpoint=None, sha256=""):
    """A run folder as training leaves it, without its weights."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "grids").mkdir()
    write_json(folder / "environment.json", {"schema": 1, "samgan": "0", "data": {"name": "set", "sha256": sha256}})
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
def held(folder):
    """Another process that holds the lock of a run, and notes that it was asked to stop."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
