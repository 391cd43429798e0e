"""Compare the times of prepare, sample and the start of the command with their goals.

    python benchmarks/bench_data.py [--source FOLDER] [--json]

FOLDER: JPEG files in one sub-folder per class. By default, as many as the Kermany X-rays (5,216 of 224x224) are made.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, run

import numpy as np
from lines import Line, add_json_option, show
from PIL import Image

from samgan.devices import make_fabric
from samgan.presets import preset_config
from samgan.runs import Run
from samgan.training import train_loop

IMAGES, SIDE = 5216, 224
SAMPLES = 3616


def command(*arguments: object) -> float:
    """Seconds that a samgan command takes."""
    start = time.perf_counter()
    script = "import sys; from samgan.commands.main import main; sys.exit(main())"
    run([sys.executable, "-c", script, *map(str, arguments)], check=True, stdout=DEVNULL, stderr=DEVNULL)
    return time.perf_counter() - start


def write_source(folder: Path) -> None:
    """Write smooth random pictures, which compress like radiographs."""
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / ("NORMAL", "PNEUMONIA")[number % 2] / f"person{number}_{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


def write_run(folder: Path) -> None:
    """Write a run of one step at the CPU scale."""
    config = preset_config("msg-gan-6", "cpu").override({"training.kimg": 0.016})
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 64, 64), dtype=np.uint8)
    train_loop(config, images, Run.create(folder, config), make_fabric("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of JPEG files")
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.source or folder / "source"
        if not options.source:
            write_source(source)
        count = sum(1 for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        prepare = ("prepare", source, folder / "set", "--resolution", 64)
        rate, again = count / command(*prepare), command(*prepare)
        write_run(folder / "run")
        sampled = command("sample", folder / "run", "--count", SAMPLES, "--out", folder / "samples", "--device", "cpu")
    started = statistics.median(command("--help") for _ in range(5))
    kind = "given" if options.source else "made"
    lines = [
        Line(f"prepare {count} JPEG files ({kind}) to 64 px", rate, 400, " images/s", at_least=True),
        Line("prepare again, nothing new", again, 2.0, " s"),
        Line(f"sample {SAMPLES} PNG files at L=64", sampled, 20.0, " s"),
        Line("samgan --help", started, 0.3, " s"),
    ]
    show(lines, options.json)


if __name__ == "__main__":
    main()
