"""Generate: pictures are those of `samgan sample`, with their marks; made by a process that may fail."""

import html
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette", reason="the studio is not installed: pip install 'samgan[studio]'")
pytest.importorskip("httpx", reason="starlette's client for tests needs httpx")
pytest.importorskip("uvicorn", reason="the studio is not installed: pip install 'samgan[studio]'")

from studio import make_client, make_worker, train

from samgan import api
from samgan.data import PreparedSet, prepare
from samgan.errors import SamganError, UsageError
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.nearest import nearest_image
from samgan.networks import Generator
from samgan.pictures import to_uint8
from samgan.provenance import read_samples
from samgan.sampling import MODEL_SUFFIX, SHIPPED, load_model, neighbours, sample
from samgan.sampling.model import MODEL_FORMAT
from samgan.studio import catalogue, models
from samgan.studio.catalogue import Catalogue
from samgan.studio.maker import Maker
from samgan.studio.models import find_models
from samgan.studio.places import Root
from samgan.studio.tasks import Made, Nearest, Seeds
from samgan.studio.worker import Worker, weights
from samgan.trust.nearest_training import RealSplit, nearest_by_pixels

PART = {"hx-request": "true"}


@pytest.fixture(scope="module")
def styled(tiny_config):
    """Settings of a conditional generator that has styles."""
    tree = {"network.num_classes": 2, "data.classes": ["NORMAL", "PNEUMONIA"], "network.mapping_layers": 1}
    return tiny_config.override(tree | {"network.generator_blocks": "modulated", "network.generator_attention": []})


@pytest.fixture(scope="module")
def root(tmp_path_factory, twelve_phantoms, styled, tiny_config):
    folder = tmp_path_factory.mktemp("generate")
    data = prepare(twelve_phantoms, folder / "set", resolution=32, workers=1)
    train(folder / "runs" / "a run", styled, sha256=data.info.sha256)
    train(folder / "plain", tiny_config, seed=1)
    api.export(folder / "plain", folder / "exports" / f"plain{MODEL_SUFFIX}")
    return folder


@pytest.fixture(scope="module")
def client(root):
    return make_client(root, worker=make_worker())


def made(client, **wanted):
    """The part of the page with pictures, and the addresses of these."""
    page = client.get(wanted.pop("path", "/generate"), params=wanted, headers=PART)
    assert page.status_code == 200
    found = dict.fromkeys(re.findall(r'src="(/generate/picture.png[^"]+)"', page.text))
    return page.text, [html.unescape(address) for address in found]


def test_models_are_runs_exports_and_those_that_come_with_samgan(root, client):
    (root / "empty" / "checkpoints").mkdir(parents=True, exist_ok=True)
    found = {model.place: model for model in find_models(Catalogue(Root(root)))}
    assert set(found) == {"runs/a run", "plain", f"exports/plain{MODEL_SUFFIX}", *SHIPPED}
    assert found["runs/a run"].classes == ("NORMAL", "PNEUMONIA")
    assert found["pneumonia-64"].trained_classes == ("PNEUMONIA",)
    page = client.get("/generate").text
    for place in found:
        assert f">{place}</a>" in page


def test_what_is_known_without_torch_is_what_torch_says(tiny_config):
    assert models.FORMAT == MODEL_FORMAT
    assert catalogue.MODEL_SUFFIX == MODEL_SUFFIX
    styled = [(blocks, layers) for blocks in ("modulated", "alias-free") for layers in (0, 1)]
    for blocks, layers in [("plain", 0), ("grouped", 0), *styled]:
        network = {"spectral_norm": "none", "generator_attention": []}
        config = tiny_config.override({"network": network | {"generator_blocks": blocks, "mapping_layers": layers}})
        known = models.FoundModel("", models.SHIPPED, "run", config, 0)
        assert known.can_truncate == Generator(config.network).has_styles == bool(layers), (blocks, layers)


