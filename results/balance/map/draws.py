"""A draw of few patients: its prepared set, its generators, their images, and classifiers of these."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import (
    BASES,
    FOLDS,
    PILOT_FOLDS,
    SMALL,
    Budget,
    Cell,
    Generator,
    HeldOut,
    OtherHospital,
    encoded,
    name_of,
)
from ways import PRETRAINED, Way

from samgan.data import PreparedSet
from samgan.errors import SamganError
from samgan.files import atomic_write, locked
from samgan.metrics.features import extract
from samgan.metrics.load_features import load_features
from samgan.pictures import to_uint8
from samgan.runs import Run
from samgan.sampling import Model, open_model, sample
from samgan.sampling.images import generate, latents_of_seeds, truncated
from samgan.studies import predict, train_classifier
from samgan.studies.classifier import Classified, classify_timed
from samgan.studies.downstream import training_images
from samgan.studies.map_cells import area_and_influence
from samgan.studies.probe import probe
from samgan.training import ARITHMETIC

TOLD = ["--data.class_sampling=balanced", "--training.augment_target=0.6"]
PRECISION = "fp32"
"""Of all generators and classifiers: every machine can compute in it, so that all have one recipe."""
IN_FULL = {"NVIDIA_TF32_OVERRIDE": "0"}
"""Keeps NVIDIA's libraries from rounding factors to 10 bits, which torch lets them do in convolutions of fp32."""
TRIES, AGAIN = 5, 100
"""A training that diverges is tried with so many seeds, each so much larger than the one before; no other seed is made
so (`Draw.seed`)."""
PSI = 0.7
MARGIN = 2
"""Of a choice among synthetic images, so many times as many as are missing are made."""
POOL = 2048
"""Seeds among which those nearest to real images are looked for."""
JOINT = "joint"
"""The kind of images whose generator is one of all classes; those of all others are fine-tuned to one class."""


NORMAL = "NORMAL"
ELSEWHERE = {"three": "adults"}
"""By question, a set of another hospital: NORMAL, and another class that is no normal image."""
OF_EACH = 400
"""Of its images, of each class."""


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Images of another hospital."""

    images: np.ndarray
    known: HeldOut
    """Which are not normal, and whose they are."""
    name: str
    """Hash of their names."""

    def tested(self, normal: np.ndarray) -> OtherHospital:
        """The record of a classifier that gives these probabilities of being normal."""
        predicted = np.stack([normal, 1 - normal], 1)
        area, _ = area_and_influence(predicted, np.array(self.known.truth), np.array(self.known.patients))
        self.known.write(self.name)
        return OtherHospital(area, encoded(predicted), self.name)


WAIT = 5.0
"""Seconds between two looks at whether another process has ended."""


class OutOfTime(Exception):
    """The time that was given is over; what is done is kept."""


class Failed(Exception):
    """A command failed."""


class Diverged(Failed):
    """A loss or weight became NaN."""


_failed: dict[Path, Failed] = {}
"""Runs whose training failed in this process, which does not try them again."""


@dataclass(frozen=True)
class Place:
    """Where and how long work is done."""

    sets: Path
    """The folder that sets.py wrote."""
    work: Path
    budget: Budget
    device: str = "cpu"
    end: float = float("inf")
    """By `time.monotonic`, in seconds."""

    def check(self) -> None:
        """Begin nothing new when time is over."""
        if time.monotonic() >= self.end:
            raise OutOfTime


@dataclass(frozen=True)
class Draw:
    """Few patients of the small class, and all of the others."""

    cell: Cell
    folds: str
    number: int
    place: Place

    @property
    def small(self) -> str:
        """The class with few patients."""
        return SMALL[self.cell.question]

    def seed(self, of: int = 0) -> int:
        """A seed that no other draw of its cell has: of the generator (0), or of a classifier."""
        folds = (*FOLDS, PILOT_FOLDS).index(self.folds)
        return 1000 * (1 + 10 * self.number + folds) + of

    @property
    def base(self) -> int:
        """The seed of the generator that this draw's are fine-tuned from; some draws share it."""
        return replace(self, number=self.number % BASES).seed()

    @property
    def folder(self) -> Path:
        """Where its set, generators and images are."""
        cell = self.cell
        return self.place.work / cell.question / self.folds / str(cell.side) / f"{cell.patients}-{self.number}"

    @property
    def shared(self) -> Path:
        """Where runs are that see none of the small class: draws of all numbers of patients share them."""
        return self.folder.parent

    def open(self) -> PreparedSet:
        """The prepared set of this draw: the same patients at every size, and none of another draw of its fold."""
        out = self.folder / "set"
        if not (out / "dataset.json").exists():
            source = self.place.sets / self.cell.question / self.folds / str(self.cell.side)
            few = ["--patients", f"{self.small}={self.cell.patients}", "--part", self.number]
            call(["subset", source, out, *few], self.place)
        return PreparedSet.open(out)

    def elsewhere(self) -> Elsewhere | None:
        """Images of another hospital for this question, always the same ones; None if there are none."""
        name = ELSEWHERE.get(self.cell.question)
        if name is None:
            return None
        data = PreparedSet.open(self.place.sets / name / str(self.cell.side))
        draw = np.random.default_rng(0)
        chosen = [np.sort(draw.permutation(data.indices("train", [one]))[:OF_EACH]) for one in data.classes]
        ill = np.repeat([one != NORMAL for one in data.classes], list(map(len, chosen))).astype(int)
        index = np.concatenate(chosen)
        patients = np.unique(data.groups(index), return_inverse=True)[1]
        known = HeldOut((NORMAL, f"not {NORMAL}"), tuple(ill.tolist()), tuple(patients.tolist()))
        return Elsewhere(data.take(index), known, name_of(data.manifest[i].source for i in index))


