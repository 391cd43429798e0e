"""A prepared set is opened, checked and looked through."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from samgan.data import PreparedSet, dataset, prepare, write
from samgan.errors import SamganError, UsageError


@pytest.fixture
def folder(tmp_path, twelve_phantoms):
    """Twelve phantoms of two classes, to change at will."""
    return shutil.copytree(twelve_phantoms, tmp_path / "set")


def prepare_here(source, out, **options):
    return prepare(source, out, **{"resolution": 16, "workers": 1} | options)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_indices_and_select_by_split_and_class(folder, tmp_path):
    prepared = prepare_here(folder, tmp_path / "out", holdout=0.3)
    train, holdout = prepared.indices("train"), prepared.indices("holdout")
    assert sorted([*train, *holdout]) == list(range(12)) == prepared.indices(None).tolist()
    normal = prepared.indices(None, ["NORMAL"])
    assert [prepared.manifest[index].class_name for index in normal] == ["NORMAL"] * 6
    np.testing.assert_array_equal(
        prepared.select("holdout", ["NORMAL"]), prepared.images[np.intersect1d(holdout, normal)]
    )
    for classes in (["NORMAL", "PNEUMONIA"], ["PNEUMONIA"]):
        names = [[*classes, "another"][label] for label in prepared.labels(classes)]
        assert names == [row.class_name if row.class_name in classes else "another" for row in prepared.manifest]
    selected = prepared.select()
    selected[:] = 0
    assert prepared.images[train].any()  # a copy
    with pytest.raises(UsageError, match=r"unknown class COVID: .* has NORMAL, PNEUMONIA"):
        prepared.indices("train", ["NORMAL", "COVID"])
    with pytest.raises(UsageError, match="unknown split 'test'"):
        prepared.indices("test")


def truncate(out):
    data = (out / "images.npy").read_bytes()
    (out / "images.npy").write_bytes(data[:-100])


def shorten_manifest(out):
    lines = (out / "manifest.csv").read_text().splitlines(keepends=True)
    (out / "manifest.csv").write_text("".join(lines[:-1]))


def set_key(name, value):
    def change(out):
        info = json.loads((out / "dataset.json").read_text())
        (out / "dataset.json").write_text(json.dumps(info | {name: value}))

    return change


def declare_less_than_none(out):
    """Let the header tell a length below 0, of which nothing can be mapped."""
    data = (out / "images.npy").read_bytes()
    (out / "images.npy").write_bytes(data.replace(b"(12, ", b"(-1, ", 1))


def replace_by_npz(out):
    np.savez(out / "images.npz", np.load(out / "images.npy"))
    (out / "images.npz").replace(out / "images.npy")


def lengthen_header(out):
    data = (out / "images.npy").read_bytes()
    (out / "images.npy").write_bytes(data[:8] + b"\xff\xff" + data[10:] + bytes(70_000))


def break_header(out):
    data = (out / "images.npy").read_bytes()
    (out / "images.npy").write_bytes(data.replace(b"}", b"{", 1))


DAMAGES = {
    "images cut": (truncate, "damaged"),
    "manifest cut": (shorten_manifest, "manifest.csv has 11 rows"),
    "other format": (set_key("format", 2), "expected a prepared set of format 1, found 2"),
    "no json": (lambda out: (out / "dataset.json").write_text("{"), "is not valid JSON"),
    "deep json": (lambda out: (out / "dataset.json").write_text("[" * 100_000), "is not valid JSON"),
    "a list": (lambda out: (out / "dataset.json").write_text("[]"), "found 'list'"),
    "no images": (lambda out: (out / "images.npy").unlink(), "damaged"),
    "pickled images": (lambda out: np.save(out / "images.npy", np.array([{}]), allow_pickle=True), "damaged"),
    "broken header": (break_header, "damaged"),
    "long header": (lengthen_header, "damaged"),
    "empty images": (lambda out: (out / "images.npy").write_bytes(b""), "damaged"),
    "a negative length": (declare_less_than_none, "damaged"),
    "other splits": (
        set_key("counts", {"NORMAL": {"holdout": 0, "1": 6}, "PNEUMONIA": {}}),
        "expected train and holdout",
    ),
    "an npz": (replace_by_npz, "damaged"),
    "other images": (lambda out: np.save(out / "images.npy", np.zeros((12, 1, 8, 8), np.uint8)), "images.npy holds"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_set_is_not_opened_and_can_be_prepared_again(folder, tmp_path, name):
    damage, message = DAMAGES[name]
    expected = prepare_here(folder, tmp_path / "out").sha256
    damage(tmp_path / "out")
    with pytest.raises(SamganError, match=message) as caught:
        PreparedSet.open(tmp_path / "out")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"the same command with --replace writes a new set there"):
        prepare_here(folder, tmp_path / "out")
    assert prepare_here(folder, tmp_path / "out", replace=True).sha256 == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("images", "channels", "resolution", "classes", "counts", "split_by", "sha256")),
        *[("source", None), ("fingerprint", None), ("left_out", "x"), ("options", {"holdout": "0.2"})],
        *[("resolution", "16"), ("channels", True), ("images", 12.5), ("sha256", 1), ("split_by", ["image"])],
        *[("classes", "NORMAL"), ("classes", ["NORMAL", 1]), ("counts", []), ("counts", {"NORMAL": 6})],
        *[("counts", {"NORMAL": {"train": "6"}}), ("counts", {"NORMAL": {"train": 6}}), ("subset_of", {"name": "a"})],
    ],
)
def test_dataset_json_with_wrong_values_is_damaged(folder, tmp_path, name, value):
    prepare_here(folder, tmp_path / "out")
    set_key(name, value)(tmp_path / "out")
    with pytest.raises(SamganError, match=rf"dataset.json is damaged: .*{name}.*: prepare it again") as caught:
        PreparedSet.open(tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "..", "a/b", ""])
def test_a_class_that_is_a_path_is_damage(folder, tmp_path, name):
    prepare_here(folder, tmp_path / "out")
    set_key("classes", [name])(tmp_path / "out")
    with pytest.raises(SamganError, match="is not the name of a class"):
        PreparedSet.open(tmp_path / "out")


def test_an_older_set_may_lack_what_is_told_since(folder, tmp_path):
    prepared = prepare_here(folder, tmp_path / "out")
    info = json.loads((tmp_path / "out/dataset.json").read_text())
    assert json.loads(json.dumps(prepared.info.to_dict())) == info
    for name in ("source_id", "groups_on_both_sides", "enlarged"):
        del info[name]
    (tmp_path / "out/dataset.json").write_text(json.dumps(info | {"near_duplicates_across_splits": 0}))
    old = PreparedSet.open(tmp_path / "out")
    assert (old.info.source_id, old.info.groups_on_both_sides, old.info.enlarged) == (None, None, None)
    assert json.loads(json.dumps(old.info.to_dict())) == info
    old.verify()


def change_row(name, value):
    def change(out):
        rows = list(csv.DictReader((out / "manifest.csv").read_text().splitlines()))
        rows[3][name] = value
        lines = [",".join(row.values()) for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]]
        (out / "manifest.csv").write_text("\n".join(lines) + "\n")

    return change


MANIFEST_DAMAGES = {
    "a number": (change_row("width", "wide"), r"manifest.csv, line 5: .*'wide'"),
    "a split": (change_row("split", "../.."), r"unknown split '\.\./\.\.'"),
    "a class": (change_row("class", "COVID"), "unknown class 'COVID'"),
    "an absolute source": (change_row("source", "/etc/hostname"), "the source '/etc/hostname', which is outside"),
    "a source above": (change_row("source", "A/../../x.png"), r"the source 'A/\.\./\.\./x.png', which is outside"),
    "a neighbour": (change_row("near_duplicate_of", "12"), "unknown near_duplicate_of 12"),
    "a short row": (change_row("patient", "x\n"), "manifest.csv, line 5: tuple index out of range|index out of range"),
    "a column": (lambda out: (out / "manifest.csv").write_text("index,source\n"), "there is no column bits, class"),
    "empty": (lambda out: (out / "manifest.csv").write_text(""), "there is no column bits, class"),
    "no text": (lambda out: (out / "manifest.csv").write_bytes(bytes(100)), "manifest.csv, line 1"),
}


@pytest.mark.parametrize("name", MANIFEST_DAMAGES)
def test_a_manifest_that_was_changed_is_damaged(folder, tmp_path, name):
    prepare_here(folder, tmp_path / "out")
    damage, message = MANIFEST_DAMAGES[name]
    damage(tmp_path / "out")
    with pytest.raises(SamganError, match=f"is damaged: .*{message}.*: prepare it again") as caught:
        PreparedSet.open(tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["images.npy", "manifest.csv"])
def test_changed_bytes_are_found_by_verify_and_prepared_again(folder, tmp_path, name):
    prepared = prepare_here(folder, tmp_path / "out")
    prepared.verify()
    data = bytearray((tmp_path / "out" / name).read_bytes())
    data[-10] ^= 1
    (tmp_path / "out" / name).write_bytes(data)
    changed = PreparedSet.open(tmp_path / "out")
    found = dataset.content_sha256(tmp_path / "out")
    with pytest.raises(SamganError, match=rf"out is damaged: .* {prepared.sha256[:12]}, .* {found[:12]}: prepare it"):
        changed.verify()
    prepare_here(folder, tmp_path / "out").verify()
    (tmp_path / "out" / name).unlink()
    with pytest.raises(SamganError, match=rf"damaged.*{name}.*prepare it again"):
        changed.verify()


def test_manifest_has_the_columns_in_order(folder, tmp_path):
    prepare_here(folder, tmp_path / "out")
    with open(tmp_path / "out/manifest.csv", newline="") as file:
        header = next(csv.reader(file))
    assert ",".join(header) == "index,source,sha256,width,height,bits,class,patient,split,near_duplicate_of"


def test_some_images_of_a_map_are_those_of_the_array(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.lib.format.open_memmap(tmp_path / "images.npy", mode="r")
    monkeypatch.setattr(dataset, "READ_AT_ONCE", 1000)  # five images
    for indices in (np.array([7, 3, 3, 39]), np.arange(40)[::-1], np.array([], int)):
        for source in (images, mapped, mapped[2:]):
            taken = dataset.take(source, indices % len(source))
            np.testing.assert_array_equal(taken, source[indices % len(source)])
            assert type(taken) is np.ndarray
            assert taken.flags.writeable


def test_more_images_than_there_is_memory_for_are_refused_in_one_line(folder, tmp_path, monkeypatch):
    prepared = prepare_here(folder, tmp_path / "out")
    monkeypatch.setattr(dataset, "ASK_FROM", 0)
    monkeypatch.setattr("samgan.data.room.free_memory", lambda: 100)
    with pytest.raises(SamganError, match=r"^12 images of 16 px from .* 0\.0 GB are free: choose .*samgan subset"):
        prepared.select(None)


PEAK = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from samgan.config import Config
from samgan.data import PreparedSet
from samgan.training import Sampler

def memory(name):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024

torch.set_num_threads(1)
before = memory("VmRSS")
data = PreparedSet.open(sys.argv[1])
config = Config().override({"network": {"resolution": 512}, "training.batch_size": 4})
sampler = Sampler(data.images, config, torch.device("cpu"), data.indices("train"))
for step in range(150):
    sampler(step)
print(json.dumps([data.images.nbytes, memory("VmHWM") - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_a_set_of_gigabytes_costs_no_memory(folder, tmp_path, run_script):
    """A sparse file of 1.3 GB; 157 MB of it are read."""
    out, count = tmp_path / "out", 5_000
    prepare_here(folder, out, holdout=0.0)
    with open(out / "images.npy", "wb") as file:
        write.write_images(file, (count, 1, 512, 512), ())
        file.truncate(file.tell() + count * 512**2)
    info = json.loads((out / "dataset.json").read_text()) | {"images": count, "resolution": 512}
    (out / "dataset.json").write_text(json.dumps(info))
    lines = (out / "manifest.csv").read_text().splitlines()
    cells = [line.split(",", 1)[1] for line in lines[1:]]
    table = [lines[0], *(f"{index},{cells[index % 12]}" for index in range(count))]
    (out / "manifest.csv").write_text("\n".join(table) + "\n")
    size, grown = run_script(PEAK, out)
    assert size > 1.3e9
    assert grown < 1e8


def test_the_name_of_a_set_is_no_set(run_script):
    """In a process of its own, since annotations are checked in this one."""
    said = run_script(
        "import json, samgan, samgan.studies, samgan.trust\nfrom samgan.data.inspection import inspect\n"
        "said, data, config = [], 'xrays-64', samgan.preset_config('samgan-plus')\n"
        "for use in (lambda: samgan.train(config, data, 'run'), lambda: samgan.evaluate('run', data),\n"
        "            lambda: samgan.trust.audit('run', data), lambda: samgan.studies.balance(data, 'out'),\n"
        "            lambda: inspect(data)):\n"
        "    try:\n        use()\n"
        "    except samgan.UsageError as error:\n        said.append(str(error))\n"
        "print(json.dumps(said))"
    )
    assert said == ["data: expected a prepared set, found 'xrays-64'; open it with samgan.PreparedSet.open"] * 5
