"""The loop: resuming bit for bit, snapshots, the log, stopping; the DRIVER script kills and resumes real processes."""

import errno
import io
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import samgan.training.loop
import samgan.training.snapshots
from samgan.commands.main import main
from samgan.data import prepare
from samgan.devices import make_fabric
from samgan.errors import SamganError, UsageError
from samgan.pictures import from_uint8
from samgan.presets import preset_config
from samgan.runs import Best, Run, save_checkpoint
from samgan.sampling import generate, latents_of_seeds
from samgan.training import (
    LOSSES,
    AdaptiveProbability,
    Loss,
    Options,
    Sampler,
    Scorer,
    TrainingState,
    train_loop,
    train_step,
)

CPU = torch.device("cpu")

VARIANTS = {
    "everything-on": {},
    "wgan-gp-rmsprop": {
        "network": {"spectral_norm": "none", "image_activation": "tanh"},
        "training": {"loss": "wgan", "penalty": "gradient-per-scale", "drift_weight": 0.001, "optimizer": "rmsprop"},
    },
    "lazy-penalty": {"training": {"penalty": "r1-r2", "penalty_every": 3, "penalty_weight": 0.1}},
    "own-blocks": {
        "network": {"generator_blocks": "modulated", "discriminator_blocks": "residual", "mapping_layers": 2},
        "training": {"ema_ramp": 0.05},
    },
    **{
        blocks: {
            "network": {
                "discriminator_blocks": blocks,
                "vision_features": "radiograph",
                "vision_resolution": 64,
                "vision_channels": 8,
            },
            "training": {"loss": "hinge"},
        }
        for blocks in ("projected", "vision")
    },
    "alias-free": {"network": {"generator_blocks": "alias-free", "mapping_layers": 2}, "training": {"ema_ramp": 0.05}},
    "augmented": {
        "network": {"spectral_norm": "none"},
        "training": {"loss": "hinge", "penalty": "r1", "augment_target": 0.01},
    },
    "small-first": {  # one size for three steps, the next for three
        "network": {"generator_blocks": "modulated", "discriminator_blocks": "residual", "spectral_norm": "none"},
        "training": {"first_sides": (8, 16), "first_kimg": 0.012},
    },
    "own-latents-no-average": {
        "data": {"flip": "random"},
        "training": {"shared_latents": False, "ema_halflife_kimg": 0, "discriminator_learning_rate": 0.004},
    },
}


@pytest.fixture
def fabric():
    return make_fabric("cpu")


def new_run(folder, config):
    return Run.create(folder, config)


def batches(config, images, count):
    sampler = Sampler(images, config, CPU)
    return [sampler(step) for step in range(count)]


# ---- runs


def final_bytes(run):
    return run.checkpoints()[-1].read_bytes()


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=pytest.mark.slow) if name == "alias-free" else name for name in VARIANTS]
)
def test_resume_gives_the_same_bytes(tiny_config, images, tmp_path, fabric, variant, monkeypatch):
    monkeypatch.setattr(AdaptiveProbability, "EVERY", 2)  # of the ten steps
    monkeypatch.setattr(AdaptiveProbability, "KIMG", 0.1)
    config = tiny_config.override(VARIANTS[variant])
    straight = new_run(tmp_path / "straight", config)
    train_loop(config, images, straight, fabric)

    parts = new_run(tmp_path / "parts", config)
    train_loop(config.override({"training.kimg": 0.016}), images, parts, fabric)
    path = parts.checkpoint_path(4)
    assert parts.checkpoints() == [path]
    saved = torch.load(
        path, weights_only=True
    )  # the checkpoint notes the length it was made with; make it that of the run
    save_checkpoint(path, {**saved, "config": config.to_dict()})
    state = train_loop(config, images, parts, fabric, Options(resume=True))

    assert state.step == 10
    assert final_bytes(parts) == final_bytes(straight)
    names = sorted(path.name for path in (straight.path / "grids").iterdir())
    assert names == ["kimg-000000.016.png", "kimg-000000.032.png", "kimg-000000.040.png", "real.png"]
    for name in names:
        assert (parts.path / "grids" / name).read_bytes() == (straight.path / "grids" / name).read_bytes()
    drop = ("wall_seconds", "images_per_second")
    lines = [[{k: v for k, v in line.items() if k not in drop} for line in run.stats()] for run in (straight, parts)]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [2, 4, 6, 8, 10]
    assert any(line["augment"] > 0 for line in lines[0]) == (variant == "augmented")
    walls = [line["wall_seconds"] for line in parts.stats()]
    assert walls == sorted(walls)


