"""Verification: only an image made again counts as proven, and whatever was changed is found."""

import dataclasses
import json

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from samgan import api
from samgan.commands.main import main
from samgan.networks import Generator
from samgan.pictures import write_png
from samgan.provenance import Mark, read_samples
from samgan.runs import Run, save_checkpoint
from samgan.sampling import FORWARD_BATCH, load_model, sample, write_samples
from samgan.trust import Finding, format_findings, verify_files


def make_run(path, config, steps=(2, 4)):
    """A run with a checkpoint of other weights at each step."""
    run = Run.create(path, config)
    for step in steps:
        torch.manual_seed(step)
        weights = Generator(config.network).state_dict()
        state = {"config": config.to_dict(), "step": step, "images_seen": 4 * step}
        save_checkpoint(run.checkpoint_path(step), {**state, "generator": weights, "ema_generator": weights})
    return run


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    config = tiny_config.override({"preset": "tiny", "data.classes": ["PNEUMONIA"]})
    return make_run(tmp_path_factory.mktemp("verification") / "run", config)


@pytest.fixture(scope="module")
def model(run):
    return load_model(run)


@pytest.fixture(scope="module")
def folder(run, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    for name in ("png", "png16", "dicom", "dicom16", "npz", "medmnist", "imagefolder"):
        write_samples(model, folder / name, 3, seed=40, file_format=name, sheets=["grid"])
    return folder


def verdicts(*paths, run=None):
    return [finding.verdict for finding in api.verify(paths, run, device="cpu")]


def rewrite(source, target, image=None, **changes):
    """A PNG with other pixels, or another mark, and a mark that fits its pixels."""
    ((old, mark),) = read_samples(source)
    image = old if image is None else image
    with open(target, "wb") as file:
        write_png(file, image, dataclasses.replace(mark, **changes).of(image).entries())
    return target


def test_samples_of_every_format_are_regenerated(run, folder):
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".dcm", ".npz"))
    paths = [path for path in paths if path.parent.name != "sheets"]
    findings = api.verify(paths, run.path, device="cpu")
    assert len(paths) == 5 * 3 + 2
    assert [finding.verdict for finding in findings] == ["regenerated"] * 21
    assert {finding.difference for finding in findings} == {0}
    assert [finding.mark.seed for finding in findings] == [40, 41, 42] * 7
    assert [finding.row for finding in findings].count(None) == 15
    assert set(verdicts(*paths)) == {"marked"}


def test_an_image_that_no_seed_makes_is_checked_and_not_made_again(run, folder, tmp_path):
    source = folder / "png" / "seed-00000040.png"
    beside = rewrite(source, tmp_path / "beside.png", latent="neighbour 2 of seed 40, 20 degrees away")
    assert verdicts(beside) == ["marked"]
    (finding,) = api.verify([beside], run.path, device="cpu")
    assert finding.verdict == "not checked"
    assert "degrees away, class PNEUMONIA: not checked: not the image of a seed" in format_findings([finding])
    ((image, mark),) = read_samples(beside)
    with open(beside, "wb") as file:
        write_png(file, image ^ 1, mark.entries())
    assert verdicts(beside) == verdicts(beside, run=run.path) == ["altered"]


def test_images_of_a_run_with_classes_are_made_again_as_the_class_they_say(tiny_config, tmp_path):
    config = tiny_config.override({"network.num_classes": 3, "data.classes": ["a", "b", "c"]})
    run = make_run(tmp_path / "run", config)
    model = load_model(run)
    for name in ("png", "dicom", "npz", "medmnist"):
        for class_name in (None, "b"):
            write_samples(model, tmp_path / f"{name}-{class_name}", 4, file_format=name, class_name=class_name)
    paths = sorted(path for path in tmp_path.glob("*-*/*") if path.suffix != ".json")
    findings = api.verify(paths, run.path, device="cpu")
    assert {finding.verdict for finding in findings} == {"regenerated"}
    classes = [[f.mark.class_name for f in findings if f"-{which}/" in f.file] for which in (None, "b")]
    assert classes == [["a", "b", "c", "a"] * 4, ["b"] * 16]
    first = tmp_path / "png-None" / "seed-00000000.png"
    others = [rewrite(first, tmp_path / f"{name or 'none'}.png", class_name=name) for name in ("b", "", "d")]
    # Of another class it would be another image; what names none of the model's is compared with the class in turn.
    assert verdicts(*others, run=run.path) == ["differs", "regenerated", "altered"]


