"""Two processes compute what one does: values, gradients, gradients of gradients, whole training steps, stopping."""

import contextlib
import json

import numpy as np
import pytest
import torch

from samgan import api, distributed
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError

# One process imports torch, then forks the ranks; float64 makes the comparison sharp (Adam with beta1 = 0 turns the
# rounding error of a gradient near 0 into a full step).
DRIVER = """
import dataclasses, errno, json, os, signal, sys, time
from pathlib import Path
import numpy as np
import torch
import torch._dynamo  # which every fork would import anew: optimizers do, and it takes seconds
import torch.distributed
import samgan.training.loop
import samgan.training.recipe
import samgan.training.snapshots
import samgan.training.state
from samgan.config import Config
from samgan.distributed import gather, on_first_process, rank
from samgan.errors import SamganError
from samgan.runs import Run
from samgan.training import Interrupted, Options, Sampler, Scorer, TrainingState, train_loop, train_step
from samgan.devices import make_fabric

torch.set_num_threads(1)
folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
labels = np.arange(len(images)) % 3
configs = {name: Config.from_dict(tree) for name, tree in json.loads((folder / "configs.json").read_text()).items()}
CPU = torch.device("cpu")

samgan.training.snapshots.SCORED_IMAGES = 16
samgan.training.state.AdaptiveProbability.EVERY = 2  # so that few steps see a share of augmentation

def steps(config, count=3):
    state = TrainingState(config, CPU)
    state.double()
    sampler = Sampler(images, config, CPU, labels=labels)
    logged = []
    for step in range(count):
        batch = sampler(step)
        batch = dataclasses.replace(
            batch, real=batch.real.double(), latents=batch.latents.double(), mix=batch.mix.double()
        )
        line = train_step(state, batch)
        weights = [p.detach().flatten() for part in (state.generator, state.discriminator, state.ema_generator)
                   for p in (*part.parameters(), *part.buffers())]
        shares = torch.tensor(state.augment.values)
        logged.append({"weights": torch.cat(weights), "augment": shares, **line})
    return logged

def gradients():
    # f = sum over images i of a_i * (sum_j x_j^2)^2 needs the whole batch; its gradient's square needs it twice.
    own = torch.arange(1.0, 5.0, dtype=torch.float64).view(-1, 1)
    if torch.distributed.is_initialized():
        own = own[2 * rank() : 2 * rank() + 2]
    own.requires_grad_()
    x = gather(own)
    loss = (x.square().sum() ** 2 + x.prod())
    (gradient,) = torch.autograd.grad(loss, own, create_graph=True)
    (second,) = torch.autograd.grad((gather(gradient) ** 2).sum(), own, create_graph=True)
    (third,) = torch.autograd.grad(gather(second).sum(), own)
    return {"x": x.detach(), "first": gradient.detach(), "second": second.detach(), "third": third}

def interrupted():
    # No line of the log is due for long.
    lengths = {"kimg": 8.0, "log_every_kimg": 4.0, "snapshot_every_kimg": 4.0}
    config = configs["rahinge"].override({"training": lengths})
    path = folder / f"interrupted-{samgan.training.loop.ASK_SECONDS}"
    if rank() == 0:
        Run.create(path, config)
    torch.distributed.barrier()
    if rank() == 1:  # only one of the processes gets the signal
        original = samgan.training.loop.train_step
        def step(state, *arguments):
            if state.step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(state, *arguments)
        samgan.training.loop.train_step = step
    try:
        train_loop(config, images, Run.open(path), make_fabric("cpu"))
    except Interrupted as error:
        torch.distributed.barrier()  # only the first process writes
        return {"signal": error.signal_number, "files": sorted(p.name for p in (path / "checkpoints").iterdir())}

def interrupted_soon():
    samgan.training.loop.ASK_SECONDS = 0.0
    return interrupted()

def interrupted_later():
    samgan.training.loop.ASK_SECONDS = 0.3
    return interrupted()

def scored():
    config, path, calls = configs["rahinge"], folder / "scored", []
    if rank() == 0:
        Run.create(path, config)
    torch.distributed.barrier()
    samgan.training.snapshots.spare_core = lambda device: True
    scorer = Scorer("swd", lambda fake, labels: time.sleep(0.02) or calls.append(rank()) or {"swd": 1.0})
    state = train_loop(config, images, Run.open(path), make_fabric("cpu"), Options(scorer=scorer, watch=lambda: True))
    return {"step": state.step, "scored": len(calls)}

def nan():
    config = configs["wgan-gp"].override({"training": {"kimg": 8.0, "log_every_kimg": 0.016}})
    path = folder / "nan"
    if rank() == 0:
        Run.create(path, config)
    torch.distributed.barrier()
    if rank() == 1:  # only one of the processes computes a NaN
        original = samgan.training.recipe.PENALTIES["gradient-per-scale"]
        samgan.training.recipe.PENALTIES["gradient-per-scale"] = lambda *arguments: original(*arguments) * float("nan")
    try:
        train_loop(config, images, Run.open(path), make_fabric("cpu"))
    except SamganError as error:
        return {"message": str(error)}

def full():
    config, path = configs["rahinge"], folder / "full"
    if rank() == 0:  # only the process that writes has no space left
        Run.create(path, config)
        def refuse(*arguments):
            raise OSError(errno.ENOSPC, "No space left on device")
        samgan.training.snapshots.save_checkpoint = refuse
    torch.distributed.barrier()
    try:
        train_loop(config, images, Run.open(path), make_fabric("cpu"))
    except OSError as error:
        return {"message": str(error), "told": error.on_all_processes}

def bug():
    def work():
        raise ZeroDivisionError("a defect")
    try:
        on_first_process(work)
    except Exception as error:
        return {"message": repr(error)}

def uneven():
    config = configs["rahinge"].override({"training.batch_size": 5})
    try:
        train_loop(config, images, Run(folder / "uneven"), make_fabric("cpu"))
    except SamganError as error:
        return {"message": str(error)}

def in_two(name, function):
    pids = []
    for number in (0, 1):
        pid = os.fork()
        if pid == 0:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder / name}.init", rank=number, world_size=2
            )
            torch.save(function(), folder / f"{name}-{number}.pt")
            torch.distributed.destroy_process_group()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, f"{name}: a process failed"

work = {name: (lambda config=config: steps(config)) for name, config in configs.items()}
work["gradients"] = gradients
for name, function in work.items():
    in_two(name, function)
stopped = {"scored": scored, "interrupted_soon": interrupted_soon, "interrupted_later": interrupted_later}
stopped |= {"nan": nan, "full": full, "bug": bug, "uneven": uneven}
for name, function in stopped.items():
    in_two(name, function)
for name, function in work.items():  # last: forking after a backward pass is not safe
    torch.save(function(), folder / f"{name}.pt")
print(json.dumps(None))
"""

