"""Blinded tests: which pictures are shown, and how they are sent, so that only the picture tells what it is."""

import io
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from samgan import __version__
from samgan.data.documents import ManifestRow, SetInfo
from samgan.errors import SamganError, UsageError, shown
from samgan.runs.documents import TrainedOn
from samgan.runs.readers import FOLDER, NAME, ReaderTest, Shown
from samgan.seeds import SEEDS
from samgan.studio.models import FoundModel
from samgan.studio.places import Root
from samgan.studio.sets import images_of
from samgan.studio.tasks import Made, Seeds
from samgan.studio.worker import Worker, weights

PICTURES = 40
HALF = PICTURES // 2
READER = 60
"""Characters of a reader's name."""
NEUTRAL = (
    "One of the pictures of a blinded test by samgan: a real image of a patient, or a synthetic image. "
    "For research only, not for diagnosis. Share it only as the terms of the data allow."
)
"""The description in every picture of a test, real or not."""
KEPT = 2
"""Tests whose pictures are kept."""


def choose_pictures(
    rows: Sequence[ManifestRow], classes: Sequence[str], conditional: bool, seed: int
) -> tuple[str, tuple[Shown, ...]]:
    """Choose the pictures of a test and their order.

    Half are real, of as many patients as possible; the others are of seeds. If the model is told the class of its
    images, classes have equal shares, the same among both, so that the class tells nothing.

    Args:
        rows: The manifest of the set.
        classes: Those that the model was trained on; empty: all.
        conditional: Whether the model is told the class of its images.
        seed: Of every choice.

    Returns:
        The split of the real images, held-out ones if there are enough; and the pictures, in order.

    Raises:
        SamganError: There are too few real images.
    """
    draw = np.random.default_rng(seed)
    names = list(classes) if conditional else [""]
    wanted = {name: HALF // len(names) + (place < HALF % len(names)) for place, name in enumerate(names)}
    for split in ("holdout", "train"):
        of_split = [row for row in rows if row.split == split and not row.synthetic]
        found = {
            name: [
                row
                for row in of_split
                if (row.class_name == name if name else not classes or row.class_name in classes)
            ]
            for name in names
        }
        if all(len(found[name]) >= wanted[name] for name in names):
            break
    else:
        raise SamganError(
            f"A blinded test needs {HALF} real images, in equal shares of all classes; the set has too few."
        )
    pictures = []
    for name in names:
        pictures += [Shown(True, row.index, name) for row in _of_many_patients(found[name], wanted[name], draw)]
    seeds: list[int] = []
    while len(seeds) < HALF:
        number = int(draw.integers(SEEDS))
        seeds += [number] if number not in seeds else []
    own = [name for name in names for _ in range(wanted[name])]
    pictures += [Shown(False, number, name) for number, name in zip(seeds, own, strict=True)]
    return split, tuple(pictures[place] for place in draw.permutation(len(pictures)))


def _of_many_patients(rows: Sequence[ManifestRow], count: int, draw: np.random.Generator) -> list[ManifestRow]:
    """Some of the images at random, a second one of a patient only if there are too few patients."""
    mixed = [rows[place] for place in draw.permutation(len(rows))]
    first = {row.patient: row.index for row in reversed(mixed)}
    return sorted(mixed, key=lambda row: first[row.patient] != row.index)[:count]


class Readers:
    """The tests of readers: starts them, shows their pictures, takes answers, and keeps time.

    What is said is written to the run folder after each answer, so a test can be continued at any time.
    """

    def __init__(self) -> None:
        self._pictures: OrderedDict[Path, list[bytes]] = OrderedDict()
        self._since: dict[Path, tuple[int, float]] = {}
        self._turn = threading.Lock()

    def start(
        self, worker: Worker, model: FoundModel, data: SetInfo, folder: Path, rows: Sequence[ManifestRow], reader: str
    ) -> str:
        """Start a test.

        Args:
            worker: Makes the synthetic pictures.
            model: A run.
            data: The set that it was trained on.
            folder: Of that set.
            rows: Its manifest.
            reader: Name or initials.

        Returns:
            The name of the test.

        Raises:
            UsageError: There is no name.
            SamganError: There are too few real images, or pictures cannot be made.
        """
        reader = " ".join(reader.split())
        if not reader or len(reader) > READER:
            raise UsageError(f"Type the name or the initials of who reads, at most {READER} characters.")
        seed = secrets.randbelow(SEEDS)
        split, pictures = choose_pictures(rows, model.trained_classes, bool(model.classes), seed)
        sha256, files = _make(worker, model, pictures, data, folder)
        moment = datetime.now(UTC)
        test = ReaderTest(
            reader=reader,
            started=moment.isoformat(timespec="seconds"),
            model_sha256=sha256,
            preset=model.config.preset,
            images_seen=model.images_seen,
            data=TrainedOn(folder.name, data.sha256),
            split=split,
            seed=seed,
            pictures=pictures,
            samgan=__version__,
        )
        letters = re.sub("[^a-z0-9]", "", reader.lower())[:20] or "reader"
        with self._turn:
            name = f"{letters}-{moment:%Y%m%d-%H%M%S}"
            path = model.path / FOLDER / f"{name}.json"
            if path.exists():
                raise SamganError("A test of this reader was started in this very second: try again.")
            test.write(path)
            self._keep(path, files)
        return name

    def picture(self, worker: Worker, model: FoundModel, data: SetInfo, folder: Path, path: Path, number: int) -> bytes:
        """The PNG file of a picture of a test that has been answered, or is the next. Its time begins now.

        Raises:
            UsageError: It is not its turn.
            SamganError: As for `pictures`.
        """
        test = ReaderTest.read(path)
        if number > test.answered or number >= len(test.pictures):
            raise UsageError("It is not the turn of this picture.")
        files = self.pictures(worker, model, data, folder, path)
        with self._turn:
            if number == test.answered:
                self._since[path] = number, time.monotonic()
        return files[number]

    def pictures(self, worker: Worker, model: FoundModel, data: SetInfo, folder: Path, path: Path) -> list[bytes]:
        """The PNG files of all pictures of a test, made again if they are not kept any more.

        Raises:
            SamganError: The test cannot be read, the run has other weights by now, the set has changed, or the pictures
                cannot be made.
        """
        with self._turn:
            files = self._pictures.get(path)
        if files is None:
            test = ReaderTest.read(path)
            if data.sha256 != test.data.sha256:
                raise SamganError("The set has changed since this test was started: start a new one.")
            sha256, files = _make(worker, model, test.pictures, data, folder)
            if sha256 != test.model_sha256:
                raise SamganError(
                    f"This test is of weights {test.model_sha256[:12]}, and the run has other weights by now "
                    f"({sha256[:12]}), which make other pictures: start a new test."
                )
        with self._turn:
            self._keep(path, files)
        return files

    def answer(self, path: Path, number: int, said_real: bool) -> ReaderTest:
        """Take the answer to a picture; a second answer to the same one is passed over.

        Raises:
            SamganError: The test cannot be read or written.
        """
        with self._turn:
            test = ReaderTest.read(path)
            if number == test.answered < len(test.pictures):
                place, since = self._since.get(path, (-1, 0.0))
                test = test.answer(said_real, time.monotonic() - since if place == number else None)
                test.write(path)
        return test

    def _keep(self, path: Path, files: list[bytes]) -> None:
        self._pictures[path] = files
        self._pictures.move_to_end(path)
        while len(self._pictures) > KEPT:
            self._pictures.popitem(last=False)


def file_of(root: Root, run: Path, name: str) -> Path:
    """The file of a test.

    Raises:
        UsageError: This is not the name of one.
        Outside: It is not below the root.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"There is no test {shown(name)!r}.")
    return root.check(run / FOLDER / f"{name}.json")


def _make(
    worker: Worker, model: FoundModel, pictures: Sequence[Shown], data: SetInfo, folder: Path
) -> tuple[str, list[bytes]]:
    """The hash of the weights, and the files of all pictures of a test, made in one go: no picture takes longer."""
    made = [shown for shown in pictures if not shown.real]
    rows = [shown.number for shown in pictures if shown.real]
    classes = tuple(shown.class_name for shown in made) if model.classes else ()
    task = Seeds(weights(model.path), tuple(shown.number for shown in made), classes)
    answer, files = worker.do(task)
    if not isinstance(answer, Made):
        raise SamganError("The process that makes pictures gave another answer than was asked for.")
    synthetic, real = iter(files), iter(images_of(folder, data, np.array(rows)))
    images = [next(real) if shown.real else _pixels(next(synthetic)) for shown in pictures]
    if len({image.shape for image in images}) > 1:
        raise SamganError("The images of the model have another size than those of the set.")
    return answer.sha256, [_neutral(image) for image in images]


def _pixels(png: bytes) -> UInt8[np.ndarray, "c h w"]:
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _neutral(image: UInt8[np.ndarray, "c h w"]) -> bytes:
    """A PNG file without compression, whose size does not depend on what is on the picture."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", NEUTRAL)
    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", pnginfo=text, compress_level=0)
    return file.getvalue()