@pytest.mark.parametrize(("class_name", "truncation"), [("", "1"), ("PNEUMONIA", "0,5")])
def test_pictures_are_the_files_of_samgan_sample(root, client, tmp_path, class_name, truncation):
    psi = float(truncation.replace(",", "."))
    out = tmp_path / "out"
    api.sample(root / "runs/a run", out, 5, seed=7, class_name=class_name or None, truncation=psi, device="cpu")
    wanted = {"model": "runs/a run", "class": class_name, "truncation": truncation, "seed": "7", "count": "5"}
    text, pictures = made(client, **wanted)
    assert len(pictures) == 5
    for seed, address in enumerate(pictures, 7):
        answer = client.get(address)
        assert answer.content == (out / f"seed-{seed:08d}.png").read_bytes()
        assert answer.headers["cache-control"] == "private, max-age=600"
    sha256 = load_model_of(root).sha256
    assert text.count(sha256[:12]) >= 5
    assert text.count("nearest training image") == 5
    assert "SYNTHETIC IMAGE" in text


def load_model_of(root):
    from samgan.runs import Run

    return load_model(Run.open(root / "runs/a run"))


@pytest.mark.parametrize("file_format", ["png", "png16", "dicom", "npz"])
@pytest.mark.parametrize("count", [1, 3])
def test_downloads_are_what_samgan_sample_writes(root, client, tmp_path, file_format, count):
    out = tmp_path / "out"
    api.sample(root / "runs/a run", out, count, seed=2, file_format=file_format, device="cpu")
    text, _ = made(client, model="runs/a run", seed="2", count=str(count))
    address = html.unescape(re.search(rf'href="(/generate/file[^"]+format={file_format})"', text)[1])
    answer = client.get(address)
    assert answer.headers["content-disposition"].startswith('attachment; filename="samgan-')
    got = tmp_path / "got"
    got.mkdir()
    if answer.headers["content-disposition"].endswith('.zip"'):
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            archive.extractall(got)
        assert {path.name for path in got.iterdir()} == {path.name for path in out.iterdir()}
    else:
        (name,) = [path.name for path in out.iterdir() if path.name != "samples.json"]
        (got / name).write_bytes(answer.content)
    for path in (path for path in got.iterdir() if path.name != "samples.json"):
        for ours, theirs in zip(read_samples(path), read_samples(out / path.name), strict=True):
            assert ours.mark == theirs.mark
            np.testing.assert_array_equal(ours.image, theirs.image)


def download(client, text, file_format, folder):
    """The files behind a button of the page, in a new folder."""
    folder.mkdir()
    address = html.unescape(re.search(rf'href="(/generate/file[^"]+format={file_format})"', text)[1])
    answer = client.get(address)
    name = re.fullmatch(r'attachment; filename="(samgan-[^"]+)"', answer.headers["content-disposition"])[1]
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            archive.extractall(folder)
    else:
        (folder / name).write_bytes(answer.content)
    return name, sorted(folder.iterdir(), key=lambda path: path.stem)


