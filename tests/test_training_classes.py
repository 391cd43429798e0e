"""Classes from one end to the other: a set of several, a run that is told of them, images of the one asked for."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import samgan.training.snapshots
from samgan import api
from samgan.commands.main import main
from samgan.config import Config
from samgan.data import prepare
from samgan.devices import choose_device, make_fabric
from samgan.errors import UsageError
from samgan.metrics.feature_networks import FeaturesUnavailable
from samgan.networks import Generator
from samgan.pictures import to_uint8
from samgan.presets import preset_config, preset_names
from samgan.runs import Run
from samgan.sampling import generate, latents_of_seeds, load_model, sample
from samgan.training import (
    Options,
    Sampler,
    Scorer,
    TrainingState,
    check_start,
    choose_classes,
    choose_length,
    plan,
    train_loop,
    train_step,
)
from samgan.training.run import say_new_classes

CPU = torch.device("cpu")
LABELS = np.array([0] * 12 + [1] * 7 + [2] * 3)  # of the 22 images
THREE = {"network": {"num_classes": 3}}
BALANCED = {**THREE, "data": {"class_sampling": "balanced"}}
# The two-process comparison of these is in test_distributed.
VARIANTS = {
    "random flips": {"network": {"num_classes": 3}, "data": {"flip": "random"}},
    "own blocks": {
        "network": {
            "num_classes": 3,
            "generator_blocks": "modulated",
            "discriminator_blocks": "residual",
            "mapping_layers": 1,
            "spectral_norm": "none",
        },
        "training": {"loss": "relativistic-paired", "penalty": "r1-r2", "augment_target": 0.5},
        "data": {"class_sampling": "balanced", "flip": "double"},
    },
}


def new_run(folder, config):
    return Run.create(folder, config)


def labels_seen(config, images, steps, labels=LABELS):
    sampler = Sampler(images, config, CPU, labels=labels)
    return torch.cat([sampler(step).labels for step in range(steps)])


# ---- batches


@pytest.mark.parametrize("flip", ["none", "random", "double"])
@pytest.mark.parametrize("changes", [THREE, BALANCED], ids=["natural", "balanced"])
def test_labels_are_those_of_the_images(tiny_config, images, changes, flip):
    config = tiny_config.override(changes).override({"data.flip": flip})
    sampler = Sampler(images, config, CPU, labels=LABELS)
    own = {picture.tobytes(): label for picture, label in zip(images, LABELS, strict=True)}
    own |= {picture[:, :, ::-1].tobytes(): label for picture, label in zip(images, LABELS, strict=True)}
    for step in range(30):
        batch = sampler(step)
        assert [own[picture.numpy().tobytes()] for picture in to_uint8(batch.real)] == batch.labels.tolist()


def test_natural_sampling_draws_as_without_classes(tiny_config, images):
    with_classes = Sampler(images, tiny_config.override(THREE), CPU, labels=LABELS)
    without = Sampler(images, tiny_config, CPU, labels=LABELS)
    for step in range(12):
        batch, plain = with_classes(step), without(step)
        assert torch.equal(batch.real, plain.real)
        assert torch.equal(batch.latents, plain.latents)
        assert plain.labels is None


@pytest.mark.parametrize("flip", ["none", "double"])
def test_balanced_sampling_shows_each_class_as_often_and_each_of_its_images(tiny_config, images, flip):
    config = tiny_config.override(BALANCED).override({"data.flip": flip})
    copies = 2 if flip == "double" else 1
    sampler = Sampler(images, config, CPU, labels=LABELS)
    steps = 3 * 12 * copies // 4  # one epoch of the largest class, four of the smallest
    batches = [sampler(step) for step in range(steps)]
    labels = torch.cat([batch.labels for batch in batches])
    assert torch.bincount(labels).tolist() == [12 * copies] * 3
    for three in labels.view(-1, 3):
        assert sorted(three.tolist()) == [0, 1, 2]
    assert len({tuple(three.tolist()) for three in labels.view(-1, 3)}) > 2  # in no fixed order
    pictures = [picture.numpy().tobytes() for batch in batches for picture in to_uint8(batch.real)]
    for label, times in ((0, 1), (2, 4)):
        its = [picture for picture, own in zip(pictures, labels.tolist(), strict=True) if own == label]
        counts = {picture: its.count(picture) for picture in its}
        assert len(counts) == copies * (label == LABELS).sum()
        assert set(counts.values()) == {times}


def test_a_part_of_a_set_is_balanced_by_itself(tiny_config, images):
    indices = np.array([0, 1, 2, 3, 4, 5, 12, 19, 20])
    alone = Sampler(images[indices], tiny_config.override(BALANCED), CPU, labels=LABELS[indices])
    chosen = Sampler(images, tiny_config.override(BALANCED), CPU, indices, LABELS)
    backwards = [chosen(step) for step in range(11, -1, -1)][::-1]  # a batch is a function of its step alone
    for step in range(12):
        assert torch.equal(chosen(step).real, alone(step).real)
        assert torch.equal(backwards[step].real, alone(step).real)
        assert torch.equal(chosen(step).labels, alone(step).labels)


def test_the_grid_of_real_images_shows_each_class(tiny_config, images):
    sampler = Sampler(images, tiny_config.override(THREE), CPU, labels=LABELS)
    np.testing.assert_array_equal(sampler.first(7), images[[0, 1, 2, 12, 13, 19, 20]])


@pytest.mark.parametrize("labels", [None, np.zeros(22, int), LABELS + 1, np.where(LABELS == 1, 0, LABELS)])
def test_labels_that_do_not_fit_are_refused(tiny_config, images, labels):
    with pytest.raises(UsageError, match="num_classes 3: expected images of every label from 0 to 2"):
        Sampler(images, tiny_config.override(THREE), CPU, labels=labels)


# ---- steps and runs


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_steps_with_classes(name):
    """Every weight of the classes in the batch moves, in both networks."""
    config = preset_config(name, "cpu", resolution=32).override(
        {
            "network": {"max_channels": 8, "channel_base": None, "num_classes": 3, "image_channels": 1},
            "training": {"batch_size": 4, "learning_rate": 1e-4, "seed": 1, "precision": "fp32"},
        }
    )
    state = TrainingState(config, CPU)
    before = copy.deepcopy(state)
    images = np.random.default_rng(0).integers(0, 256, (22, 1, 32, 32), dtype=np.uint8)
    batch = Sampler(images, config, CPU, labels=LABELS)(0)
    batch.labels = torch.tensor([0, 1, 1, 0])
    logged, checked = train_step(state, batch), []
    assert all(torch.isfinite(value) for value in logged.values())
    moved = state.generator.embed.weight != before.generator.embed.weight
    assert moved.all(dim=1).tolist() == [True, True, False]
    for name, old in before.discriminator.named_parameters():
        if name == "projections.4.weight" or name.endswith("of_class.weight"):
            moved = state.discriminator.get_parameter(name) != old
            tied = config.network.spectral_norm == "both" or name.startswith("eyes.")  # rows have one norm
            assert moved.flatten(1).any(dim=1).tolist() == [True, True, tied]
            checked.append(name)
    assert len(checked) == {"projected": 4, "vision": 5}.get(config.network.discriminator_blocks, 1)


def test_generated_images_get_the_labels_of_the_real_ones(tiny_config, images, monkeypatch):
    config = tiny_config.override(THREE).override({"training": {"shared_latents": False, "penalty": "r1-r2"}})
    state, batch = TrainingState(config, CPU), Sampler(images, config, CPU, labels=LABELS)(0)
    seen = []
    for part in (state.generator, state.discriminator):

        def watched(x, labels, batches=1, part=part, forward=part.forward):
            own = () if part is state.generator else (batches,)
            seen.append((len(own), batches, labels.tolist()))
            return forward(x, labels, *own)

        monkeypatch.setattr(part, "forward", watched)
    train_step(state, batch)
    assert {labels == batch.labels.tolist() for _, _, labels in seen} == {True}
    # Both steps draw; real and generated, the penalty of both, generated, real.
    assert [(judged, batches) for judged, batches, _ in seen] == [(0, 1), (1, 2), (1, 2), (0, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_resume_gives_the_same_bytes(tiny_config, images, tmp_path, monkeypatch, variant):
    monkeypatch.setattr(samgan.training.snapshots, "SCORED_IMAGES", 66)
    config = tiny_config.override(VARIANTS[variant]).override({"training.kimg": 0.024})
    fabric, seen = make_fabric("cpu"), []

    def score(fake, labels):
        seen.append(np.bincount(labels, minlength=3).tolist())
        return {"swd": float(fake.mean()), "of 2": {"b": float(fake[labels == 2].mean())}}

    straight, parts = (new_run(tmp_path / name, config) for name in ("straight", "parts"))
    train_loop(config, images, straight, fabric, Options(labels=LABELS, scorer=Scorer("swd", score)))
    short = config.override({"training.kimg": 0.016})
    train_loop(short, images, parts, fabric, Options(labels=LABELS, scorer=Scorer("swd", score)))
    saved = torch.load(parts.checkpoint_path(4), weights_only=True)
    torch.save({**saved, "config": config.to_dict()}, parts.checkpoint_path(4))
    train_loop(config, images, parts, fabric, Options(labels=LABELS, resume=True, scorer=Scorer("swd", score)))
    assert straight.checkpoints()[-1].read_bytes() == parts.checkpoints()[-1].read_bytes()
    lines = [[line for line in run.stats() if line["kind"] == "scores"] for run in (straight, parts)]
    assert lines[0] == lines[1]
    grids = [{path.name: path.read_bytes() for path in (run.path / "grids").iterdir()} for run in (straight, parts)]
    assert grids[0] == grids[1]
    np.testing.assert_array_equal(seen, [[36, 21, 9]] * 4)  # natural shares


def test_the_plan_counts_what_classes_add(tiny_config, images):
    from torch.utils.flop_counter import FlopCounterMode

    network = {"generator_attention": [], "discriminator_attention": [], "spectral_norm": "none"}
    plain = tiny_config.override({"network": network})
    config = plain.override(THREE)
    state, cost, without = TrainingState(config, CPU), plan(config), plan(plain)
    for name in ("generator", "discriminator"):
        assert getattr(cost, f"{name}_parameters") == sum(p.numel() for p in getattr(state, name).parameters())
    added = cost.discriminator_parameters - without.discriminator_parameters
    assert added == 3 * 8  # features after the last block
    assert cost.generator_parameters - without.generator_parameters == 3 * 8 + 8 * 8 * 16
    with FlopCounterMode(display=False) as counter:
        train_step(state, Sampler(images, config, CPU, labels=LABELS)(0))
    assert cost.flops_per_step == counter.get_total_flops() > without.flops_per_step


@pytest.mark.slow
def test_learns_what_tells_two_classes_apart(tmp_path):
    """Dark images are one class, bright ones the other: after seconds of training each label makes its own."""
    draw = np.random.default_rng(0)
    means = np.repeat([60, 190], [40, 8])  # the second class is rare
    images = (means[:, None, None, None] + draw.normal(0, 20, (48, 1, 32, 32))).clip(0, 255).astype(np.uint8)
    config = preset_config("samgan-plus", "cpu", 32).override(
        {
            "network": {"max_channels": 16, "channel_base": 256, "num_classes": 2},
            "data.class_sampling": "balanced",
            "training": {"kimg": 0.8, "precision": "fp32", "augment_target": 0, "ema_halflife_kimg": 0.05},
        }
    )
    run = new_run(tmp_path / "run", config)
    state = train_loop(config, images, run, make_fabric("cpu"), Options(labels=(means > 100).astype(int)))
    latents = latents_of_seeds(range(32), 16)
    dark, bright = (
        torch.cat([p[-1] for p in generate(state.sampling_generator, latents, torch.full((32,), label))])
        for label in (0, 1)
    )
    dark, bright = (to_uint8(made).float().mean(dim=(1, 2, 3)) for made in (dark, bright))
    assert dark.median() < 100
    assert bright.median() > 150
    assert torch.cat([dark < 125, bright > 125]).float().mean() > 0.95


# ---- from a prepared set to scores


TINY = {
    "network": {"max_channels": 16, "channel_base": 256},
    "training": {"batch_size": 4, "kimg": 0.008, "snapshot_every_kimg": 1, "precision": "fp32", "augment_target": 0},
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Prepared sets: of two classes, the second one rare; of one; of two of which one is held out."""
    folder, draw = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name, count, mean in (("NORMAL", 24, 60), ("PNEUMONIA", 54, 190)):
        for number in range(count):
            pixels = (mean + draw.normal(0, 20, (32, 32))).clip(0, 255).astype(np.uint8)
            for path in (
                f"both/{name}",
                *([f"one/{name}"] if name == "NORMAL" else []),
                f"out/{'test' if mean > 99 else 'train'}/{name}",
            ):
                (folder / path).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / path / f"{name}{number}.png")
    return {
        name: prepare(folder / name, folder / f"{name}-32", resolution=32, workers=1, holdout=0.0)
        for name in ("both", "one", "out")
    }