def test_resume_of_a_finished_run_changes_nothing(tiny_config, images, tmp_path, fabric):
    run = new_run(tmp_path / "run", tiny_config)
    train_loop(tiny_config, images, run, fabric)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert train_loop(tiny_config, images, run, fabric, Options(resume=True)).step == 10
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.filterwarnings("ignore:skipped a checkpoint")
def test_a_damaged_checkpoint_takes_the_place_of_no_good_one(tiny_config, images, tmp_path, fabric):
    config = tiny_config.override({"training.keep_checkpoints": 1})
    run = new_run(tmp_path / "run", config)
    train_loop(config.override({"training.kimg": 0.016}), images, run, fabric)
    saved = torch.load(run.checkpoint_path(4), weights_only=True)
    save_checkpoint(run.checkpoint_path(4), {**saved, "config": config.to_dict()})
    run.checkpoint_path(9).write_bytes(b"torn")
    short = config.override({"training.kimg": 0.032})
    assert train_loop(short, images, run, fabric, Options(resume=True)).step == 8
    assert run.checkpoints() == [run.checkpoint_path(8)]
    assert (run.checkpoint_folder / "step-00000009.pt.damaged").read_bytes() == b"torn"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("spare", [True, False])
def test_a_snapshot_that_was_cut_off_is_completed_on_resume(
    tiny_config, images, tmp_path, fabric, monkeypatch, kind, spare
):
    monkeypatch.setattr(samgan.training.snapshots, "spare_core", lambda device: spare)

    def score(fake, labels):
        return {"swd": float(fake.mean())}

    def die(fake, labels):
        raise kind

    straight, cut = new_run(tmp_path / "straight", tiny_config), new_run(tmp_path / "cut", tiny_config)
    train_loop(tiny_config, images, straight, fabric, Options(scorer=Scorer("swd", score)))
    with pytest.raises(kind):
        train_loop(tiny_config, images, cut, fabric, Options(scorer=Scorer("swd", die)))
    for _ in range(2):
        train_loop(tiny_config, images, cut, fabric, Options(resume=True, scorer=Scorer("swd", score)))
    assert cut.best() == straight.best()
    scores = [[line for line in run.stats() if line["kind"] == "scores"] for run in (straight, cut)]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 3
    for name in ("kimg-000000.016.png", "kimg-000000.040.png"):
        assert (cut.path / "grids" / name).read_bytes() == (straight.path / "grids" / name).read_bytes()


def test_other_pretrained_weights_are_told_and_a_run_is_not_continued_with_them(tiny_config, images, tmp_path, fabric):
    config = tiny_config.override(VARIANTS["projected"])
    run = new_run(tmp_path / "run", config)
    train_loop(config.override({"training.kimg": 0.016}), images, run, fabric)
    path = run.checkpoints()[0]
    saved = torch.load(path, weights_only=True)
    assert not any(".network." in name or "along" in name for name in saved["discriminator"])
    for name in ("features_sha256", "mixing_sha256"):
        hashes = {f"eyes.projection.{name}": torch.zeros(32, dtype=torch.uint8)}
        changed = {"config": config.to_dict(), "discriminator": {**saved["discriminator"], **hashes}}
        save_checkpoint(path, {**saved, **changed})
        with pytest.raises(SamganError, match=r"the discriminator was trained on .* SHA-256 000000000000") as caught:
            train_loop(config, images, run, fabric, Options(resume=True))
        assert "\n" not in str(caught.value)


def test_a_run_of_another_seed_takes_over_the_mixing_with_the_networks(tiny_config, images, tmp_path, fabric):
    """With its own it would judge features that the heads have never seen."""
    config = tiny_config.override(VARIANTS["projected"])
    first = new_run(tmp_path / "first", config)
    before = train_loop(config.override({"training.kimg": 0.016}), images, first, fabric)
    other = config.override({"training.seed": 3})
    second, start = new_run(tmp_path / "second", other), Options(start=first.checkpoints()[-1])
    state = train_loop(other.override({"training.kimg": 0.016}), images, second, fabric, start)
    fresh = TrainingState(other, CPU).discriminator.eyes.projection
    kept, mixing = (network.discriminator.eyes.projection for network in (before, state))
    assert mixing.seed == kept.seed == 0
    assert torch.equal(mixing.across_0, kept.across_0)
    assert not torch.equal(mixing.across_0, fresh.across_0)