@pytest.mark.parametrize("file_format", ["png", "png16", "dicom", "dicom16", "npz"])
def test_a_walk_and_neighbours_are_files_that_say_where_they_are(root, client, tmp_path, file_format):
    ways = (
        ("/generate/walk", {"to": "8"}, "from-3-to-8", [f"{n} of 16 steps from seed 3 to seed 8" for n in range(17)]),
        ("/generate/around", {"degrees": "40"}, "around-3-40-degrees",
         ["", *(f"neighbour {n} of seed 3, 40 degrees away" for n in range(1, 9))]),
    )  # fmt: skip
    for path, own, named, places in ways:
        text, pictures = made(client, path=path, model="runs/a run", seed="3", truncation="0.5", **own)
        name, files = download(client, text, file_format, tmp_path / named)
        assert f"-{named}-{file_format}." in name
        images, marks = zip(*(found for file in files for found in read_samples(file)), strict=True)
        assert [mark.latent for mark in marks] == places
        assert {mark.model_sha256 for mark in marks} == {load_model_of(root).sha256}
        assert {(mark.seed, mark.truncation) for mark in marks} == {(3, 0.5)}
        assert [mark.of(image) for image, mark in zip(images, marks, strict=True)] == list(marks)
        shown = [np.asarray(Image.open(io.BytesIO(client.get(address).content))) for address in pictures]
        scale = 257 if file_format.endswith("16") else 1
        for image, seen in zip(images, shown, strict=True):
            assert np.abs(image[0] / scale - seen).max() <= (scale > 1)
        if file_format == "png":
            assert [file.read_bytes() for file in files] == [client.get(address).content for address in pictures]
        if file_format == "dicom":
            numbers = [pydicom.dcmread(file) for file in files]
            assert len({str(found.SOPInstanceUID) for found in numbers}) == len(places)
            assert [found.InstanceNumber for found in numbers] == [None if place else 3 for place in places]


def test_each_step_of_a_walk_says_what_it_is_without_scripts(root, client):
    page = client.get("/generate/walk", params={"model": "runs/a run", "seed": "3", "to": "8", "now": "1"}).text
    steps = re.findall(r"<li><figure>.*?</figure></li>", page, flags=re.S)
    assert len(steps) == 17
    for number, step in enumerate(steps):
        assert f"<strong>Step {number}</strong> of 16" in step
        assert load_model_of(root).sha256[:12] in step
        (address,) = re.findall(r'<a href="(/generate/nearest[^"]+)"', step)
        assert f"&n={number}" in html.unescape(address)