@pytest.fixture(scope="module")
def trained(sets, tmp_path_factory):
    return api.train(
        preset_config().override({"network.resolution": 32, **TINY}),
        sets["both"],
        tmp_path_factory.mktemp("trained") / "run",
        quiet=True,
    )


def resolved(config, data, **settings):
    config = choose_classes(config.override(settings), data)
    return config.network.num_classes, config.data.classes


def test_the_number_of_classes_is_that_of_the_data_unless_said_otherwise(sets):
    plus, row = preset_config(), preset_config("samgan-8", "cpu")
    names = ("NORMAL", "PNEUMONIA")
    assert resolved(plus, sets["both"]) == (2, names)
    assert resolved(plus, sets["one"]) == (0, ())
    assert resolved(plus, sets["out"]) == (0, ())  # one class has training images
    assert resolved(plus, sets["both"], **{"data.classes": ["PNEUMONIA"]}) == (0, ("PNEUMONIA",))
    assert resolved(plus, sets["both"], **{"data.classes": ["PNEUMONIA", "NORMAL"]}) == (2, names[::-1])
    assert resolved(plus, sets["both"], **{"network.num_classes": 0}) == (0, ())
    assert resolved(row, sets["both"]) == (0, ())  # the paper's networks know no classes
    assert resolved(row, sets["both"], **{"network.num_classes": 2}) == (2, names)
    for data, settings, message in (
        ("both", {"network.num_classes": 3}, "num_classes: 3 is not allowed; expected 2, for the classes NORMAL, PNEU"),
        ("one", {"network.num_classes": 2}, "num_classes: 2 is not allowed; expected 0, for the classes NORMAL"),
        ("one", {"data.class_sampling": "balanced"}, "'balanced' is not allowed; expected natural without classes"),
        ("out", {"data.classes": list(names)}, "class PNEUMONIA of .* has no images to train on; leave it out"),
        ("both", {"data.classes": ["COVID"]}, "unknown class COVID"),
    ):
        with pytest.raises(UsageError, match=message):
            resolved(plus, sets[data], **settings)