@dataclass(frozen=True, eq=False)
class Made:
    """Synthetic images, and how long it took to make them and to choose among them."""

    images: np.ndarray
    seconds: float


def images_for(draw: Draw, data: PreparedSet, way: Way, generator: int | None) -> dict[str, Made]:
    """The synthetic images that a way takes, made if they are not there: of the small class, or of every class."""
    if generator is None:
        return {}
    real = {name: len(data.select("train", [name])) for name in data.classes}
    largest = max(real.values())
    # Other classes may lack a few images, too. Those would be drawn as often as all real ones of their class.
    wanted = dict.fromkeys(real, largest) if way.arm.whole else {draw.small: largest - real[draw.small]}
    return {name: chosen(draw, data, way, generator, name, count) for name, count in wanted.items() if count}


def classified(
    draw: Draw, data: PreparedSet, way: Way, made: dict[str, np.ndarray], seed: int, test: np.ndarray
) -> Classified:
    """Probabilities of `test`, by one classifier of real images and of those of `images_for`."""
    names, budget = data.classes, draw.place.budget
    real = {name: data.select("train", [name]) for name in names}
    largest = max(map(len, real.values()))
    lacking = {draw.small: largest - len(real[draw.small])}
    images, labels, of_real = training_images(way.arm, real, made, lacking)
    if not way.probe:
        asked = {"steps": budget.steps, "device": draw.place.device, "precision": PRECISION}
        found = []
        for member in range(way.members):
            draw.place.check()
            own = seed + 10 * member
            found.append(classify_timed(images, labels, of_real, test, way.arm, len(names), seed=own, **asked))
        return Classified(np.mean([one.predicted for one in found], axis=0), sum(one.seconds for one in found))
    begun = time.perf_counter()
    eyes = load_features("lite0", device=draw.place.device)
    features, of_test = (extract(eyes, torch.from_numpy(part)).double().cpu().numpy() for part in (images, test))
    patients = [data.manifest[i].patient for name in names for i in data.indices("train", [name])]
    groups = np.full(len(labels), "", object)
    groups[of_real] = patients
    smote_seed = seed if way.smote else None
    predicted = probe(features, labels, list(groups), of_test, len(names), of_real=of_real, smote_seed=smote_seed)
    return Classified(predicted, time.perf_counter() - begun)


def chosen(draw: Draw, data: PreparedSet, way: Way, generator: int, name: str, count: int) -> Made:
    """The synthetic images of one class that a way takes; they are kept."""
    runs = runs_of(draw, data, way.images, name, generator)
    if way.choice == "all":
        make = partial(synthetic, runs, draw, data, way.images, name, count)
    else:
        make = partial(of_the_boundary, runs, draw, data, way, name, count)
    kind = way.images if way.choice == "all" else f"{way.choice}-{draw.place.budget.steps}"
    return kept(draw, f"{kind}-{generator}-{name}-{count}", make)


def kept(draw: Draw, name: str, make: Callable[[], np.ndarray]) -> Made:
    """Images of a draw, made once. Their name tells how long generators are trained: none of a trial is taken."""
    path = draw.folder / f"{name}-{length(draw)}.npz".replace(" ", "-")
    if not path.exists():
        begun = time.perf_counter()
        images = make()
        with atomic_write(path) as file:
            np.savez(file, images=images, seconds=time.perf_counter() - begun)
    with np.load(path) as known:
        return Made(known["images"], float(known["seconds"]))


