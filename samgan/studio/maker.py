"""The process that makes pictures: `python -m samgan.studio.maker` reads tasks from its input, and answers each.

A task is a line of JSON; an answer is a line of JSON, followed by the files that it announces. Before it, lines may say
how far a task is. The process ends when
its input ends, even in the middle of a task, and after `IDLE` seconds without one.
"""

import dataclasses
import io
import os
import queue
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from samgan.data import PreparedSet
from samgan.devices import choose_device, keep_freed_memory
from samgan.errors import SamganError, UsageError, one_line
from samgan.metrics.features import FeatureExtractor, extract
from samgan.metrics.load_features import choose_features
from samgan.metrics.nearest import Nearest as NearestImages
from samgan.networks import attention_gammas
from samgan.pictures import image_grid, to_integers, to_uint8, write_png
from samgan.provenance import Sample
from samgan.runs import Run
from samgan.sampling import (
    Model,
    attention_sheet,
    check_format,
    check_origin,
    interpolate,
    is_run,
    neighbours,
    open_model,
    sample,
    scales_sheet,
    truncated,
    write_samples,
)
from samgan.scoring.documents import short_name
from samgan.seeds import check_seed
from samgan.studio.tasks import (
    Answer,
    Around,
    Failed,
    Files,
    Found,
    Inside,
    Made,
    Near,
    Nearest,
    Packed,
    Picture,
    Progress,
    Seeds,
    Sheet,
    Task,
    Walk,
    Weights,
)
from samgan.trust.nearest_training import RealSplit, nearest_by_features, nearest_by_pixels, training_features

IDLE = 120.0
"""Seconds without a task, after which the process ends."""


@dataclass
class Maker:
    """Does tasks, and remembers the model and the comparisons of the last ones."""

    tell: Callable[[str], None] = lambda words: None
    """Called with how far a task is that takes long, in words."""
    models: dict[tuple[object, ...], Model] = field(default_factory=dict)
    held_out: dict[tuple[object, ...], Float[Tensor, " m"]] = field(default_factory=dict)
    """Distances of held-out images to training images, by set, classes and measure."""
    training: dict[tuple[object, ...], Float[Tensor, "n d"]] = field(default_factory=dict)
    """Features of training images, by set, classes and network; those of the last comparison only."""
    extractors: dict[tuple[int, ...], tuple[FeatureExtractor | None, str]] = field(default_factory=dict)

    def do(self, task: Task) -> tuple[Answer, list[bytes]]:
        """Do a task.

        Returns:
            The answer, and the files that belong to it.

        Raises:
            SamganError: It cannot be done.
        """
        model = self.model(task.of.weights if isinstance(task, Nearest | Files) else task.weights)
        known: dict[type, Callable[[Any, Model], tuple[Answer, list[bytes]]]] = {
            Seeds: _seeds, Sheet: _sheet, Walk: _walk, Around: _around, Inside: _inside, Files: _files,
            Nearest: self._nearest,
        }  # fmt: skip
        return known[type(task)](task, model)

    def model(self, weights: Weights) -> Model:
        """The model, read anew only if its file or checkpoint has changed.

        Raises:
            SamganError: It cannot be read, or has other weights than were asked for.
        """
        path = Path(os.fsdecode(weights.path))
        named = Run(path).checkpoint_folder / weights.checkpoint if weights.checkpoint else None
        key = (path, named, _version(named or path), weights.truncation)
        if key not in self.models:
            model = open_model(path, str(named or "newest"), device=choose_device("auto"))
            model = truncated(model, weights.truncation)
            while len(self.models) > 1:
                del self.models[next(iter(self.models))]
            self.models[key] = model
        model = self.models[key]
        if not model.sha256.startswith(weights.sha256):
            raise SamganError(
                f"The model has other weights by now (sha256 {model.sha256[:12]}, not {weights.sha256[:12]}): "
                "load the page again for pictures of these."
            )
        return model

    def _nearest(self, task: Nearest, model: Model) -> tuple[Answer, list[bytes]]:
        data = PreparedSet.open(Path(os.fsdecode(task.data)))
        notes = check_origin(model, Path(os.fsdecode(task.of.weights.path)), data)
        classes = model.classes or model.config.data.classes
        real = RealSplit.of(data, classes)
        _, files = self.do(task.of)
        if not 0 <= task.number < len(files):
            raise UsageError("There is no such picture.")
        pixels = np.array(Image.open(io.BytesIO(files[task.number])))
        image = torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0).copy())[None]
        held_out = torch.from_numpy(data.take(real.held_out))
        key = (data.sha256, tuple(classes))
        self.tell(f"Comparing pixels with {len(real.training):,} training images.")
        found = nearest_by_pixels(image, real)
        if (key, "pixels") not in self.held_out and len(held_out):
            self.tell(f"Comparing pixels of {len(held_out)} held-out images; this is done once.")
            self.held_out[key, "pixels"] = nearest_by_pixels(held_out, real).distance
        near = [_near("in pixels", found, self.held_out.get((key, "pixels")))]
        if task.features:
            extractor, why = self._extractor(tuple(image.shape[1:]))
            if extractor is None:
                notes.append(f"Features were not compared: {why}.")
            else:
                named = (key, extractor.sha256)
                training = self._training(named, real, extractor)
                found = nearest_by_features(extract(extractor, image, cache=False), real, training)
                if named not in self.held_out and len(held_out):
                    self.tell(f"Computing features of {len(held_out)} held-out images.")
                    features = extract(extractor, held_out)
                    self.held_out[named] = nearest_by_features(features, real, training).distance
                measure = f"by {short_name(extractor.name)} features"
                near.append(_near(measure, found, self.held_out.get(named)))
        return Found(model.sha256, len(real.training), tuple(near), tuple(notes)), []

    def _training(
        self, named: tuple[object, ...], real: RealSplit, extractor: FeatureExtractor
    ) -> Float[Tensor, "n d"]:
        """The features of all training images, which stay in memory: one comparison is likely to follow another."""
        if named not in self.training:
            count = len(real.training)

            def tell(done: int) -> None:
                self.tell(f"Features of {done:,} of {count:,} training images are there; this is done once.")

            self.training = {named: training_features(real, extractor, tell)}
        return self.training[named]

    def _extractor(self, shape: tuple[int, ...]) -> tuple[FeatureExtractor | None, str]:
        if shape not in self.extractors:
            self.extractors[shape] = choose_features(None, shape, device=choose_device("auto"))
        return self.extractors[shape]