def test_epochs_are_passes_over_the_training_images(sets):
    config = preset_config("samgan-8", "cpu").override({"training.epochs": 500})
    images = len(sets["both"].indices("train"))
    assert choose_length(config, sets["both"]).training.kimg == pytest.approx(0.5 * images)
    assert choose_length(config, sets["both"]).training.epochs is None
    doubled = choose_length(config.override({"data.flip": "double"}), sets["both"])
    assert doubled.training.kimg == pytest.approx(images)
    one = choose_length(config.override({"data.classes": ["PNEUMONIA"]}), sets["both"])
    assert one.training.kimg == pytest.approx(0.5 * len(sets["both"].indices("train", ["PNEUMONIA"])))
    with pytest.raises(UsageError, match="name the prepared set"):
        plan(config)


def test_a_run_keeps_what_was_resolved_and_goes_on_with_it(sets, trained, tmp_path):
    kept = trained.config
    assert (kept.network.num_classes, kept.data.classes) == (2, ("NORMAL", "PNEUMONIA"))
    shutil.copytree(trained.path, tmp_path / "run")
    open_config = preset_config().override({"network.resolution": 32, **TINY, "training.kimg": 0.012})
    assert api.train(open_config, sets["both"], tmp_path / "run", resume=True, quiet=True).last_step() == 3
    with pytest.raises(UsageError, match=r"network\.num_classes is 2, not 0"):
        api.train(open_config.override({"network.num_classes": 0}), sets["both"], tmp_path / "run", resume=True)