def test_an_image_is_found_whatever_stood_beside_it_when_it_was_made(run, model, tmp_path):
    write_samples(model, tmp_path / "out", FORWARD_BATCH + 8)
    names = sorted((tmp_path / "out").glob("*.png"))
    assert verdicts(names[33], run=run.path) == ["regenerated"]
    assert verdicts(*names[::-1], run=run.path) == ["regenerated"] * (FORWARD_BATCH + 8)


def test_the_checkpoint_is_found_by_its_hash(run, folder, tmp_path):
    older, _ = run.checkpoints()
    write_samples(load_model(run, str(older)), tmp_path / "older", 1)
    mixed = [tmp_path / "older" / "seed-00000000.png", folder / "png" / "seed-00000040.png"]
    findings = api.verify(mixed, run.path, device="cpu")
    assert [(finding.verdict, finding.mark.images_seen) for finding in findings] == [
        ("regenerated", 8),
        ("regenerated", 16),
    ]
    api.export(run.path, tmp_path / "older.safetensors", checkpoint=str(older))
    assert verdicts(*mixed, run=tmp_path / "older.safetensors") == ["regenerated", "another model"]


def test_models_are_read_as_far_as_needed(run, folder, model):
    def models():
        yield model
        pytest.fail("read on")

    (finding,) = verify_files([folder / "png" / "seed-00000040.png"], models())
    assert finding.verdict == "regenerated"


def test_another_run_made_other_images(run, folder, tiny_config, tmp_path):
    other = make_run(tmp_path / "other", tiny_config, steps=[3])
    assert verdicts(folder / "png" / "seed-00000040.png", run=other.path) == ["another model"]


@pytest.mark.parametrize("name", ["png", "png16"])
def test_one_level_in_one_pixel_is_found(run, folder, tmp_path, name):
    source = folder / name / "seed-00000040.png"
    ((image, mark),) = read_samples(source)
    changed = image.copy()
    changed[0, 5, 5] ^= 1
    with open(tmp_path / "a.png", "wb") as file:
        write_png(file, changed, mark.entries())
    assert verdicts(tmp_path / "a.png") == ["altered"]
    (finding,) = api.verify([tmp_path / "a.png"], run.path, device="cpu")
    assert (finding.verdict, finding.difference, finding.ok) == ("differs", 1, False)
    assert f"by up to 1 of {np.iinfo(image.dtype).max} grey levels, in 1 of 1024 values" in finding.detail


def test_a_changed_pixel_of_dicom_and_of_one_row_is_found(run, folder, tmp_path):
    dataset = pydicom.dcmread(folder / "dicom" / "seed-00000040.dcm")
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 4]) + dataset.PixelData[1:]
    dataset.save_as(tmp_path / "a.dcm")
    with np.load(folder / "npz" / "samples.npz") as archive:
        arrays = dict(archive)
    arrays["images"][1, 0, 0, 0] ^= 4
    np.savez(tmp_path / "a.npz", **arrays)
    assert verdicts(tmp_path / "a.dcm", tmp_path / "a.npz") == ["altered", "marked", "altered", "marked"]
    findings = api.verify([tmp_path / "a.dcm", tmp_path / "a.npz"], run.path, device="cpu")
    assert [finding.difference for finding in findings] == [4, 0, 4, 0]
    assert [finding.ok for finding in findings] == [False, True, False, True]
    assert "  row 1: synthetic, preset tiny, 0.016 kimg" in format_findings(findings)


def rearrange(source, target, changes):
    """An archive with other arrays."""
    with np.load(source) as archive:
        arrays = dict(archive)
    changed = {name: change(arrays) if callable(change) else change for name, change in changes.items()}
    np.savez(target, **{**arrays, **changed})
    return target


FOREIGN = np.zeros((50, 32, 32), np.uint8)