CONFIGS = {
    "rahinge": {},
    "groups": {
        "network": {"minibatch_std": "every", "minibatch_std_group": 2},
        "training": {"optimizer": "rmsprop", "loss": "relativistic-paired"},
        "data": {"flip": "random"},
    },
    "wgan-gp": {
        "network": {"spectral_norm": "none"},
        "training": {"loss": "wgan", "penalty": "gradient-per-scale", "drift_weight": 0.001},
    },
    "augmented": {"training": {"loss": "non-saturating", "augment_target": 0.01}},
    "samgan-plus": {
        "network": {
            "generator_blocks": "modulated",
            "discriminator_blocks": "residual",
            "mapping_layers": 2,
            "minibatch_std": "every",
            "minibatch_std_group": 2,
        },
        "training": {"loss": "relativistic-paired", "penalty": "r1-r2"},
    },
    **{
        blocks: {
            "network": {
                "discriminator_blocks": blocks,
                "vision_features": "radiograph",
                "vision_resolution": 64,
                "vision_channels": 8,
                "minibatch_std_group": 2,
            },
            "training": {"loss": loss, "augment_target": 0.01},
        }
        for blocks, loss in (("projected", "hinge"), ("vision", "relativistic-paired"))
    },
    "alias-free": {"network": {"generator_blocks": "alias-free", "mapping_layers": 2}},
    "classes": {
        "network": {"num_classes": 3},
        "data": {"class_sampling": "balanced", "flip": "double"},
        "training": {"loss": "relativistic-paired", "penalty": "r1-r2", "augment_target": 0.01},
    },
}