def test_a_checkpoint_of_another_run_is_not_continued(tiny_config, images, tmp_path, fabric):
    run = new_run(tmp_path / "run", tiny_config)
    path = run.checkpoint_path(0)
    other = TrainingState(tiny_config.override({"training.seed": 3}), CPU).state_dict()
    save_checkpoint(path, other)
    with pytest.raises(SamganError, match=r"step-00000000\.pt belongs to another run \(training\.seed is 3, not 0\)"):
        train_loop(tiny_config, images, run, fabric, Options(resume=True))
    whole = TrainingState(tiny_config, CPU).state_dict()
    wider = TrainingState(tiny_config.override({"network.max_channels": 16}), CPU).state_dict()
    without = {key: value for key, value in whole.items() if key != "discriminator"}
    name, value = next(iter(whole["ema_generator"].items()))
    spoilt = {**whole["ema_generator"], name: torch.full_like(value, torch.nan)}
    for state in (
        {**wider, "config": whole["config"]},
        without,
        {**whole, "generator_optimizer": None},
        {**whole, "ema_generator": spoilt},
    ):
        save_checkpoint(path, state)
        with pytest.raises(SamganError, match="does not hold the training state of this configuration"):
            train_loop(tiny_config, images, run, fabric, Options(resume=True))
    assert not (run.path / "stats.jsonl").exists()


def test_other_files_beside_the_checkpoints_are_left_alone(tiny_config, images, tmp_path, fabric):
    run = new_run(tmp_path / "run", tiny_config)
    copy_of_mine = run.checkpoint_folder / "step-00000099-copy.pt"
    copy_of_mine.write_bytes(b"mine")
    train_loop(tiny_config, images, run, fabric)
    assert train_loop(tiny_config, images, run, fabric, Options(resume=True)).step == run.last_step() == 10
    assert copy_of_mine.read_bytes() == b"mine"


def test_resume_without_any_checkpoint_starts_at_step_0(tiny_config, images, tmp_path, fabric):
    fresh, resumed = new_run(tmp_path / "fresh", tiny_config), new_run(tmp_path / "resumed", tiny_config)
    train_loop(tiny_config, images, fresh, fabric)
    train_loop(tiny_config, images, resumed, fabric, Options(resume=True))
    assert final_bytes(fresh) == final_bytes(resumed)


def test_training_leaves_the_global_random_state_alone(tiny_config, images, tmp_path, fabric):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train_loop(tiny_config, images, new_run(tmp_path / "run", tiny_config), fabric)
    assert torch.equal(torch.rand(3), expected)


def test_checkpoints_kept_are_the_newest_and_the_best(tiny_config, images, tmp_path, fabric):
    config = tiny_config.override({"training": {"keep_checkpoints": 2, "snapshot_every_kimg": 0.004}})
    run = new_run(tmp_path / "run", config)
    values = iter([5.0, 4.0, 1.0, 3.0, 2.0, 2.0, 1.0, 6.0, 7.0, 8.0])
    shapes = []

    def score(fake, labels):
        shapes.append((fake.dtype, fake.shape))
        return {"fid": next(values), "other": 0.0}

    train_loop(config, images, run, fabric, Options(scorer=Scorer("fid", score)))
    assert [path.name for path in run.checkpoints()] == [f"step-{step:08d}.pt" for step in (3, 9, 10)]
    assert run.best() == Best(checkpoint="step-00000003.pt", score="fid", value=1.0)
    assert shapes == [(np.dtype(np.uint8), (samgan.training.snapshots.SCORED_IMAGES, 1, 32, 32))] * 10
    scores = [line for line in run.stats() if line["kind"] == "scores"]
    assert [line["fid"] for line in scores] == [5.0, 4.0, 1.0, 3.0, 2.0, 2.0, 1.0, 6.0, 7.0, 8.0]