def test_no_files_are_left_behind(client, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text, _ = made(client, model="runs/a run", count="2")
    address = html.unescape(re.search(r'href="(/generate/file[^"]+format=png)"', text)[1])
    assert client.get(address).status_code == 200
    assert client.get(address.replace("sha256=", "sha256=" + 64 * "0" + "&x=")).status_code == 409
    assert list(tmp_path.iterdir()) == []


def test_a_walk_begins_and_ends_at_its_seeds(root, client):
    _, pictures = made(client, path="/generate/walk", model="plain", seed="3", to="8")
    assert len(pictures) == 17
    ends = [np.asarray(Image.open(io.BytesIO(client.get(pictures[n]).content)), int) for n in (0, 16)]
    _, (three,) = made(client, model="plain", seed="3", count="1")
    _, (eight,) = made(client, model="plain", seed="8", count="1")
    for end, address in zip(ends, (three, eight), strict=True):
        own = np.asarray(Image.open(io.BytesIO(client.get(address).content)), int)
        assert np.abs(end - own).max() <= 1  # the generator scales latents, so only rounding may differ
    assert (ends[0] != ends[1]).any()
    assert b"4 of 16 steps from seed 3 to seed 8" in client.get(pictures[4]).content
    assert b"SYNTHETIC IMAGE" in client.get(pictures[4]).content


def test_neighbours_are_as_far_away_as_is_said_and_stay_the_same(root, client):
    model = load_model_of(root)
    few, more = neighbours(model, 5, 2, 20.0), neighbours(model, 5, 4, 20.0)
    assert (few == more[:2]).all()
    own = sample(model, [5])
    near, far = (float((neighbours(model, 5, 8, angle) - own).square().mean()) for angle in (2.0, 40.0))
    assert near < far
    text, pictures = made(client, path="/generate/around", model="runs/a run", seed="5", degrees="40")
    assert len(pictures) == 9
    _, (centre,) = made(client, model="runs/a run", seed="5", count="1")
    assert client.get(pictures[0]).content == client.get(centre).content
    assert text.count("nearest training image") == 9


def test_the_nearest_training_image_is_beside_it_under_the_banner(root, client):
    text, pictures = made(client, model="runs/a run", seed="4", count="2")
    address = html.unescape(re.findall(r'href="(/generate/nearest[^"]+)"', text)[1])
    page = client.get(address)
    assert "Pictures of patients are shown here" in page.text
    assert "Comparing with all training images" in page.text
    part = client.get(address, headers=PART).text
    row = int(re.search(r"row (\d+) of the manifest", part)[1])
    data = PreparedSet.open(root / "set")
    assert data.manifest[row].split == "train"
    held_out = len(data.indices("holdout"))
    assert f"of {held_out} (" in part
    source = html.unescape(re.search(r'src="(/generate/training.png[^"]+)"', part)[1])
    assert client.get(source).headers["cache-control"] == "no-store"
    assert b"Real images of patients" in client.get(source).content
    assert client.get(source + "9999").status_code == 400
    assert f'src="{html.escape(pictures[1])}"' in part


def test_nearest_in_parts_is_nearest_at_once(root, monkeypatch):
    data = PreparedSet.open(root / "set")
    real = RealSplit.of(data)
    images = torch.from_numpy(data.take(real.held_out))
    monkeypatch.setattr("samgan.trust.nearest_training.READ_AT_ONCE", 3)
    assert len(real.parts()) > 1
    found = nearest_by_pixels(images, real)
    expected = nearest_image(images, torch.from_numpy(data.take(real.training)))
    torch.testing.assert_close(found.distance, expected.distance)
    assert found.index.tolist() == real.training[expected.index].tolist()


def test_features_of_training_images_are_computed_once_for_all_pictures(root, monkeypatch, tmp_path):
    monkeypatch.setenv("SAMGAN_CACHE", str(tmp_path))
    computed, said, plain = [], [], FeatureExtractor.__call__
    monkeypatch.setattr(
        FeatureExtractor, "__call__", lambda self, images: computed.append(len(images)) or plain(self, images)
    )

    def ask(maker, number):
        pictures = Seeds(weights(root / "runs/a run"), (1, 2))
        computed.clear()
        return maker.do(Nearest(pictures, number, bytes(root / "set"), features=True))[0].near[1]

    maker, data = Maker(said.append), PreparedSet.open(root / "set")
    first, real = ask(maker, 0), RealSplit.of(data)
    assert sum(computed) == 1 + len(real.training) + len(real.held_out)
    assert f"Features of 0 of {len(real.training)} training images are there; this is done once." in said
    (extractor, _) = next(iter(maker.extractors.values()))
    own = extractor(to_uint8(sample(load_model_of(root), [1])))
    distances = torch.cdist(own, extractor(torch.from_numpy(data.take(real.training))))[0]
    assert first.row == real.training[int(distances.argmin())]
    ask(maker, 1)
    assert computed == [1]  # the picture alone
    assert ask(Maker(), 0) == first  # another process
    assert computed == [1]


def test_a_page_that_waits_says_how_far_the_comparison_is(root, tmp_path):
    go_on, failed = tmp_path / "go on", json.dumps({"type": "Failed", "words": "done"})
    progress = json.dumps({"type": "Progress", "words": "256 of <3,080>"})
    worker = odd(
        f"import os; print({progress!r}, flush=True)\n    while not os.path.exists({str(go_on)!r}): time.sleep(0.01)"
        f"\n    print({failed!r}, flush=True)"
    )
    client, caught = make_client(root, worker=worker), []

    def wait():
        with pytest.raises(SamganError) as error:
            worker.do(TASK)
        caught.append(str(error.value))

    thread, end = threading.Thread(target=wait), time.monotonic() + 20
    thread.start()
    while not (shown := client.get("/generate/progress").text) and time.monotonic() < end:
        time.sleep(0.01)
    go_on.touch()
    thread.join(20)
    worker.close()
    assert shown == "256 of &lt;3,080&gt;"
    assert caught == ["done"]
    assert client.get("/generate/progress").text == ""


def test_a_model_whose_set_is_elsewhere_has_nothing_to_compare_with(client):
    text, _ = made(client, model="pneumonia-64", count="1")
    address = html.unescape(re.search(r'href="(/generate/nearest[^"]+)"', text)[1])
    page = client.get(address)
    assert "is not in the folder of this studio" in page.text
    assert "Pictures of patients" not in page.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "-1"}, {"seed": "x"}, {"seed": str(2**32)}, {"seed": "4294967290"}, {"count": "0"}, {"count": "65"},
        {"class": "x"}, {"truncation": "2"}, {"truncation": "nan"}, {"truncation": "-0.1"}, {"model": "plain",
        "truncation": "0.5"}, {"seed": "\u0661"},
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused_in_words(client, wrong):
    asked = {"model": "runs/a run", **wrong}
    part = client.get("/generate", params=asked, headers=PART)
    assert 'class="outcome bad"' in part.text
    assert "<img" not in part.text
    page = client.get("/generate", params=asked)
    assert page.status_code == 400
    assert "<form" in page.text
    assert client.get("/generate/picture.png", params={"kind": "seeds", "sha256": 64 * "0", **asked}).status_code == 400