def _version(path: Path) -> object:
    """What changes when a model does: the newest checkpoint, or the file."""
    file = max(Run(path).checkpoints(), default=path) if is_run(path) else path
    try:
        status = file.stat()
    except OSError:
        return None
    return file, status.st_mtime_ns, status.st_size


def _labels(model: Model, seeds: list[int], class_name: str) -> Int[Tensor, " n"] | None:
    for seed in (min(seeds), max(seeds)):
        check_seed(seed)
    return model.labels(seeds, class_name or None)


def _seeds(task: Seeds, model: Model) -> tuple[Answer, list[bytes]]:
    seeds = list(task.seeds)
    labels = _labels(model, seeds, "")
    model.require_classes(task.classes)
    if task.classes:
        labels = torch.tensor([model.classes.index(name) for name in task.classes])
    return _made(model, _samples(model, seeds, labels, sample(model, seeds, labels)))


def _sheet(task: Sheet, model: Model) -> tuple[Answer, list[bytes]]:
    seeds = list(task.seeds)
    labels = _labels(model, seeds, task.class_name)
    grid = image_grid(to_uint8(sample(model, seeds, labels)).numpy(), task.columns)
    text = model.mark(seeds[0], None if labels is None else int(labels[0])).entries() | {"Seed": f"{seeds[0]}..."}
    words = f"seeds {seeds[0]} to {seeds[-1]}"
    picture = Picture(seeds[0], text.get("Class", ""), words)
    return _made(model, [(picture, _png(grid, text))])


def _walk(task: Walk, model: Model) -> tuple[Answer, list[bytes]]:
    return _made(model, _shown(_on_the_way(task, model)))


def _around(task: Around, model: Model) -> tuple[Answer, list[bytes]]:
    return _made(model, _shown(_beside(task, model)))


def _shown(samples: Iterable[Sample]) -> Iterator[tuple[Picture, bytes]]:
    for image, mark in samples:
        yield Picture(mark.seed, mark.class_name, mark.latent), _png(image, mark.entries())


def _on_the_way(task: Walk, model: Model, bits: int = 8) -> Iterator[Sample]:
    """Images from one seed to another, both ends among them."""
    labels = _labels(model, [task.first, task.last], task.class_name)
    label = None if labels is None else int(labels[0])
    images = interpolate(model, [task.first, task.last], task.steps, label)
    for step, image in enumerate(to_integers(images, bits)):
        words = f"{step} of {task.steps} steps from seed {task.first} to seed {task.last}"
        mark = dataclasses.replace(model.mark(task.first, label), latent=words)
        yield Sample(image, mark.of(image))


def _beside(task: Around, model: Model, bits: int = 8) -> Iterator[Sample]:
    """The image of a seed, then its neighbours."""
    labels = _labels(model, [task.seed], task.class_name)
    label = None if labels is None else int(labels[0])
    mark = model.mark(task.seed, label)
    (own,) = to_integers(sample(model, [task.seed], labels), bits)
    yield Sample(own, mark.of(own))
    images = neighbours(model, task.seed, task.count, task.degrees, label)
    for number, image in enumerate(to_integers(images, bits), 1):
        words = f"neighbour {number} of seed {task.seed}, {task.degrees:g} degrees away"
        yield Sample(image, dataclasses.replace(mark, latent=words).of(image))