def test_enlarged_images_are_never_the_best(tiny_config, images, tmp_path, fabric):
    """A network whose largest blocks have not begun may score well for a while."""
    changes = VARIANTS["small-first"] | {"training": {"first_sides": (8, 16), "first_kimg": 0.012}}
    config = tiny_config.override(changes).override({"training": {"snapshot_every_kimg": 0.004}})
    run, values = new_run(tmp_path / "run", config), iter(range(100))
    scorer = Scorer("fid", lambda fake, labels: {"fid": float(next(values))})
    train_loop(config, images, run, fabric, Options(scorer=scorer))
    assert run.best().checkpoint == "step-00000007.pt", "the first after a step at 32 px"
    at_once = config.override({"training.first_sides": []})
    options = Options(
        scorer=Scorer("fid", lambda fake, labels: {"fid": float(next(values))}), start=run.checkpoints()[-1]
    )
    train_loop(at_once, images, new_run(tmp_path / "same", at_once), fabric, options)
    assert Run(tmp_path / "same").best().checkpoint == "step-00000000.pt", "a whole network, though of another run"


def test_stats_lines_hold_means_since_the_last_line(tiny_config, images, tmp_path, fabric):
    run = new_run(tmp_path / "run", tiny_config)
    train_loop(tiny_config, images, run, fabric)
    state = TrainingState(tiny_config, CPU)
    losses = [train_step(state, batch)["loss_generator"].item() for batch in batches(tiny_config, images, 2)]
    first = next(iter(run.stats()))
    assert first["loss_generator"] == pytest.approx(sum(losses) / 2, rel=1e-6)
    assert first["images_seen"] == 8
    assert set(first["gamma"]) == {"generator_8", "generator_16", "discriminator_8", "discriminator_32"}
    expected = state.generator.blocks[1].attention.gamma.item()
    assert first["gamma"]["generator_8"] == pytest.approx(expected, rel=1e-6)
    assert expected != 0


def test_stats_lines_hold_the_mean_of_the_penalties_there_were(tiny_config, images, tmp_path, fabric):
    lazy = {"penalty": "r1", "penalty_every": 3}
    config = tiny_config.override({"training": {**lazy, "log_every_kimg": 0.016}})
    run = new_run(tmp_path / "run", config)
    train_loop(config, images, run, fabric)
    state = TrainingState(config, CPU)
    logged = [train_step(state, batch) for batch in batches(config, images, 4)]
    first = next(iter(run.stats()))
    expected = (logged[0]["penalty"].item() + logged[3]["penalty"].item()) / 2
    assert first["penalty"] == pytest.approx(expected, rel=1e-6)
    assert first["loss_generator"] == pytest.approx(sum(line["loss_generator"].item() for line in logged) / 4, rel=1e-6)


def test_a_run_ends_where_the_watch_says_so(tiny_config, images, tmp_path, fabric, capsys):
    config = tiny_config.override({"training.snapshot_every_kimg": 0.008})
    run = new_run(tmp_path / "run", config)
    seen = []

    def watch():
        seen.append(run.last_step())
        return len(seen) == 3

    state = train_loop(config, images, run, fabric, Options(watch=watch, at_once=True, quiet=True))
    assert seen == [2, 4, 6]
    assert (state.step, run.last_step()) == (6, 6)
    assert capsys.readouterr().err == ""


def test_the_last_snapshot_is_watched_too(tiny_config, images, tmp_path, fabric):
    run, seen = new_run(tmp_path / "run", tiny_config), []
    options = Options(watch=lambda: bool(seen.append(run.last_step())), quiet=True)
    assert train_loop(tiny_config, images, run, fabric, options).step == 10
    assert seen == [4, 8, 10]


@pytest.mark.parametrize("term", ["loss_discriminator", "loss_generator", "penalty"])
def test_nan_stops_the_run_naming_step_and_term(tiny_config, images, tmp_path, fabric, monkeypatch, term):
    config = tiny_config.override({"training.penalty": "r1"})
    run = new_run(tmp_path / "run", config)
    original = samgan.training.loop.train_step

    def step_7_is_bad(state, batch, autocast=None):
        logged = original(state, batch, autocast)
        return {**logged, term: torch.tensor(float("nan"))} if state.step == 7 else logged

    monkeypatch.setattr(samgan.training.loop, "train_step", step_7_is_bad)
    with pytest.raises(SamganError, match=rf"step 7: {term} is nan"):
        train_loop(config, images, run, fabric)
    assert [path.name for path in run.checkpoints()] == ["step-00000004.pt"]
    assert torch.load(run.checkpoint_path(4), weights_only=True)["step"] == 4
    assert [line["step"] for line in run.stats()] == [2, 4, 6]


