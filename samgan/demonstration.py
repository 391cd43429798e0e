"""The demo: X-rays by the model that comes with samgan, then all four steps on drawn phantoms, to watch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samgan import terminal
from samgan.api import sample
from samgan.config import Config
from samgan.data import prepare
from samgan.data.phantom import phantoms, write_phantoms
from samgan.devices import choose_device
from samgan.errors import UsageError
from samgan.files import Location, atomic_write, check_new_folder
from samgan.pages import png_picture
from samgan.pictures import SYNTHETIC, image_grid, write_png
from samgan.presets import preset_config
from samgan.sampling import SHIPPED
from samgan.scoring import Scores, evaluate
from samgan.scoring.report import Story
from samgan.scoring.words import summary
from samgan.seeds import check_seed
from samgan.training.run import train

MODEL = "pneumonia-64"
RESOLUTION = 32
PHANTOMS = 800
"""Each takes a processor 10 ms to draw."""
KIMG, MINUTES = 36.0, 2.4
"""Length of the training: it ends at whichever comes first, so that the demo never takes long."""
SNAPSHOTS = 8
MAGNIFY = 4
"""Width of a pixel in the picture that grows."""
SHOWN = 8
"""Images in a row of the picture that grows."""

TEXT = {"Description": f"Top row: drawn phantoms. Below: {SYNTHETIC}"}
NOTE = "Phantoms are not patients: a formula drew them, and nothing medical follows from them."
REFERENCE = "Drawn phantoms: a formula drew these chests. They show no patient."
OWN = (
    ("samgan prepare XRAYS xrays-64 --resolution 64", "reads PNG, JPEG, TIFF and DICOM files of the folder XRAYS"),
    ("samgan train xrays-64 --minutes 60 --out runs/mine", "trains on them for an hour"),
    ("samgan evaluate runs/mine --data xrays-64", "writes a page like this one"),
)
"""What to try next, with X-rays of one's own: commands, and what each does."""


@dataclass(frozen=True)
class Demo:
    """The results of the demo."""

    xrays: Path
    """Picture of the X-rays by the model that comes with samgan."""
    progress: Path
    """Picture of the training: a row for each snapshot."""
    run: Path
    samples: Path
    report: Path
    scores: Scores

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        paths = {name: str(getattr(self, name)) for name in ("xrays", "progress", "run", "samples", "report")}
        return {**paths, "scores": self.scores.to_dict()}

    def to_text(self) -> str:
        """What is real, drawn and synthetic, what came out, and what to try next."""
        commands = "\n".join(f"  {command:<52} # {meaning}" for command, meaning in OWN)
        return f"""
What is where
  synthetic  {self.xrays}: X-rays by {MODEL}, which was trained on real X-rays for an hour
  drawn      {self.run.parent / "phantoms"}: {PHANTOMS} phantoms, by a formula
  synthetic  {self.samples}: images by the model that was trained on the phantoms just now
  real       none: no image of the demo shows a patient
  report     {self.report}

{chr(10).join(verdict.sentence for verdict in summary(self.scores))}

With X-rays of your own:
{commands}
"""


def demo_config(seed: int = 0, kimg: float = KIMG) -> Config:
    """samgan-plus, small enough to learn phantoms in a minute or two; benchmarks/demo.md has what was tried."""
    return preset_config("samgan-plus", "cpu", RESOLUTION).override(
        {
            "preset": "demo",
            "network.num_classes": 2,  # NORMAL and PNEUMONIA of the phantoms
            "network.channel_base": 512,
            "training.kimg": kimg,
            "training.ema_ramp": 0.1,
            "training.rate_decay_kimg": 4.0,  # at a constant rate, the likeness of pairs keeps going up and down
            "training.seed": seed,
            "training.snapshot_every_kimg": max(kimg / SNAPSHOTS, 0.1),
            "training.log_every_kimg": min(0.2, kimg),
        }
    )