def of_the_boundary(runs: list[Path], draw: Draw, data: PreparedSet, way: Way, name: str, count: int) -> np.ndarray:
    """Of more images than are wanted, those of which a classifier of the real images is least sure."""
    pool = synthetic(runs, draw, data, way.images, name, MARGIN * count)
    real = [data.select("train", [other]) for other in data.classes]
    labels = np.repeat(np.arange(len(real)), [len(part) for part in real])
    place = draw.place
    asked = {"seed": 1000, "steps": place.budget.steps, "device": place.device, "precision": PRECISION}
    judge = train_classifier(np.concatenate(real), labels, PRETRAINED, len(real), **asked)
    sure = predict(judge, pool)[:, data.classes.index(name)]
    return pool[np.sort(np.argsort(np.abs(sure - 0.5))[:count])]


def synthetic(runs: list[Path], draw: Draw, data: PreparedSet, kind: str, name: str, count: int) -> np.ndarray:
    """Synthetic images of a class, of one kind of `IMAGES`, by the generators of these runs."""
    share = -(-count // len(runs))
    models = (open_model(run, device=draw.place.device) for run in runs)
    return np.concatenate([images_of(one, kind, name, share, data) for one in models])[:count]


def images_of(one: Model, kind: str, name: str, count: int, data: PreparedSet) -> np.ndarray:
    """Images of the seeds from 0 on."""
    labels = one.labels(range(count), name) if one.classes else None
    if kind == "between patients":
        return between(one, name, count, data)
    made = sample(truncated(one, PSI) if kind == "truncated" else one, range(count), labels)
    return to_uint8(made).numpy()


def between(one: Model, name: str, count: int, data: PreparedSet) -> np.ndarray:
    """Images somewhere between two seeds, each of them the nearest one to a real image by Lite0's features."""
    pool = range(POOL)
    label = None if not one.classes else one.labels(pool, name)
    eyes = load_features("lite0")
    real = extract(eyes, torch.from_numpy(data.select("train", [name])))
    of_seeds = extract(eyes, to_uint8(sample(one, pool, label)))
    nearest = np.unique(torch.cdist(real, of_seeds).argmin(1).numpy())  # two ends of one seed would be longer
    draw = np.random.default_rng(0)
    pairs = np.stack([draw.choice(nearest, size=2, replace=len(nearest) < 2) for _ in range(count)])
    ends = latents_of_seeds(pairs.ravel().tolist(), one.generator.latent_size).unflatten(0, (count, 2))
    share = torch.from_numpy(draw.random((count, 1))).to(ends.dtype)
    # Latents lie near a sphere, and so does their sum if the squares of its weights have the sum 1.
    middle = share.sqrt() * ends[:, 0] + (1 - share).sqrt() * ends[:, 1]
    own = None if label is None else label[:1].expand(count)
    return to_uint8(torch.cat([pyramid[-1] for pyramid in generate(one.generator, middle, own)])).numpy()


def runs_of(draw: Draw, data: PreparedSet, kind: str, name: str, generator: int) -> list[Path]:
    """The runs whose images of a class a kind of `IMAGES` takes, trained if they are not there."""
    return [trained(draw, data, JOINT if kind == JOINT else "fine-tuned", name, generator)]


def trained(draw: Draw, data: PreparedSet, method: str, name: str, seed: int) -> Path:
    """The run of a method; for `fine-tuned` that of a class.

    Raises:
        Diverged: It did, or one that it begins with, with every seed that is tried.
        Failed: A command failed.
    """
    place, budget = draw.place, draw.place.budget

    def joint(seed: int) -> Path:
        return train(
            draw.folder / f"joint-{seed}-{length(draw)}", data.path, budget.kimg, [*TOLD, *of_seed(seed)], place
        )

    whole = place.sets / draw.cell.question / draw.folds / str(draw.cell.side)

    def others(seed: int) -> Path:
        out = draw.shared / f"others-{seed}-{length(draw)}"
        # Trained on the set of all patients, of which it sees the other classes only: those are the same in all draws.
        classes = ["--classes", *(other for other in data.classes if other != draw.small), "--network.num_classes=0"]
        with in_turn(out, place):
            return train(out, whole, budget.kimg, [*classes, *of_seed(seed)], place)

    def fine_tuned(seed: int) -> Path:
        settings = ["--classes", name, "--training.augment_target=0.6", *of_seed(seed)]
        run = f"fine-tuned-{seed}-{length(draw)}-{name}"
        if name == draw.small:
            return train(draw.folder / run, data.path, budget.fine_tuned_kimg, settings, place, base)
        with in_turn(draw.shared / run, place):
            return train(draw.shared / run, whole, budget.fine_tuned_kimg, settings, place, base)

    if method == JOINT:
        return tried(joint, seed)
    base = tried(others, draw.base)
    return tried(fine_tuned, seed if name == draw.small else draw.base)


def of_seed(seed: int) -> list[str]:
    """What all generators are told."""
    return [f"--training.seed={seed}", f"--training.precision={PRECISION}"]


def tried(train_with: Callable[[int], Path], seed: int) -> Path:
    """A run with this seed, or with the first of some others if that diverges."""
    for one in range(seed, seed + (TRIES - 1) * AGAIN, AGAIN):
        with suppress(Diverged):
            return train_with(one)
    return train_with(seed + (TRIES - 1) * AGAIN)


@contextmanager
def in_turn(out: Path, place: Place) -> Iterator[None]:
    """Wait while another process trains a run that draws share."""
    turn, busy = out.with_name(f"{out.name}.turn"), "another process trains it"
    turn.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            place.check()
            try:
                stack.enter_context(locked(turn, busy))
                break
            except SamganError as error:
                if str(error) != busy:
                    raise
            time.sleep(WAIT)
        yield


def length(draw: Draw) -> str:
    """How a draw's generators are trained, as a part of a name: none of a trial, or of another arithmetic, is taken."""
    return f"{draw.place.budget.kimg:g}-{draw.place.budget.fine_tuned_kimg:g}-kimg-{ARITHMETIC}"


def train(out: Path, data: Path, kimg: float, settings: list[Any], place: Place, start: Path | None = None) -> Path:
    """Train a run, or go on with it; `start` is the run whose networks it begins with.

    Raises:
        Diverged: It did, now or before: a run goes on bit for bit, so it would again.
        Failed: It failed for another reason, now or before in this process.
    """
    begun = (out / "config.json").exists()
    diverged = out.with_name(f"{out.name}.diverged")
    if diverged.exists():
        raise Diverged(f"{out} diverged")
    if begun and Run.open(out).is_over():
        return out
    if out in _failed:
        raise _failed[out]
    more = ["--resume"] if begun else [*settings, f"--training.kimg={kimg}"]
    origin = [] if start is None else ["--start", start]  # again, since it may have been stopped before it had them
    try:
        call(["train", data, "--out", out, "--device", place.device, *more, *origin], place)
    except Diverged:
        diverged.touch()
        raise
    except Failed as error:
        _failed[out] = error
        raise
    return out


def origins(run: Path) -> set[Path]:
    """A run, and those with whose networks it began, which lie beside it or are shared by draws."""
    start = Run.open(run).environment.start
    if not start:
        return {run}
    beside = run.with_name(start.run)
    return {run, *origins(beside if beside.exists() else run.parent.parent / start.run)}


def described(runs: Sequence[Path]) -> tuple[Generator, ...]:
    """The records of runs, and then of those with whose networks they began."""
    return tuple(map(_described, [*runs, *sorted(set().union(*map(origins, runs)) - set(runs))]))


def _described(path: Path) -> Generator:
    run = Run.open(path)
    told = [line for line in run.stats() if line["kind"] == "scores"]
    last = told[-1] if told else {}
    return Generator(
        path.name, run.config.training.seed, open_model(path).sha256[:12], last.get("swd"), last.get("ms_ssim_gap")
    )


def seconds_of(runs: Iterable[Path]) -> float:
    """How long runs were trained, with those that they began with; each counts once."""
    every = set().union(*map(origins, runs))
    logs = ([line for line in Run.open(run).stats() if line["kind"] == "train"] for run in every)
    return float(sum(log[-1]["wall_seconds"] for log in logs if log))


def call(words: Sequence[Any], place: Place) -> None:
    """Run samgan; when time is over, it is asked to stop, and keeps what it has done.

    Raises:
        OutOfTime: Time is over.
        Diverged: It was a training whose numbers became NaN.
        Failed: It failed.
    """
    place.check()
    command = [sys.executable, "-m", "samgan", *map(str, words)]
    settings = os.environ | IN_FULL
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=settings) as program,
    ):
        try:
            program.wait(None if place.end == float("inf") else place.end - time.monotonic())
        except BaseException as error:  # also when this program is stopped
            program.terminate()
            program.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise OutOfTime from None
            raise
        said.seek(0)
        text = said.read()
    if program.returncode:
        sys.stderr.write(text)
        kind = Diverged if "training stopped" in text else Failed  # samgan's words for a loss or weight that is NaN
        raise kind(f"samgan {' '.join(map(str, words))}: status {program.returncode}")


def compute_in_full() -> None:
    """Let this process compute all of single precision on a GPU, too, as `call` does for others."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def stay_on(core: int) -> None:
    """Use one core, here and in programs that are called."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