def test_nan_in_a_real_loss_is_seen(tiny_config, images, tmp_path, fabric, monkeypatch):
    def nan_loss(real, fake):
        return (real.mean() + fake.mean()) * float("nan"), fake.mean()

    monkeypatch.setitem(LOSSES, "hinge", Loss(nan_loss, absolute=True))
    config = tiny_config.override({"training.loss": "hinge"})
    run = new_run(tmp_path / "run", config)
    with pytest.raises(SamganError, match="step 1: loss_discriminator is nan"):
        train_loop(config, images, run, fabric)
    assert run.checkpoints() == []


def test_nonfinite_weight_is_not_saved(tiny_config, images, tmp_path, fabric, monkeypatch):
    original = samgan.training.loop.train_step

    def overflows_in_step_8(state, batch, autocast=None):
        logged = original(state, batch, autocast)
        if state.step == 8:
            state.generator.blocks[2].conv_2.weight.data[0, 0] = float("inf")
        return logged

    monkeypatch.setattr(samgan.training.loop, "train_step", overflows_in_step_8)
    run = new_run(tmp_path / "run", tiny_config)
    with pytest.raises(SamganError, match=r"step 8: weight generator\.blocks\.2\.conv_2\.weight"):
        train_loop(tiny_config, images, run, fabric)
    assert [path.name for path in run.checkpoints()] == ["step-00000004.pt"]


def test_a_gate_that_is_nan_stops_the_run_and_is_named(tiny_config, images, tmp_path, fabric, monkeypatch):
    original = samgan.training.loop.train_step

    def gate_lost_in_step_3(state, batch, autocast=None):
        logged = original(state, batch, autocast)
        if state.step == 3:
            state.generator.blocks[1].attention.gamma.data.fill_(float("nan"))
        return logged

    monkeypatch.setattr(samgan.training.loop, "train_step", gate_lost_in_step_3)
    run = new_run(tmp_path / "run", tiny_config.override({"training.log_every_kimg": 0.012}))
    with pytest.raises(SamganError, match="step 3: gamma of generator_8 is nan"):
        train_loop(run.config, images, run, fabric)
    assert run.checkpoints() == []


def test_progress_on_a_terminal_stays_on_one_line_that_ends(tiny_config, images, tmp_path, fabric, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    written = io.StringIO()
    written.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", written)
    run = new_run(tmp_path / "run", tiny_config)
    train_loop(tiny_config, images, run, fabric)
    lines = written.getvalue().split("\r\x1b[2K")
    assert len(lines) == 6
    assert lines[-1].startswith("0.04/0.04 kimg  ")
    assert lines[-1].endswith("\n")
    assert all(len(line.rstrip("\n")) < 60 for line in lines)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((22, 3, 32, 32), r"\(1, 32, 32\); got \(3, 32, 32\)"),
        ((22, 1, 64, 64), r"got \(1, 64, 64\)"),
        ((22, 32, 32), "got"),
        ((1, 1, 32, 32), "at least 2 images; got 1"),
    ],
)
def test_images_that_do_not_fit(tiny_config, tmp_path, fabric, shape, message):
    run = new_run(tmp_path / "run", tiny_config)
    with pytest.raises(UsageError, match=message):
        train_loop(tiny_config, np.zeros(shape, np.uint8), run, fabric)


def test_trains_outside_the_main_thread(tiny_config, images, tmp_path, fabric):
    config = tiny_config.override({"training.kimg": 0.008})
    run, states = new_run(tmp_path / "run", config), []
    thread = threading.Thread(target=lambda: states.append(train_loop(config, images, run, fabric)))
    thread.start()
    thread.join()
    assert states[0].step == 2


