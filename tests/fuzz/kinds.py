"""What is damaged, and which commands then read it."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import mutate
from .world import BALANCE, TABLE2, TINY

Damage = Callable[[bytes, random.Random], bytes]
OUT = "out"


@dataclass(frozen=True)
class Kind:
    """Files of one kind."""

    name: str
    files: Sequence[str]
    """Patterns of files in the world; one of those that match is damaged."""
    damage: Damage
    commands: Sequence[str]
    """Commands that read it, one of which is tried; {file} stands for the damaged file."""
    needs: Sequence[str] = ()
    """What else of the world the commands read."""
    weight: int = 1


SET, RUN = "set", "run"
PREPARE = (
    "prepare pictures out --resolution 32 --holdout 0 --workers 1 --max-bad 0",
    "prepare --explain {file} out.png",
)
OF_SET = (
    *("subset set out --images NORMAL=3", "inspect set --no-pictures", "card set", "train set --resume --out run"),
    *("evaluate many --data set --split all --count 8 --features radiograph", "audit many --data set --no-pictures"),
)
OF_MODEL = ("sample {model} --count 1 --out out", "export {model} out.safetensors", "verify --run {model} png/*.png")
OF_RUN = (*(words.replace("{model}", RUN) for words in OF_MODEL), "card run --data set", "publish run out --draft")
LONGER = ("train set --out run --resume --training.kimg=0.02", f"train set --out out --start run {' '.join(TINY)}")
"""Commands that take steps, and a second."""
WITH_SETTINGS = ("train --config settings.yaml --dry-run", "train set --out out --config settings.yaml --dry-run")

KINDS = (
    Kind("PNG", ("pictures/*.png",), mutate.damage_png, PREPARE, weight=3),
    Kind("JPEG, TIFF, BMP, WebP", ("pictures/*.[jtbw]*",), mutate.damage, PREPARE, weight=3),
    Kind("DICOM", ("pictures/*.dcm",), mutate.damage_dicom, PREPARE, weight=4),
    Kind(
        "archive of images", ("pictures/set.zip",), mutate.damage_zip, ("prepare {file} out --resolution 32",), weight=2
    ),
    Kind("arrays", ("pictures/set.npz",), mutate.damage_zip, ("prepare {file} out --resolution 32",), weight=2),
    Kind(
        "table of labels",
        ("labels.csv",),
        mutate.damage_table,
        ("prepare images out --resolution 32 --labels labels.csv --workers 1",),
        ("images",),
        weight=2,
    ),
    Kind("dataset.json", ("set/dataset.json",), mutate.damage_json, OF_SET, (SET, RUN, "many"), weight=3),
    Kind("manifest.csv", ("set/manifest.csv",), mutate.damage_table, OF_SET, (SET, RUN, "many"), weight=2),
    Kind("images.npy", ("set/images.npy",), mutate.damage_array, OF_SET, (SET, RUN, "many")),
    Kind(
        "config.json",
        ("run/config.json",),
        mutate.damage_json,
        (*OF_RUN, "train set --out run --resume"),
        (RUN, SET, "png"),
        weight=3,
    ),
    Kind(
        "small files of a run",
        ("run/environment.json", "run/checkpoints/best.json"),
        mutate.damage_json,
        (*OF_RUN, "sample run --checkpoint best --out out --count 1", "train set --out run --resume"),
        (RUN, SET, "png"),
        weight=2,
    ),
    Kind(
        "stats.jsonl",
        ("run/stats.jsonl",),
        mutate.damage_lines,
        (*["card run --data set", "train set --out run --resume"] * 4, LONGER[0]),
        (RUN, SET, "table"),
    ),
    Kind(
        "checkpoint",
        ("run/checkpoints/*.pt",),
        mutate.damage_zip,
        (*OF_RUN, *["train set --out run --resume"] * 8, *LONGER),
        (RUN, SET, "png"),
        weight=3,
    ),
    Kind(
        "weights",
        ("model.safetensors",),
        mutate.damage_safetensors,
        tuple(words.replace("{model}", "model.safetensors") for words in OF_MODEL),
        ("png",),
        weight=3,
    ),
    Kind(
        "marked PNG",
        ("png*/*.png", "imagefolder/*.png"),
        mutate.damage_png,
        ("verify {file}", "verify {file} --run run"),
        (RUN,),
        weight=2,
    ),
    Kind(
        "marked DICOM",
        ("dicom/*.dcm",),
        mutate.damage_dicom,
        ("verify {file}", "verify {file} --run run"),
        (RUN,),
        weight=2,
    ),
    Kind("marked arrays", ("npz/*.npz", "medmnist/*.npz"), mutate.damage_zip, ("verify {file}",), weight=2),
    Kind(
        "scores and audits",
        ("run/scores.json", "run/audit.json"),
        mutate.damage_json,
        ("card run --data set", "publish run out --draft"),
        (RUN, SET),
        weight=3,
    ),
    Kind("card", ("run/MODEL_CARD.md",), mutate.damage_text, ("publish run out --draft",), (RUN, SET)),
    Kind(
        "published folder",
        ("published/*",),
        mutate.damage,
        ("publish run published --draft", "sample published/model.safetensors --out out --count 1"),
        (RUN, "published"),
    ),
    Kind("YAML of settings", ("settings.yaml",), mutate.damage_text, WITH_SETTINGS, (SET,), weight=2),
    Kind("JSON of settings", ("run/config.json",), mutate.damage_json, ("train --config run/config.json --dry-run",)),
    Kind(
        "study of a balanced set",
        ("balanced/*.json", "balanced/screening.csv", "balanced/*/*/*.json"),
        lambda data, rng: (mutate.damage_json if data.startswith(b"{") else mutate.damage_table)(data, rng),
        (f"balance lacking balanced {BALANCE}",),
        ("balanced", "lacking", "other"),
        weight=2,
    ),
    Kind(
        "row of a table",
        ("table/rows/*.json",),
        mutate.damage_json,
        ("table2 set --out table {table2}",),
        (SET, "table"),
        weight=2,
    ),
    Kind("command line", (), mutate.damage, (), weight=5),
)

LINES = (
    *PREPARE[:1],
    *OF_SET,
    *OF_RUN,
    f"train set --out out --dry-run {' '.join(TINY)}",
    "train set --out out --dry-run --preset samgan-plus --classes NORMAL --minutes 1 --processes 1",
    "prepare images out --labels labels.csv --image-column Image --views PA AP --several first --seed 1",
    "prepare pictures out --resolution 32 --fit pad --normalize clahe --bits 12 --patient-regex (.) --holdout 0.5",
    "subset set out --patients NORMAL=1 --classes NORMAL --resolution 32 --seed 1",
    "sample run --out out --count 1 --class NORMAL --truncation 1 --format npz --sheets grid --checkpoint best",
    "evaluate many --data set --count 8 --split all --protocol standard --seed 0 --features radiograph --out out",
    "audit many --data set --count 8 --fail-above 0.5 --features radiograph --out out",
    "table2 set --dry-run --rows msg-gan-8 --seeds 1 --kimg 1 --score-at 1 --cores-per-job 1",
    "balance lacking balanced --target 22 --run other --seeds 0 --confidence 0.5 --format png",
    "presets --json",
    "settings --json",
    "models pneumonia-64",
)
WORDS = (
    *("", " ", "-", "--", "-1", "0", "1.5", "nan", "inf", "-inf", "1e999", "18446744073709551616", "0x10", "1_0"),
    *("\u0661\u0662", "\x1b[2J", "a\nb", "\udcff", "\u202e", "x" * 500, "=", "[", "{}", "a=b", "NORMAL=0", "NORMAL=-1"),
    *(
        ".",
        "..",
        "out/../out",
        "set",
        "run",
        "images",
        "pictures",
        "missing",
        "missing/x",
        "settings.yaml",
        "/dev/null",
    ),
    *(
        "--json",
        "--seed",
        "--out",
        "--help",
        "--count",
        "--data",
        "--training.kimg",
        "--training.kimg=",
        "--network.x=1",
    ),
    *(
        "--training.batch_size=0",
        "--training.kimg=nan",
        "--network.resolution=[]",
        "--training.adam_betas=[0,2]",
        "None",
    ),
    *(
        "(",
        "(?P<",
        "[a",
        "*",
        "%s",
        "%(prog)s",
        "{file}",
        "$HOME",
        "NORMAL",
        "paper",
        "legacy",
        "cpu",
        "cuda",
        "newest",
    ),
)
"""Words for a command line. No number among them is one that a command would work on for hours."""


@dataclass(frozen=True)
class Case:
    """One input: a folder with a damaged file, and the command to try."""

    kind: str
    words: list[str]
    damaged: Path | None


def make_case(world: Path, box: Path, seed: int, number: int) -> Case:
    """Make an input in the new folder `box`; the same seed and number give the same input."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choices(KINDS, [kind.weight for kind in KINDS])[0]
    box.mkdir()
    if not kind.files:
        line = rng.choice(LINES)
        for name in world.iterdir():
            if name.name in line or name.name in (SET, RUN):
                _copy(name, box / name.name)
        return Case(kind.name, damage_words(line.split(), rng), None)
    found = sorted(path for pattern in kind.files for path in world.glob(pattern) if path.is_file())
    original = rng.choice(found)
    damaged = box / original.relative_to(world)
    line = rng.choice(kind.commands)
    for name in kind.needs:
        _copy(world / name, box / name)
    if line.startswith("prepare pictures"):  # beside sound ones, so that there is a set if it is readable
        for other in sorted((world / "images/NORMAL").iterdir())[1:4]:
            _copy(other, box / "pictures" / other.name)
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(kind.damage(original.read_bytes(), rng))
    line = line.replace("{file}", str(damaged.relative_to(box))).replace("{table2}", TABLE2)
    words = [word for part in line.split() for word in (sorted(_glob(box, part)) if "*" in part else [part])]
    return Case(kind.name, words, damaged)


def damage_words(words: list[str], rng: random.Random) -> list[str]:
    """Change one to three words of a command line, but neither which command it is nor that it is a dry run."""
    is_dry = "--dry-run" in words
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, what = rng.randrange(1, len(words) + 1), rng.random()
        if what < 0.55:
            words = [*words[:place], rng.choice(WORDS), *words[place + 1 :]]
        elif what < 0.75:
            words = [*words[:place], rng.choice(WORDS), *words[place:]]
        elif what < 0.85:
            words = words[:place] + words[place + 1 :]
        else:
            words = [*words[:place], words[rng.randrange(len(words))], *words[place:]]
    return words + ["--dry-run"] * (is_dry and "--dry-run" not in words)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _glob(box: Path, pattern: str) -> list[str]:
    return [str(path.relative_to(box)) for path in box.glob(pattern)]