@pytest.mark.parametrize(
    "place", ["../x", "/etc", "plain/checkpoints/step-00000003.pt", "set", "nothing", ".studio", "hf:a/b"]
)
@pytest.mark.parametrize("path", ["/generate", "/generate/walk", "/generate/nearest", "/generate/file"])
def test_only_models_below_the_root_are_opened(client, path, place):
    answer = client.get(path, params={"model": place, "kind": "seeds", "now": "1", "sha256": 64 * "0"})
    assert answer.status_code in (400, 409)
    assert "/generate/picture.png" not in answer.text


@pytest.mark.parametrize("wrong", [{"sha256": "x"}, {"sha256": ""}, {"kind": "x"}, {"n": "1000"}, {"n": "7"}])
def test_pictures_that_there_are_not_are_refused(client, root, wrong):
    sha256 = load_model_of(root).sha256
    asked = {"model": "runs/a run", "kind": "seeds", "count": "2", "sha256": sha256, "n": "1"}
    assert client.get("/generate/picture.png", params=asked).status_code == 200
    assert client.get("/generate/picture.png", params=asked | wrong).status_code == 400
    assert client.get("/generate/file", params=asked | {"format": "../x"}).status_code == 400


def test_links_out_of_the_root_are_no_models(root, tmp_path, styled):
    inside = tmp_path / "root"
    inside.mkdir()
    (inside / "exported.safetensors").symlink_to(root / "exports" / f"plain{MODEL_SUFFIX}")
    train(inside / "run", styled)
    for path in (inside / "run" / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    client = make_client(inside)
    page = client.get("/generate").text
    assert "exported.safetensors" not in page
    assert ">run</a>" not in page
    for place in ("exported.safetensors", "run"):
        assert client.get("/generate", params={"model": place}).status_code == 409


def test_pictures_of_weights_that_are_gone_are_not_shown_as_theirs(tmp_path, styled):
    run = train(tmp_path / "run", styled)
    worker = make_worker()
    client = make_client(tmp_path, worker=worker)
    _, pictures = made(client, model="run", count="2")
    assert worker.asked == 1
    assert client.get(pictures[1]).status_code == 200
    assert worker.asked == 1  # the picture was kept
    train(run, styled, seed=9, step=5)
    assert client.get(pictures[1]).status_code == 200
    worker._kept.clear()
    answer = client.get(pictures[1])
    assert answer.status_code == 409
    assert "other weights by now" in answer.text
    _, others = made(client, model="run", count="2")
    assert others != pictures


def test_in_read_only_mode_pictures_can_be_made_and_nothing_is_written(root, tmp_path):
    before = sorted(root.rglob("*"))
    client = make_client(root, read_only=True, worker=make_worker())
    text, pictures = made(client, model="plain", count="1")
    assert client.get(pictures[0]).status_code == 200
    assert client.get(html.unescape(re.search(r'href="(/generate/file[^"]+)"', text)[1])).status_code == 200
    assert sorted(root.rglob("*")) == before


@pytest.mark.filterwarnings("ignore:skipped a checkpoint")
def test_a_damaged_checkpoint_is_one_line_on_the_page(tmp_path, styled):
    run = train(tmp_path / "run", styled)
    path = next((run / "checkpoints").iterdir())
    path.write_bytes(path.read_bytes()[:1000])
    part = make_client(tmp_path, worker=make_worker()).get("/generate", params={"model": "run"}, headers=PART)
    assert "can be read" in part.text
    assert "Traceback" not in part.text


# The process itself, and what stands in for it.

ODD = """
import sys, time
for line in sys.stdin.buffer:
    {}
"""


def odd(source, **options):
    return Worker([sys.executable, "-c", ODD.format(source)], **options)


TASK = Seeds(weights(Path("x")), (0,))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("sys.exit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("sys.exit(0)", "gives no answer"),
        ("print('hello', flush=True); sys.exit(4)", "status 4"),
        ('print(\'{"type":"Failed","words":"No such thing"}\', flush=True)', "No such thing"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_a_process_that_fails_is_told_in_one_line(source, words):
    worker = odd(source)
    with pytest.raises(SamganError, match=words) as caught:
        worker.do(TASK)
    assert "\n" not in str(caught.value)
    worker.close()


def test_a_process_that_takes_too_long_is_ended():
    worker = odd("time.sleep(60)", patience=0.3)
    start = time.monotonic()
    with pytest.raises(SamganError, match="took more than"):
        worker.do(TASK)
    assert time.monotonic() - start < 20
    worker.close()


def test_a_command_that_is_not_there_is_told():
    with pytest.raises(SamganError, match="cannot be started"):
        Worker(["/nowhere/python"]).do(TASK)


def test_one_that_was_idle_and_ended_is_started_again(tmp_path):
    log = tmp_path / "log"
    answer = json.dumps({"type": "Failed", "words": "done", "usage": True})
    worker = odd(f"open({str(log)!r}, 'a').write('x'); print({answer!r}, flush=True); sys.exit(0)")
    for _ in range(3):
        with pytest.raises(UsageError, match="done"):
            worker.do(TASK)
        worker._process.wait(20)
    assert log.read_text() == "xxx"
    worker.close()


def test_the_process_makes_pictures_and_ends_with_the_one_that_started_it(root, tmp_path):
    script = f"""
import pathlib, time
from samgan.studio.tasks import Seeds
from samgan.studio.worker import Worker, weights
worker = Worker()
print(worker.make(Seeds(weights(pathlib.Path({str(root / "plain")!r})), (3,))).sha256, worker._process.pid, flush=True)
time.sleep(60)
"""
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    sha256, pid = server.stdout.readline().split()
    server.kill()
    server.communicate()
    assert len(sha256) == 64
    if sys.platform == "linux":
        end = time.monotonic() + 20
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_process_ends_when_it_is_idle():
    import queue

    from samgan.studio.maker import serve

    out = io.BytesIO()
    lines = queue.SimpleQueue()
    lines.put(b"no task\n")
    serve(lines, out, idle=0.05)
    answer = json.loads(out.getvalue())
    assert answer["type"] == "Failed"
    assert "made a mistake" in answer["words"]
    assert isinstance(Made("", 0, (), ()), Made)


def test_no_space_for_files_to_download_is_told_in_words(root, client, monkeypatch):
    text = client.get("/generate", params={"model": "plain", "count": "1"}, headers=PART).text
    address = html.unescape(re.search(r'href="(/generate/file[^"]+format=png)"', text)[1])

    def fail():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", fail)
    answer = client.get(address)
    assert answer.status_code == 409
    assert "No folder for temporary files can be written to" in answer.text
    assert "usable" not in answer.text