def test_learns_the_mean_picture_of_real_radiographs(real_images_folder, tmp_path, fabric):
    """Nothing subtle: after 60 steps the average sample is nearer to the average radiograph than at the start."""
    files = sorted((real_images_folder / "NORMAL").glob("*.jpeg"))[:48]
    images = np.stack([np.asarray(Image.open(path).convert("L").resize((32, 32)))[None] for path in files])
    settings = {"network.max_channels": 16, "training": {"batch_size": 8, "kimg": 0.48, "ema_halflife_kimg": 0.05}}
    config = preset_config("msg-gan-6", "cpu", resolution=32).override(settings)

    def distance(state):
        latents = latents_of_seeds(range(64), 16)
        fake = torch.cat([pyramid[-1] for pyramid in generate(state.sampling_generator, latents)]).mean(dim=0)
        return (fake - from_uint8(torch.from_numpy(images)).mean(dim=0)).abs().mean().item()

    trained = train_loop(config, images, new_run(tmp_path / "run", config), fabric)
    assert distance(trained) < 0.5 * distance(TrainingState(config, CPU))


def test_a_run_ends_after_its_minutes(tmp_path, tiny_config, images, fabric, capsys):
    config = tiny_config.override({"training": {"kimg": 1000, "log_every_kimg": 0.016, "snapshot_every_kimg": 500}})
    run = new_run(tmp_path / "run", config)
    seconds = 0.5

    def go_on(minutes):
        return train_loop(
            config,
            images,
            run,
            fabric,
            Options(resume=True, minutes=minutes, scorer=Scorer("swd", lambda fake, labels: {"swd": 1.0})),
        ).step

    def walls():
        return [line["wall_seconds"] for line in run.stats() if line["kind"] == "train"]

    step = go_on(seconds / 60)
    assert 0 < step < config.training.total_steps
    assert step == run.last_step()
    assert [line["step"] for line in run.stats() if line["kind"] == "scores"] == [step]
    assert all(wall < seconds for wall in walls()[:-1])
    assert walls()[-1] >= seconds
    capsys.readouterr()
    assert go_on(seconds / 60) == step  # they are over
    assert "nothing left to train: " in capsys.readouterr().err
    spent = walls()[-1]  # longer than asked on a machine that stalled
    assert go_on(2 * spent / 60) > step  # those before count
    assert walls()[-1] >= 2 * spent


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("at", ["score", "_write_grid"])
def test_the_last_snapshot_of_some_minutes_is_completed_on_resume(
    tiny_config, images, tmp_path, fabric, monkeypatch, at, longer
):
    """No multiple of the steps between snapshots says that this one is due. `longer`: --resume has more minutes."""
    config = tiny_config.override({"training": {"kimg": 1000, "log_every_kimg": 0.012, "snapshot_every_kimg": 500}})
    run, minutes, watched = new_run(tmp_path / "run", config), 1e-6, []

    def train(score, minutes, resume=True):
        options = {"scorer": Scorer("swd", score), "watch": lambda: bool(watched.append(0)), "at_once": True}
        return train_loop(config, images, run, fabric, Options(resume=resume, minutes=minutes, quiet=True, **options))

    def score(fake, labels):
        return {"swd": 1.0}

    def die(*_):
        raise KeyboardInterrupt

    original = samgan.training.snapshots._write_grid

    def no_grid(path, *rest):
        if path.name != "real.png":
            raise KeyboardInterrupt
        original(path, *rest)

    with monkeypatch.context() as patched:
        if at == "_write_grid":
            patched.setattr(samgan.training.snapshots, "_write_grid", no_grid)
        with pytest.raises(KeyboardInterrupt):
            train(die if at == "score" else score, minutes, resume=False)
    step = run.last_step()
    assert step == 3
    if longer:
        monkeypatch.setattr(samgan.training.loop, "_run", lambda *_: None)
        minutes = 1000.0
    assert train(score, minutes).step == step
    assert [line["step"] for line in run.stats() if line["kind"] == "scores"] == [step]
    assert run.best() == Best(checkpoint=f"step-{step:08d}.pt", score="swd", value=1.0)
    assert len(watched) == 1


def test_scores_that_are_not_written_again_stay(tiny_config, images, tmp_path, fabric):
    run = new_run(tmp_path / "run", tiny_config)
    scored = Options(scorer=Scorer("swd", lambda fake, labels: {"swd": 1.0}), quiet=True)
    train_loop(tiny_config, images, run, fabric, scored)
    run.grid_path(40).unlink()
    train_loop(tiny_config, images, run, fabric, Options(resume=True, quiet=True))  # without a scorer
    assert [line["step"] for line in run.stats() if line["kind"] == "scores"] == [4, 8, 10]
    assert run.grid_path(40).exists()