@pytest.fixture(scope="module")
def results(tiny_config, images, run_script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    configs = {name: tiny_config.override(changes).to_dict() for name, changes in CONFIGS.items()}
    (folder / "configs.json").write_text(json.dumps(configs))
    np.save(folder / "images.npy", images)
    run_script(DRIVER, folder)
    return lambda name: torch.load(folder / f"{name}.pt", weights_only=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_step_like_one(results, name):
    alone, first, second = results(name), results(f"{name}-0"), results(f"{name}-1")
    assert alone[0].keys() >= {"weights", "loss_discriminator", "loss_generator", "logit_real", "logit_fake"}
    assert ("penalty" in alone[0]) == (name in ("wgan-gp", "samgan-plus", "classes"))
    for one, a, b in zip(alone, first, second, strict=True):
        for key, expected in one.items():
            torch.testing.assert_close(a[key], expected, rtol=1e-5, atol=1e-5)
            assert torch.equal(a[key], b[key]), f"the processes differ in {key}"
    assert not torch.equal(alone[0]["weights"], alone[1]["weights"])
    assert name != "classes" or alone[-1]["augment"].max() > 0


def test_gather_differentiates_three_times(results):
    alone, first, second = results("gradients"), results("gradients-0"), results("gradients-1")
    torch.testing.assert_close(first["x"], alone["x"])
    # Every process computes the same loss, so each order brings a factor of two: averaging over processes removes it.
    # (The second loss squares a gradient, factor 4, and is itself differentiated, factor 2.)
    for key, factor in (("first", 2), ("second", 8), ("third", 16)):
        torch.testing.assert_close(torch.cat([first[key], second[key]]), factor * alone[key])


def test_a_signal_to_one_process_stops_both_at_the_same_step(results):
    """Long before the next line of the log: the step after the signal if they ask each other after every step."""
    for name in ("interrupted_soon-0", "interrupted_soon-1"):
        assert results(name) == {"signal": 15, "files": ["step-00000006.pt"]}
    later = results("interrupted_later-0")
    assert later == results("interrupted_later-1")
    (file,) = later["files"]
    assert 6 <= int(file[5:-3]) < 1000


def test_the_first_process_scores_while_both_go_on_and_both_end_where_its_watch_says_so(results):
    first, second = results("scored-0"), results("scored-1")
    assert first["step"] == second["step"]
    assert first["step"] in (6, 8)
    assert (first["scored"], second["scored"]) == (2, 0)


def test_a_nan_in_one_process_stops_both(results):
    first, second = results("nan-0"), results("nan-1")
    assert first == second
    assert "step 1: penalty is nan" in first["message"]


def test_a_write_that_fails_in_one_process_stops_both(results):
    expected = {"message": "[Errno 28] No space left on device", "told": True}
    assert [results(f"full-{number}") for number in (0, 1)] == [expected] * 2


def test_a_defect_in_one_process_stops_both(results):
    assert results("bug-0") == {"message": "ZeroDivisionError('a defect')"}
    told = "SamganError(\"the first process failed: ZeroDivisionError('a defect')\")"
    assert results("bug-1") == {"message": told}


def test_batch_that_does_not_divide(results):
    assert "5 cannot be divided evenly among 2 processes" in results("uneven-0")["message"]


def test_alone_nothing_is_communicated():
    x = torch.nn.Parameter(torch.ones(3))
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    assert distributed.gather(x) is x
    distributed.average_gradients([x])
    assert x.grad is None


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_the_process_group_however_it_ends(fails, tiny_config, tmp_path):
    """A process of Gloo that ends Python within its group aborts now and then, with all its work done."""
    side = tiny_config.network.resolution
    write_phantoms(tmp_path / "images", 8, side)
    data = prepare(tmp_path / "images", tmp_path / "data", resolution=side, workers=1)
    if fails:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine.txt").touch()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    try:
        with pytest.raises(SamganError, match="not empty") if fails else contextlib.nullcontext():
            config = tiny_config.override({"training.kimg": 0.008})
            api.train(config, data, tmp_path / "run", device="cpu", quiet=True)
        assert not torch.distributed.is_initialized()
    finally:
        distributed.leave()  # for the tests that follow; outside of a group it does nothing