@pytest.mark.parametrize(
    ("name", "changes", "faults"),
    [
        (
            "npz/samples",
            {"seeds": lambda old: old["seeds"] + 1000},
            ["seeds says 10{row}, and its mark says {row}"] * 3,
        ),
        ("npz/samples", {"seeds": np.zeros(2)}, ["its seeds has not one row for each image"] * 3),
        ("npz/samples", {"seeds": np.array(40)}, ["its seeds has not one row for each image"] * 3),
        (
            "npz/samples",
            {"classes": np.array(["PNEUMONIA", "NORMAL", "PNEUMONIA"])},
            ["", "classes says NORMAL, and its mark says PNEUMONIA", ""],
        ),
        ("npz/samples", {"train_images": FOREIGN}, ["arrays beside those of its format: train_images"] * 3),
        ("medmnist/medmnist", {"images_64": FOREIGN}, ["arrays beside those of its format: images_64"] * 3),
        ("medmnist/medmnist", {"test_images": FOREIGN}, ["its test_images is not empty"] * 3),
        ("medmnist/medmnist", {"val_labels": np.zeros((1, 1))}, ["its val_labels is not empty"] * 3),
        (
            "medmnist/medmnist",
            {"train_labels": np.array([[7], [1], [1]], np.uint8)},
            ["train_labels says [7], and its mark says [1]", "", ""],
        ),
        (
            "medmnist/medmnist",
            {"provenance": lambda old: str(old["provenance"]).replace('"PNEUMONIA": 1', '"NORMAL": 1')},
            ["its Labels are not the numbers of the classes"] * 3,
        ),
    ],
)
def test_what_an_archive_says_beside_its_marks_must_be_what_they_say(run, folder, tmp_path, name, changes, faults):
    path = rearrange(folder / f"{name}.npz", tmp_path / "a.npz", changes)
    for findings in (api.verify([path]), api.verify([path], run.path, device="cpu")):
        assert [finding.verdict for finding in findings] == [
            "altered" if fault else "regenerated" if findings[0].difference == 0 else "marked" for fault in faults
        ]
        for row, (finding, fault) in enumerate(zip(findings, faults, strict=True)):
            assert fault.format(row=40 + row) in finding.detail


def test_a_mark_without_a_hash_is_checked_only_by_making_the_image_again(run, folder, tmp_path):
    source = folder / "png" / "seed-00000040.png"
    ((image, mark),) = read_samples(source)
    painted = image.copy()
    painted[0, :9, :9] = 255
    entries = dataclasses.replace(mark, pixels_sha256="").entries()
    for name, pixels in (("own", image), ("painted", painted)):
        with open(tmp_path / f"{name}.png", "wb") as file:
            write_png(file, pixels, entries)
    paths = [tmp_path / "own.png", tmp_path / "painted.png"]
    findings = api.verify(paths)
    assert {finding.verdict for finding in findings} == {"not checked"}
    assert "not checked: its mark has no hash of the pixels" in format_findings(findings)
    assert verdicts(*paths, run=run.path) == ["regenerated", "differs"]


def test_a_forged_mark_convinces_until_the_image_is_made_again(run, folder, tmp_path):
    """What a mark proves, and what it does not."""
    source = folder / "png" / "seed-00000040.png"
    someone = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    forged = rewrite(source, tmp_path / "a.png", someone)
    renumbered = rewrite(source, tmp_path / "b.png", seed=41)
    larger = rewrite(source, tmp_path / "c.png", np.zeros((1, 64, 64), np.uint8))
    assert verdicts(forged, renumbered, larger) == ["marked"] * 3
    findings = api.verify([forged, renumbered, larger], run.path, device="cpu")
    assert [finding.verdict for finding in findings] == ["differs"] * 3
    assert "the image has 64x64 px and 1 channel(s), those of the model have 32x32 px" in findings[2].detail


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"preset": "samgan-8"}, "Model-Preset"),
        ({"images_seen": 5}, "Model-Images-Seen"),
        ({"class_name": "x"}, "Class"),
    ],
)
def test_a_mark_that_says_more_than_is_true_is_found(run, folder, tmp_path, changes, key):
    path = rewrite(folder / "png" / "seed-00000040.png", tmp_path / "a.png", **changes)
    (finding,) = api.verify([path], run.path, device="cpu")
    assert (finding.verdict, finding.difference, finding.ok) == ("altered", 0, False)
    assert key in finding.detail