def test_networks_of_another_run_keep_the_places_of_its_classes(sets, trained, tmp_path, capsys):
    """They know a class by its number."""
    config = preset_config().override({"network.resolution": 32, **TINY})
    turned = config.override({"data.classes": ["PNEUMONIA", "NORMAL"]})
    with pytest.raises(UsageError, match=r"PNEUMONIA has another place here: give --classes NORMAL PNEUMONIA"):
        api.train(turned, sets["both"], tmp_path / "run", start=trained.path, quiet=True)
    assert not (tmp_path / "run").exists()
    before = trained.config.override({"data.classes": ["COVID", "PNEUMONIA"]})
    with pytest.raises(UsageError, match=r"PNEUMONIA has another place here: give --classes NORMAL PNEUMONIA$"):
        check_start(trained.config.override({"data.classes": ["PNEUMONIA", "NORMAL"]}), before)
    check_start(trained.config, before)
    say_new_classes(trained.config, before)
    assert capsys.readouterr().err == "samgan: class NORMAL begins as COVID of that run\n"


def test_a_run_from_before_there_were_classes_goes_on_without(sets, tmp_path):
    config = preset_config().override({"network.resolution": 32, **TINY})
    run = api.train(config.override({"network.num_classes": 0}), sets["both"], tmp_path / "run", quiet=True)

    def as_it_was(document):
        for section, name in (("network", "num_classes"), ("data", "class_sampling")):
            del document[section][name]
        return document

    path = run.checkpoints()[-1]
    (run.path / "config.json").write_text(json.dumps(as_it_was(json.loads((run.path / "config.json").read_text()))))
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, "config": as_it_was(saved["config"])}, path)
    assert not run.config.network.num_classes
    assert load_model(run).classes == ()
    longer = {"training.kimg": 0.012}
    for command in (run.config.override(longer), config.override(longer)):  # --resume alone, and the same command
        assert api.train(command, sets["both"], run.path, resume=True, quiet=True).last_step() == 3
    assert Run.open(run.path).config.network.num_classes == 0