def _inside(task: Inside, model: Model) -> tuple[Answer, list[bytes]]:
    seeds = list(task.seeds)
    labels = _labels(model, seeds, task.class_name)
    if task.what == "scales":
        sheet = scales_sheet(model, seeds, labels)
        words = [f"images at {side} px" for side in model.config.network.image_sides]
    else:
        sheet = attention_sheet(model, seeds, labels)
        gates = {side: float(gamma) for side, gamma in attention_gammas(model.generator).items()}
        words = ["the images", *(f"attention at {side} px, gate {gate:.3g}" for side, gate in gates.items())]
        if len(sheet) == len(seeds):
            raise UsageError("The generator of this model has no attention that compares places of an image.")
    label = int(labels[0]) if labels is not None and task.class_name else None  # without a name, classes take turns
    text = model.mark(seeds[0], label).entries() | {"Seed": f"{seeds[0]}..."}
    made = []
    for row, shows in zip(to_uint8(sheet).split(len(seeds)), words, strict=True):
        grid = image_grid(row.numpy(), len(seeds))
        made.append((Picture(seeds[0], task.class_name, shows), _png(grid, text | {"Shows": shows})))
    return _made(model, made)


def _files(task: Files, model: Model) -> tuple[Answer, list[bytes]]:
    folder, of = Path(os.fsdecode(task.folder)), task.of
    samples = folder / "samples"
    if isinstance(of, Seeds):
        check_seed(of.seeds[0], len(of.seeds))
        class_name = of.classes[0] if of.classes else None
        write_samples(
            model, samples, len(of.seeds), seed=of.seeds[0], file_format=task.file_format, class_name=class_name
        )
    else:
        form = check_format(model, task.file_format)
        samples.mkdir()
        if isinstance(of, Walk):
            form.write(samples, _on_the_way(of, model, form.bits), of.steps + 1)
        else:
            form.write(samples, _beside(of, model, form.bits), of.count + 1)
    paths = sorted(path for path in samples.rglob("*") if path.is_file())
    images = [path for path in paths if path.name != "samples.json"]
    if len(images) == 1:
        name = images[0].name
        images[0].rename(folder / name)
    else:
        name = "samples.zip"
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as archive:  # images are compressed already
            for path in paths:
                archive.write(path, path.relative_to(samples).as_posix())
                path.unlink()
    return Packed(model.sha256, name), []


def _near(measure: str, found: NearestImages, held_out: Float[Tensor, " m"] | None) -> Near:
    distance = float(found.distance[0])
    others = torch.empty(0) if held_out is None else held_out
    return Near(
        measure=measure,
        row=int(found.index[0]),
        mirrored=bool(found.mirrored[0]),
        distance=distance,
        held_out=len(others),
        closer=int((others <= distance).sum()),
        median=float(others.median()) if len(others) else 0.0,
    )


def _samples(
    model: Model, seeds: list[int], labels: Int[Tensor, " n"] | None, images: Float[Tensor, "n c h w"]
) -> Iterable[tuple[Picture, bytes]]:
    """Images of seeds as the files that `samgan sample` writes."""
    own = [None] * len(seeds) if labels is None else labels.tolist()
    for seed, label, image in zip(seeds, own, to_uint8(images).numpy(), strict=True):
        sample = Sample(image, model.mark(seed, label).of(image))
        yield Picture(seed, sample.mark.class_name), _png(image, sample.mark.entries())


def _png(image: Any, text: dict[str, str]) -> bytes:
    file = io.BytesIO()
    write_png(file, image, text)
    return file.getvalue()


def _made(model: Model, made: Iterable[tuple[Picture, bytes]]) -> tuple[Answer, list[bytes]]:
    pictures, files = zip(*made, strict=True)
    return Made(model.sha256, model.images_seen, tuple(pictures), tuple(map(len, files))), list(files)


def serve(lines: "queue.SimpleQueue[bytes]", out: IO[bytes] | io.BytesIO, idle: float = IDLE) -> None:
    """Answer tasks until there is none for `idle` seconds."""

    def tell(words: str) -> None:
        out.write(msgspec.json.encode(Progress(words)) + b"\n")
        out.flush()

    maker = Maker(tell)
    while True:
        try:
            line = lines.get(timeout=idle)
        except queue.Empty:
            return
        done, files = answer(maker, line)
        out.write(msgspec.json.encode(done) + b"\n" + b"".join(files))
        out.flush()


def answer(maker: Maker, line: bytes) -> tuple[Answer, list[bytes]]:
    """Do the task of a line; what goes wrong is an answer, too."""
    try:
        return maker.do(msgspec.json.decode(line, type=Task))
    except SamganError as error:
        return Failed(str(error), isinstance(error, UsageError)), []
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            return Failed("There is not enough memory for these pictures: ask for fewer, or of a smaller model."), []
        return Failed(f"The process that makes pictures made a mistake ({one_line(error)})."), []
    except Exception as error:  # the page says it; the next task may do better
        return Failed(f"The process that makes pictures made a mistake ({one_line(error)})."), []


def main() -> None:
    """Serve the pipes of this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the studio, whose end closes the pipe
    keep_freed_memory()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)  # nobody waits for an answer any more

    threading.Thread(target=read, daemon=True).start()
    serve(lines, out)
    os._exit(0)  # the thread above still waits for input, which an ordinary end would trip over


if __name__ == "__main__":
    main()
