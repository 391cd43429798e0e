"""Loggers: what TensorBoard, MLflow and W&B have written, read with their own readers; resuming, failing, refusing.

Those of MLflow and W&B are skipped where the package is not installed: pip install -e '.[mlflow,wandb]'.
"""

import argparse
import io
import json
import shutil
import socket
import struct
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import samgan.training.loop
from samgan.commands.train import LOGGER_NAMES, _add_train
from samgan.devices import make_fabric
from samgan.errors import UsageError
from samgan.pictures import SYNTHETIC
from samgan.runs import Run
from samgan.training import LOGGERS, Logger, Options, Scorer, check_loggers, train_loop
from samgan.training.loggers import GRID, MLflow, WandB, _curves

SCORER = Scorer("swd", lambda fake, labels: {"swd": float(fake.mean()), "by_class": {"a/b?": 1.0}})


class Memory:
    """A logger of one's own: everything it was told, in order."""

    def __init__(self):
        self.points, self.images, self.ends = [], [], []

    def scalars(self, images_seen, values):
        self.points += [(name, images_seen, value) for name, value in values.items()]

    def image(self, name, images_seen, pixels, description):
        self.images.append((name, images_seen, pixels, description))

    def close(self, finished):
        self.ends.append(finished)


class Broken(Memory):
    """A logger whose disk is full after so many calls."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def scalars(self, images_seen, values):
        self.calls -= 1
        if self.calls < 0:
            raise OSError(28, "No space left on device")
        super().scalars(images_seen, values)


def written_by_tensorboard(run):
    """(Points {(name, images seen): values}, pictures [(images seen, pixels)], descriptions)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    points = [((name, event.step), event.value) for name in events.Tags()["scalars"] for event in events.Scalars(name)]
    pictures = [(event.step, decode(event.encoded_image_string)) for event in events.Images(GRID)]
    texts = {event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{GRID}/text_summary")}
    return points, pictures, texts


def written_by_mlflow(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient((run.path / "mlruns").resolve().as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("samgan").experiment_id])
    points = [
        ((name, metric.step), metric.value)
        for name in found.data.metrics
        for metric in client.get_metric_history(found.info.run_id, name)
    ]
    pictures, texts = [], set()
    for entry in client.list_artifacts(found.info.run_id, GRID):
        with Image.open(client.download_artifacts(found.info.run_id, entry.path)) as image:
            seen = round(1000 * float(entry.path.rpartition("kimg-")[2].removesuffix(".png")))
            pictures.append((seen, np.asarray(image)))
            texts.add(image.text["Description"])
    return points, pictures, texts, found


def written_by_wandb(run):
    from wandb.proto import wandb_internal_pb2

    points, pictures, texts, ids, steps = [], [], set(), set(), []
    for path in sorted(run.path.glob("wandb/offline-run-*/run-*.wandb")):
        # W&B's own process ends a file a moment after finish() has returned.
        for _ in range(200):
            records = [wandb_internal_pb2.Record.FromString(data) for data in records_of_wandb(path.read_bytes())]
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                break
            time.sleep(0.1)
        for record in records:
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            if record.WhichOneof("record_type") != "history":
                continue
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            steps.append(row["_step"])
            seen = row["images_seen"]
            if f"{GRID}/path" in row:
                with Image.open(path.parent / "files" / row[f"{GRID}/path"]) as image:
                    pictures.append((seen, np.asarray(image)))
                texts.add(row[f"{GRID}/caption"])
            ours = [name for name in row if name[0] != "_" and name != "images_seen" and not name.startswith(GRID)]
            points += [((name, seen), row[name]) for name in ours]
    return points, pictures, texts, ids, steps


def records_of_wandb(data):
    """The records of an offline file: 7 bytes of header, then LevelDB's log format in blocks of 32 KiB."""
    assert data[:4] == b":W&B"
    start, record = 7, b""
    while start + 7 <= len(data):
        left = 32768 - start % 32768
        if left < 7:  # too little for a header: zeros
            start += left
            continue
        _, length, kind = struct.unpack("<IHB", data[start : start + 7])
        record += data[start + 7 : start + 7 + length]
        start += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""


def decode(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def in_stats(run):
    """What the loggers should hold of a run."""
    return {
        (name, line["images_seen"]): pytest.approx(value, rel=1e-6)
        for line in run.stats()
        for name, value in _curves(line).items()
        if name != "images_per_second"
    }


def check(run, points, pictures, texts):
    """Every line of stats.jsonl and every grid is there once, and nothing else."""
    points = [(key, value) for key, value in points if key[0] != "images_per_second"]
    assert set(Counter(key for key, _ in points).values()) == {1}
    assert dict(points) == in_stats(run)
    assert {"loss_generator", "augment", "gamma/generator_16", "swd", "by_class/a_2fb_3f"} <= {
        key[0] for key, _ in points
    }
    grids = {}
    for path in run.path.glob("grids/kimg-*.png"):
        with Image.open(path) as image:
            grids[round(1000 * float(path.stem.removeprefix("kimg-")))] = np.asarray(image)
    assert sorted(seen for seen, _ in pictures) == sorted(grids)
    for seen, pixels in pictures:
        grey = pixels[..., 0] if pixels.ndim == 3 else pixels  # TensorBoard's have three equal channels
        np.testing.assert_array_equal(grey, grids[seen])
    assert texts == {SYNTHETIC}


@pytest.fixture
def fabric():
    return make_fabric("cpu")


@pytest.fixture
def no_network(monkeypatch):
    """Refuse connections of this process to other machines."""
    connect = socket.socket.connect

    def refuse(self, address):
        assert self.family not in (socket.AF_INET, socket.AF_INET6) or address[0] in ("127.0.0.1", "::1"), address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(params=LOGGERS)
def name(request):
    pytest.importorskip(LOGGERS[request.param].package, reason=f"pip install 'samgan[{request.param}]'")
    return request.param


def trained_in_three_parts(run, config, images, fabric, name):
    """Train 8 of 40 images, then lose the steps after a checkpoint to a crash, then train to the end."""
    options = Options(loggers=(name,), scorer=SCORER, resume=True, quiet=True)
    train_loop(config.override({"training.kimg": 0.016}), images, run, fabric, options)
    with pytest.MonkeyPatch.context() as patched:
        step = samgan.training.loop.train_step

        def die(state, *rest, **more):
            if state.step == 6:
                raise RuntimeError("killed")
            return step(state, *rest, **more)

        patched.setattr("samgan.training.loop.train_step", die)
        with pytest.raises(RuntimeError, match="killed"):
            train_loop(config, images, run, fabric, options)
    assert run.last_line()["step"] == 6
    assert run.last_step() == 4
    train_loop(config, images, run, fabric, options)


def test_what_was_written_is_read_by_the_tools_own_readers(
    name, tiny_config, images, tmp_path, fabric, monkeypatch, no_network
):
    """Also for a run that was continued, and repeated steps because it had died after its checkpoint."""
    monkeypatch.setenv("WANDB_MODE", "online")
    run = Run.create(tmp_path / "a run", tiny_config)
    trained_in_three_parts(run, tiny_config, images, fabric, name)
    if name == "tensorboard":
        check(run, *written_by_tensorboard(run))
    elif name == "mlflow":
        *written, found = written_by_mlflow(run, monkeypatch)
        check(run, *written)
        assert found.info.status == "FINISHED"
        assert found.info.run_name == "a run"
        assert found.data.params["network.max_channels"] == "8"
        assert found.data.tags["training.kimg"] == "0.04"
    else:
        *written, ids, steps = written_by_wandb(run)
        check(run, *written)
        assert len(ids) == 1
        assert steps == sorted(set(steps))


def test_nothing_is_written_outside_the_run_folder(name, tiny_config, images, tmp_path, fabric, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    run = Run.create(tmp_path / "run", tiny_config)
    train_loop(tiny_config, images, run, fabric, Options(loggers=(name,), quiet=True))
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert (run.path / LOGGERS[name].folder).is_dir()


def test_a_logger_that_joins_at_a_resume_gets_the_lines_before(
    name, tiny_config, images, tmp_path, fabric, monkeypatch
):
    run = Run.create(tmp_path / "run", tiny_config)
    train_loop(tiny_config.override({"training.kimg": 0.016}), images, run, fabric, Options(quiet=True))
    train_loop(tiny_config, images, run, fabric, Options(resume=True, loggers=(name,), quiet=True))
    read = {"tensorboard": written_by_tensorboard, "wandb": written_by_wandb}
    points = written_by_mlflow(run, monkeypatch)[0] if name == "mlflow" else read[name](run)[0]
    assert [seen for (key, seen), _ in points if key == "loss_generator"] == [8, 16, 24, 32, 40]


def test_a_stopped_run_is_not_called_finished(tiny_config, images, tmp_path, fabric, monkeypatch):
    pytest.importorskip("mlflow")
    run = Run.create(tmp_path / "run", tiny_config)
    monkeypatch.setattr("samgan.training.loop.Snapshots.take", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_loop(tiny_config, images, run, fabric, Options(loggers=("mlflow",), quiet=True))
    assert MLflow(run).client.get_run(MLflow(run).id).info.status == "RUNNING"  # opened again by this line


def test_mlflow_of_a_copied_run_writes_into_the_copy(tiny_config, tmp_path):
    pytest.importorskip("mlflow")
    run = Run.create(tmp_path / "run", tiny_config)
    MLflow(run).close(True)
    shutil.copytree(run.path, tmp_path / "copy #2")
    pixels = np.zeros((3, 4, 5), np.uint8)
    copy = MLflow(Run(tmp_path / "copy #2"))
    copy.image(GRID, 8000, pixels, SYNTHETIC)
    assert [path.name for path in tmp_path.rglob("kimg-*.png")] == ["kimg-000008.000.png"]
    assert list((tmp_path / "copy #2").rglob("kimg-*.png"))
    assert copy.id == MLflow(run).id


def test_wandb_leaves_a_run_of_the_program_alone(tiny_config, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    settings = wandb.Settings(silent=True, console="off")
    own = wandb.init(mode="offline", dir=str(tmp_path), project="mine", settings=settings)
    logger = WandB(Run.create(tmp_path / "run", tiny_config))
    logger.scalars(4, {"a": 1.0})
    logger.close(True)
    assert wandb.run is own
    own.log({"b": 1})
    own.finish()


def test_an_own_logger_is_told_everything_once(tiny_config, images, tmp_path, fabric):
    run, memory = Run.create(tmp_path / "run", tiny_config), Memory()
    assert isinstance(memory, Logger)
    trained_in_three_parts(run, tiny_config, images, fabric, memory)
    points = [((name, seen), value) for name, seen, value in memory.points]
    pictures = [(seen, np.squeeze(pixels)) for _, seen, pixels, _ in memory.images]
    check(run, points, pictures, {text for *_, text in memory.images})
    assert memory.ends == [True, False, True]


def test_no_picture_of_a_patient_is_logged(tiny_config, images, tmp_path, fabric):
    memory, run = Memory(), Run.create(tmp_path / "run", tiny_config)
    train_loop(tiny_config, images, run, fabric, Options(loggers=(memory,), quiet=True))
    with Image.open(run.path / "grids" / "real.png") as real:
        shown = np.asarray(real)
    for name, _, pixels, text in memory.images:
        assert (name, text) == (GRID, SYNTHETIC)
        assert pixels[0, :32, :32].tobytes() not in {image.tobytes() for image in images}
        assert pixels[0].shape != shown.shape or (pixels[0] != shown).any()


@pytest.mark.parametrize("calls", [0, 2])
def test_a_logger_that_fails_is_left_out_with_one_warning(tiny_config, images, tmp_path, fabric, calls):
    run, broken, memory = Run.create(tmp_path / "run", tiny_config), Broken(calls), Memory()
    with pytest.warns(UserWarning, match="Broken failed, and training goes on without it: .*No space left") as caught:
        train_loop(tiny_config, images, run, fabric, Options(loggers=(broken, memory), quiet=True))
    assert len(caught) == 1
    assert run.last_step() == 10
    assert len(memory.images) > len(broken.images)
    assert (memory.ends, broken.ends) == ([True], [])


def test_a_logger_that_cannot_start_is_left_out(name, tiny_config, images, tmp_path, fabric):
    run = Run.create(tmp_path / "run", tiny_config)
    (run.path / LOGGERS[name].folder).write_text("a file where its folder should be")
    with pytest.warns(UserWarning, match="training goes on without it"):
        train_loop(tiny_config, images, run, fabric, Options(loggers=(name,), quiet=True))
    assert run.last_step() == 10


def test_loggers_are_checked_before_training(monkeypatch, tmp_path):
    memory = Memory()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: argparse.Namespace(origin="a file"))
    assert check_loggers(["mlflow", memory, "mlflow"]) == ("mlflow", memory)
    assert check_loggers("wandb") == ("wandb",)
    with pytest.raises(UsageError, match="--log wand: expected one of tensorboard, mlflow, wandb"):
        check_loggers("wand")
    with pytest.raises(UsageError, match="expected a name, or an object with scalars, image and close"):
        check_loggers([print])


@pytest.mark.parametrize("name", LOGGERS)
@pytest.mark.parametrize("found", [None, argparse.Namespace(origin=None)])
def test_a_package_that_is_not_installed_is_named(monkeypatch, name, found):
    """A folder `wandb` where the program was started looks like a package, and is none."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(UsageError, match=rf"is not installed: pip install 'samgan\[{name}\]'"):
        check_loggers([name])


def test_the_command_line_knows_all_loggers(capsys):
    assert tuple(LOGGERS) == LOGGER_NAMES
    parser = argparse.ArgumentParser()
    _add_train(parser)
    assert parser.parse_args(["data", "--log", *LOGGERS]).loggers == list(LOGGERS)