@pytest.mark.parametrize(("kimg", "scores"), [(0.04, [4, 8, 10]), (0.036, [4, 8, 9])])
def test_a_checkpoint_that_does_not_say_whether_it_is_scored_is_completed(
    tiny_config, images, tmp_path, fabric, kimg, scores
):
    """As earlier versions wrote them: its step tells."""
    config = tiny_config.override({"training.kimg": kimg})
    run = new_run(tmp_path / "run", config)
    options = {"scorer": Scorer("swd", lambda fake, labels: {"swd": 1.0}), "quiet": True}
    train_loop(config, images, run, fabric, Options(**options))
    saved = torch.load(run.checkpoints()[-1], weights_only=True)
    assert saved.pop(samgan.training.snapshots.DUE) is True
    save_checkpoint(run.checkpoints()[-1], saved)
    run.grids()[-1].unlink()
    train_loop(config, images, run, fabric, Options(resume=True, **options))
    assert [line["step"] for line in run.stats() if line["kind"] == "scores"] == scores
    assert len(run.grids()) == 3


def test_a_full_disk_is_told_with_what_continues_the_run(tiny_config, twelve_phantoms, tmp_path, monkeypatch, capsys):
    def refuse(path, state):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    data = prepare(twelve_phantoms, tmp_path / "set", resolution=32, workers=1).path
    (tmp_path / "config.json").write_text(json.dumps(tiny_config.to_dict()))
    words = ["train", str(data), "--config", str(tmp_path / "config.json"), "--device=cpu"]
    words += ["--training.precision=fp32", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        patched.setattr(samgan.training.snapshots, "save_checkpoint", refuse)
        capsys.readouterr()
        assert main(words) == 1
        *_, last = capsys.readouterr().err.splitlines()
        assert last.startswith("samgan: error: No space left on device (/")
        assert last.endswith("step-00000004.pt): free some space, then continue with --resume")
        assert main([*words, "--resume"]) == 1
        assert capsys.readouterr().err.endswith("free some space, then run the same command again\n")
    assert main([*words, "--resume"]) == 0


# ---- stopped from outside

# One process imports torch and forks the runs, which are then real processes to kill.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
import samgan.training.snapshots
from samgan.config import Config
from samgan.devices import make_fabric
from samgan.runs import Run
from samgan.training import Interrupted, Options, Scorer, train_loop

def slow(fake, labels):  # so that steps are taken meanwhile
    time.sleep(0.03)
    return {"swd": float(fake.mean())}

SCORER = Scorer("swd", slow)
samgan.training.snapshots.SCORED_IMAGES = 64
samgan.training.snapshots.spare_core = lambda device: True
folder = Path(sys.argv[1])
config = Config.from_dict(json.loads((folder / "config.json").read_text()))
images = np.load(folder / "images.npy")

def child(path, before=None):
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        if before:
            before()
        resume = (path / "config.json").is_file()
        run = Run.open(path) if resume else Run.create(path / ".." / path.name, config)
        plain = path.name == "straight"
        train_loop(config, images, run, make_fabric("cpu"), Options(resume=resume, scorer=SCORER, at_once=plain))
        code = 0
    except Interrupted as error:
        code = 100 + error.signal_number
    finally:
        os._exit(code)

def ended(pid):
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)

def lines(path):
    return (path / "stats.jsonl").read_text().count("\\n") if (path / "stats.jsonl").is_file() else 0

def clear(path):
    # What a run killed before it had a configuration leaves; a user would remove it, or name another folder.
    if path.is_dir() and not (path / "config.json").is_file():
        __import__("shutil").rmtree(path)

exits, saved = {}, []
start = time.monotonic()
exits["straight"] = [ended(child(folder / "straight"))]
duration = time.monotonic() - start

def killed_after(seconds, path):
    pid = child(path)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return ended(pid)

random.seed(5)
path = folder / "random"
exits["random"] = []
for _ in range(6):
    clear(path)
    exits["random"].append(killed_after(duration * random.uniform(0.1, 0.6), path))
exits["random"].append(ended(child(path)))

# In the middle of a write: nothing is more exposed than the moment before a file is synchronised or renamed.
path = folder / "writing"
exits["writing"] = []
def die_in_write(number, name):
    calls, original = [], getattr(os, name)
    def die(*arguments):
        calls.append(0)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)
    setattr(os, name, die)
