"""The trained generators that come with samgan, by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from samgan.errors import SamganError
from samgan.sampling.hub import WEIGHTS_FILE

FOLDER = Path(__file__).parents[1] / "models"


@dataclass(frozen=True, kw_only=True)
class ShippedScore:
    """A score of a shipped model beside that of real images, at the same count."""

    label: str
    value: float
    real: float


@dataclass(frozen=True, kw_only=True)
class ShippedModel:
    """A generator that is part of the package."""

    name: str
    summary: str
    """What it makes, in one line."""
    resolution: int
    """Height and width of its images in pixels."""
    data: str
    """What it was trained on, and the attribution that the data's terms ask for."""
    licence: str
    scores: tuple[ShippedScore, ...]
    scored_with: str
    """The features, and how many images of which split were compared."""

    @property
    def path(self) -> Path:
        """The file of its weights, as `samgan export` writes it."""
        return FOLDER / f"{self.name}.safetensors"

    @property
    def card(self) -> str:
        """Its model card, in Markdown."""
        return (FOLDER / f"{self.name}.md").read_text(encoding="utf-8")

    def to_text(self) -> str:
        """Name, size, scores, data and licence, for a reader."""
        scores = ", ".join(f"{score.label} {score.value:g} (real {score.real:g})" for score in self.scores)
        return "\n".join(
            (
                f"{self.name}: {self.summary}",
                f"  size     {self.resolution} x {self.resolution} px, {self.path.stat().st_size / 1e6:.1f} MB",
                f"  scores   {scores}; {self.scored_with}",
                f"  data     {self.data}",
                f"  licence  {self.licence}",
                f"  use      samgan sample {self.name} --out xrays",
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the path and size of its file."""
        return {**msgspec.to_builtins(self), "path": str(self.path), "bytes": self.path.stat().st_size}


SHIPPED = {
    model.name: model
    for model in (
        ShippedModel(
            name="pneumonia-64",
            summary="chest X-rays of children with pneumonia; samgan-plus, an hour of one CPU core",
            resolution=64,
            data="D. Kermany, K. Zhang, M. Goldbaum (2018), Mendeley Data, doi 10.17632/rscbjbr9sj.2, CC BY 4.0; "
            "3,080 images of the class PNEUMONIA, resized to 64 px",
            licence="apache-2.0",
            scores=(
                ShippedScore(label="Frechet", value=0.086, real=0.031),
                ShippedScore(label="recall", value=0.795, real=0.891),
                ShippedScore(label="MS-SSIM", value=0.576, real=0.578),
            ),
            scored_with="stand-in Inception; 1000 images against 1000 of split train",
        ),
    )
}
"""By name. Each has a file and a card in `samgan/models/`."""


def locate(source: Path) -> Path:
    """The file of a model that comes with samgan or is in a folder of `samgan publish`; any other source as it is.

    The name of a shipped model stands for it only if there is nothing of that name here.
    """
    shipped = SHIPPED.get(str(source))
    if shipped and not source.exists():
        return shipped.path
    published = source / WEIGHTS_FILE
    return published if published.is_file() and not (source / "checkpoints").exists() else source


def check_known(source: Path) -> None:
    """Raise SamganError if `source` looks like the name of a model and is none, and is no file either."""
    if not source.exists() and len(source.parts) == 1 and not source.suffix:
        raise SamganError(
            f"{source}: expected a run folder, a .safetensors file, hf:OWNER/NAME, or a model that comes with samgan "
            f"({', '.join(SHIPPED)})"
        )