def test_a_mark_of_another_version_of_the_software_is_right(run, folder, tmp_path):
    path = rewrite(folder / "png" / "seed-00000040.png", tmp_path / "a.png", software="samgan 0.0.9")
    assert verdicts(path, run=run.path) == ["regenerated"]


def test_a_picture_that_lost_its_mark_has_none(run, folder, tmp_path):
    with Image.open(folder / "png" / "seed-00000040.png") as image:
        Image.fromarray(np.asarray(image)).save(tmp_path / "a.png")
    assert verdicts(tmp_path / "a.png", run=run.path) == ["no mark"]
    text = format_findings(api.verify([tmp_path / "a.png"]))
    assert text == f"{tmp_path / 'a.png'}: no mark of samgan"


def test_one_bad_file_does_not_keep_the_others_from_being_checked(run, folder, tmp_path):
    good = folder / "png" / "seed-00000040.png"
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    paths = [tmp_path / "cut.png", tmp_path / "none.png", folder / "png" / "sheets" / "grid.png", good]
    findings = api.verify(paths, run.path, device="cpu")
    assert [finding.verdict for finding in findings] == ["not checked"] * 3 + ["regenerated"]
    lines = format_findings(findings).splitlines()
    assert len(lines) == 5
    for line, reason in zip(lines, ("damaged", "there is no such file", "a sheet of several images"), strict=False):
        assert f": not checked: {reason}" in line
    assert lines[-1] == "all: 4 images: 3 not checked, 1 regenerated"


def test_what_others_wrote_does_not_reach_the_terminal(tmp_path):
    mark = Mark("a" * 64, "\x1b[2Jtiny", 16, 7, "a\nb")
    text = format_findings([Finding("a\x07.png", None, mark, "marked")])
    assert text.isprintable()
    assert r"\x1b[2Jtiny" in text


def test_a_checkpoint_that_cannot_be_read_is_passed_over(tiny_config, tmp_path):
    run = make_run(tmp_path / "run", tiny_config)
    write_samples(load_model(run, str(run.checkpoints()[0])), tmp_path / "out", 1)
    run.checkpoints()[-1].write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="skipped a checkpoint"):
        assert verdicts(tmp_path / "out" / "seed-00000000.png", run=run.path) == ["regenerated"]


def test_the_exit_status_says_whether_all_are_what_they_claim(capsys, run, folder, tmp_path):
    good = str(folder / "png" / "seed-00000040.png")
    bad = str(rewrite(folder / "png" / "seed-00000040.png", tmp_path / "a.png", seed=41))
    device = ["--run", str(run.path), "--device", "cpu"]
    assert main(["verify", good, bad]) == 0
    assert "as its mark says" in capsys.readouterr().out
    assert main(["verify", good, *device]) == 0
    assert capsys.readouterr().out.endswith(", seed 40, class PNEUMONIA: regenerated bit for bit\n")
    assert main(["verify", good, bad, *device, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["file"], one["verdict"], one["ok"]) for one in found] == [
        (good, "regenerated", True),
        (bad, "differs", False),
    ]
    assert (found[0]["mark"]["seed"], found[0]["mark"]["model_sha256"]) == (40, load_model(run).sha256)
    assert main(["verify", str(tmp_path / "none.png")]) == 1
    assert "there is no such file" in capsys.readouterr().out
    for wrong in (str(tmp_path), str(tmp_path / "none.safetensors")):
        assert main(["verify", good, "--run", wrong, "--device", "cpu"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("samgan: error: ")
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main(["verify"])
    assert stop.value.code == 2


def test_sampling_and_verification_take_the_same_path(run, folder, model):
    """The image that is compared with is that of `sample`, to the last bit."""
    ((image, _),) = read_samples(folder / "png16" / "seed-00000040.png")
    made = sample(model, [40])[0, 0].clamp(-1, 1).double()
    np.testing.assert_array_equal(image[0], ((made + 1) * 32767.5).round().numpy())