for number, name in ((1, "fsync"), (2, "replace"), (4, "fsync"), (5, "replace"), (1, "replace")):
    clear(path)
    exits["writing"].append(ended(child(path, lambda: die_in_write(number, name))))
exits["writing"].append(ended(child(path)))

# While the other thread scores: training has gone on, and the grid of the newest checkpoint is missing.
path = folder / "scoring"
exits["scoring"] = []
def die_in_score(number):
    def die(fake, labels):
        calls.append(0)
        if len(calls) == number:
            seen = lines(path)
            while lines(path) == seen:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)
        return slow(fake, labels)
    calls = []
    globals()["SCORER"] = Scorer("swd", die)
unfinished = []
for number in (1, 2, 4):
    exits["scoring"].append(ended(child(path, lambda: die_in_score(number))))
    newest = max(path.glob("checkpoints/step-*.pt"))
    step = int(newest.stem.removeprefix("step-"))
    grid = path / "grids" / f"kimg-{step * config.training.batch_size / 1000:010.3f}.png"
    last = json.loads((path / "stats.jsonl").read_text().splitlines()[-1])["step"]
    unfinished.append([step, last, grid.exists()])
exits["scoring"].append(ended(child(path)))

for number in (signal.SIGTERM, signal.SIGINT):
    path = folder / number.name
    exits[number.name] = []
    for _ in range(2):
        seen = lines(path)
        pid = child(path)
        while lines(path) < seen + 1:
            time.sleep(0.01)
        os.kill(pid, number)
        exits[number.name].append(ended(pid))
        last = json.loads((path / "stats.jsonl").read_text().splitlines()[-1])["step"]
        saved.append([last, max(path.glob("checkpoints/step-*.pt")).name])
    exits[number.name].append(ended(child(path)))
print(json.dumps({"exits": exits, "saved": saved, "unfinished": unfinished}))
"""


@pytest.fixture(scope="module")
def stopped_runs(tiny_config, images, run_script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    settings = {"kimg": 0.104, "log_every_kimg": 0.008, "snapshot_every_kimg": 0.012}
    config = tiny_config.override({"training": settings})  # 26 steps, a snapshot every 3
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    np.save(folder / "images.npy", images)
    return folder, run_script(DRIVER, folder)


@pytest.mark.slow  # test_faults.py has fifty kills among the default tests
@pytest.mark.parametrize(
    ("name", "exits"),
    [
        ("straight", {0}),
        ("random", {0, -9}),
        ("writing", {0, -9}),
        ("scoring", {0, -9}),
        ("SIGTERM", {0, 115}),
        ("SIGINT", {0, 102}),
    ],
)
def test_stopped_and_resumed_run_ends_in_the_same_bytes(stopped_runs, name, exits):
    folder, outcome = stopped_runs
    assert set(outcome["exits"][name]) == exits
    assert outcome["exits"][name][-1] == 0
    expected, run = Run.open(folder / "straight"), Run.open(folder / name)
    assert run.checkpoints()[-1].name == "step-00000026.pt"
    assert final_bytes(run) == final_bytes(expected)
    kept = {"step-00000024.pt", "step-00000026.pt", expected.best().checkpoint}
    assert {path.name for path in run.checkpoints()} == kept
    assert run.best() == expected.best()
    scores = [[line for line in some.stats() if line["kind"] == "scores"] for some in (run, expected)]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 9
    grids = {path.name: path.read_bytes() for path in (run.path / "grids").iterdir()}
    assert grids.items() >= {path.name: path.read_bytes() for path in (expected.path / "grids").iterdir()}.items()
    assert not list(run.checkpoint_folder.glob(".*.tmp"))
    last = list(run.stats())[-1]
    assert last["step"] == 26
    assert last["loss_generator"] == list(expected.stats())[-1]["loss_generator"]


@pytest.mark.slow
def test_a_signal_saves_the_last_step(stopped_runs):
    saved = stopped_runs[1]["saved"]
    assert len(saved) == 4
    for step, name in saved:
        assert name == f"step-{step:08d}.pt"
    assert any(step % 3 for step, _ in saved)  # not only where a snapshot was due anyway


@pytest.mark.slow
def test_runs_were_killed_while_another_thread_scored(stopped_runs):
    unfinished = stopped_runs[1]["unfinished"]
    assert len(unfinished) == 3
    for step, last, has_grid in unfinished:
        assert last > step
        assert not has_grid