def test_one_class_can_be_asked_for(capsys, trained, tmp_path):
    command = ["sample", str(trained.path), "--count", "3", "--seed", "5"]
    assert main([*command, "--class", "PNEUMONIA", "--out", str(tmp_path / "one")]) == 0
    assert "3 synthetic images, seeds 5 to 7: 3 PNEUMONIA" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "all")]) == 0
    assert "seeds 5 to 7: 1 NORMAL, 2 PNEUMONIA" in capsys.readouterr().out
    one, every = ([path.read_bytes() for path in sorted((tmp_path / name).glob("*.png"))] for name in ("one", "all"))
    assert [a == b for a, b in zip(one, every, strict=True)] == [True, False, True]
    assert main([*command, "--class", "COVID", "--out", str(tmp_path / "none")]) == 2
    assert "class COVID: expected one of the model's classes (NORMAL, PNEUMONIA)" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    api.export(trained.path, tmp_path / "model.safetensors")
    api.sample(tmp_path / "model.safetensors", tmp_path / "exported", 3, seed=5, class_name="PNEUMONIA")
    assert [path.read_bytes() for path in sorted((tmp_path / "exported").glob("*.png"))] == one


def test_a_run_is_scored_in_the_proportions_of_the_data_and_by_class(trained, sets, tmp_path, monkeypatch):
    def load_features(*_, **__):
        raise FeaturesUnavailable("no weights here")

    monkeypatch.setattr("samgan.metrics.load_features.load_features", load_features)
    drawn = []
    original = samgan.sampling.source.sample_batches
    monkeypatch.setattr(
        "samgan.sampling.source.sample_batches", lambda *given: (drawn.append(given[2].tolist()), original(*given))[1]
    )
    scores, report = api.evaluate(trained.path, sets["both"], out=tmp_path / "scores")
    assert drawn == [[0] * 12 + [1] * 27]  # half of 24 and of 54
    assert {name: own.count for name, own in scores.classes.items()} == {"NORMAL": 12, "PNEUMONIA": 27}
    assert scores.classes["NORMAL"].scores["swd"].floor > 0
    assert "PNEUMONIA" in report.read_text()
    scores, _ = api.evaluate(trained.path, sets["both"], out=tmp_path / "scores", protocol="paper")
    assert drawn.pop() == [0] * 24 + [1] * 54
    assert {name: (own.count, own.floor_count) for name, own in scores.classes.items()} == {
        "NORMAL": (24, 12),
        "PNEUMONIA": (54, 27),
    }
    scores, _ = api.evaluate(trained.path, sets["both"], out=tmp_path / "scores", classes=["PNEUMONIA"])
    assert (drawn[1], list(scores.classes)) == ([1] * 27, ["PNEUMONIA"])
    scores, _ = api.evaluate(trained.path, sets["both"], out=tmp_path / "scores", count=20)
    assert scores.classes["NORMAL"] is None
    assert scores.skipped[-1].score == "class NORMAL"
    with pytest.raises(UsageError, match="unknown class COVID"):
        api.evaluate(trained.path, sets["both"], classes=["COVID"])


def test_quick_scores_have_the_gap_of_each_class(trained):
    (line,) = [line for line in trained.stats() if line["kind"] == "scores"]
    assert set(line["ms_ssim_gap_by_class"]) == {"NORMAL", "PNEUMONIA"}
    assert line["quick_score"] > 0
    with Image.open(trained.grid_path(8)) as grid:
        pixels = np.asarray(grid)
    own = [pixels[33 * row : 33 * row + 32, :32] for row in (0, 4)]  # the first of each class: seeds 0 and 1
    model = load_model(trained, device=choose_device("auto"))  # where it was trained: another rounds otherwise
    np.testing.assert_array_equal(own, to_uint8(sample(model, [0, 1]))[:, 0])


def test_dry_run_plans_for_the_classes_of_the_data(capsys, sets):
    command = ["train", "--dry-run", "--json", "--network.resolution=32", "--network.max_channels=8"]
    command += ["--network.channel_base=256", "--training.batch_size=4"]
    assert main([*command, str(sets["both"].path)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["config"]["network"]["num_classes"] == 2
    of_none = Generator(Config.from_dict(plan["config"]).override({"network.num_classes": 0}).network)
    assert plan["generator_parameters"] > sum(parameter.numel() for parameter in of_none.parameters())