class _Watch:
    """A logger that adds a row to a picture at each snapshot, and says so: the same seeds, as training goes on.

    Above the rows of the generator there is one of phantoms, to compare with.
    """

    def __init__(self, path: Path, kimg: float, reference: UInt8[np.ndarray, "n 1 h w"]) -> None:
        self.path, self.kimg = path, kimg
        self.rows = [image_grid(reference, SHOWN)]
        self.scores: dict[str, float] = {}

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Keep the newest values of all."""
        self.scores |= values

    def image(self, name: str, images_seen: int, pixels: UInt8[np.ndarray, "c h w"], description: str) -> None:
        """Add a row of the snapshot's grid: half of it from each class, which the grid shows one below the other."""
        _, height, width = self.rows[0].shape
        lower = (pixels.shape[1] + 1) // 2  # a line of one pixel is between images
        left = (width + 1) // 2
        halves = pixels[:, :height, :left], pixels[:, lower : lower + height, : width - left]
        self.rows.append(np.concatenate(halves, axis=2))
        with atomic_write(self.path) as file:
            write_png(
                file, np.kron(image_grid(np.stack(self.rows), 1, gap=4), np.ones((1, MAGNIFY, MAGNIFY), np.uint8)), TEXT
            )
        if terminal.is_terminal():
            terminal.write("\r\x1b[2K")  # where the line of the training is
        generated, real = (self.scores.get(f"ms_ssim_{kind}", np.nan) for kind in ("generated", "real"))
        terminal.say(
            f"  {images_seen / 1000:.3g} of {self.kimg:g} kimg: row {len(self.rows)} of {self.path}; "
            f"likeness of pairs {generated:.3f} (phantoms: {real:.3f})"
        )

    def close(self, finished: bool) -> None:
        """The picture is complete."""


def demo(out: Location, *, seed: int = 0, kimg: float = KIMG, minutes: float = MINUTES, device: str = "auto") -> Demo:
    """Show what samgan is for: X-rays at once, then all four steps on phantoms, in less than three minutes.

    Args:
        out: New folder.
        seed: Of the phantoms and of the training.
        kimg: Length of the training, in thousands of images.
        minutes: The training ends after this many minutes, if `kimg` is not reached earlier.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        Where everything is, and the scores.

    Raises:
        UsageError: The seed or the length is out of range.
        SamganError: `out` exists and is not empty.
    """
    out = Path(out)
    check_seed(seed)
    if not minutes > 0:
        raise UsageError(f"--minutes {minutes:g}: expected more than 0")
    config = demo_config(seed, kimg)
    choose_device(device)
    check_new_folder(out, "name a new folder with --out")
    xrays, progress = out / "xrays" / "sheets" / "grid.png", out / "progress.png"
    sample(SHIPPED[MODEL].path, out / "xrays", sheets=["grid"], device=device)
    terminal.say(
        f"1/4  Synthetic chest X-rays, by {MODEL}, a model that comes with samgan: {xrays}\n"
        f"2/4  Drawing {PHANTOMS} phantoms to train on. {NOTE}"
    )
    write_phantoms(out / "phantoms", PHANTOMS // 2, RESOLUTION, seed=seed)
    data = prepare(out / "phantoms", out / "data", resolution=RESOLUTION)
    terminal.say(
        f"3/4  Training a new model on them, for {minutes:g} {'minute' if minutes == 1 else 'minutes'} at most. "
        f"Watch it learn: {progress} gets a row with each line below. Its first row is drawn; the others show "
        "the same eight seeds."
    )
    shown = np.concatenate(
        [phantoms(SHOWN // 2, RESOLUTION, seed=seed, pneumonia=kind, first=1) for kind in (False, True)]
    )
    watch = _Watch(progress, kimg, shown)
    run = train(config, data, out / "run", minutes=minutes, device=device, loggers=[watch])
    terminal.say("4/4  Sampling it and scoring the samples")
    sample(run.path, out / "samples", sheets=["grid"], device=device)
    scores, report = evaluate(
        run.path, data, out=out, device=device, features="radiograph", notes=[NOTE], story=_story(xrays)
    )
    return Demo(xrays, progress, run.path, out / "samples", report, scores)


def _story(xrays: Path) -> Story:
    """What the page of the demo says."""
    shipped = SHIPPED[MODEL]
    caption = f"The first 64 seeds. Trained on {shipped.data}."
    width = 12 * (shipped.resolution + 1)  # a sheet of 64 images, magnified by 1.5
    figure = png_picture(xrays.read_bytes(), MODEL, "a grid of 64 X-rays", SYNTHETIC, caption, width)
    return Story(
        title="samgan demo: a model learns to draw chests",
        introduction=(
            f"A formula drew {PHANTOMS} chests, called phantoms. Then a new model, which knew nothing, was trained on "
            "them for a minute or two. Here are its images beside the phantoms. Where this page says real, it means "
            "the phantoms.",
            f"Below are X-rays by {MODEL}, a model that comes with samgan: what an hour of training on real X-rays "
            "gives. They show no real person. No image on this page is of a patient.",
        ),
        reference="Drawn (phantoms)",
        reference_is=REFERENCE,
        examples=((f"X-rays of nobody, by {MODEL}", (figure,)),),
        next_steps=OWN,
    )
