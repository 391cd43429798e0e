"""audit.json and screening.json: what an audit found, and which synthetic images were kept."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from samgan.data import DataUsed
from samgan.documents import Document
from samgan.metrics.constants import COPY, PLAIN_CHANGES
from samgan.sampling import Origin
from samgan.scoring.documents import short_name

BY_CHANCE = 0.025
"""Probability below which something is not put down to chance, as of one side of a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FoundSign:
    """A share of the synthetic images, and the share to expect from a generator that knows no training image."""

    share: Estimate
    expected: Estimate
    """The interval holds the share among as many images in 95 % of cases."""
    count: int
    """Number of synthetic images that show the sign."""
    found: bool
    """Whether the share is above the interval of `expected`."""
    threshold: float | None = None
    """Distance below which an image counts; None for a sign without one."""


@dataclass(frozen=True)
class Quantiles:
    """Distances to the nearest training image."""

    least: float
    first_percentile: float
    median: float


@dataclass(frozen=True)
class Distances:
    """Distances to the nearest training image, of both kinds of images."""

    synthetic: Quantiles
    held_out: Quantiles


@dataclass(frozen=True)
class Pair:
    """An image beside its nearest training image."""

    place: int
    """The index of the image among those that were audited."""
    image: str
    """Its name: a seed (with its class, if the model has classes), a file, or a row of the manifest."""
    training: int
    """Row of the training image in the manifest."""
    mirrored: bool
    """Whether the training image is nearer when it is turned left to right."""
    distance: float
    farther: float | None = None
    """Share of the held-out images that are farther from their nearest training image; None in earlier versions."""


@dataclass(frozen=True)
class PairImages:
    """The PNG file beside audit.json that has the synthetic images of the closest pairs, without the real ones."""

    file: str
    columns: int
    """The images lie row by row, without lines in between."""
    places: tuple[int, ...]
    """`Pair.place` of each, in order."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one measure of distance found."""

    measure: str
    """The distance, in words."""
    closer: FoundSign
    """Images that are closer to a training image than the closest 1 % of held-out images are."""
    nearest_is_training: FoundSign
    """Images whose nearest real image, of training and held-out images together, is a training image."""
    planted: dict[str, float]
    """Share of changed copies of training images that `closer` would have found, by change."""
    distances: Distances
    pairs: tuple[Pair, ...]
    """Synthetic images and training images, closest first; all that count as close are among them."""
    held_out_pairs: tuple[Pair, ...]
    """The same for held-out images, for comparison."""


@dataclass(frozen=True, kw_only=True)
class MeasuredFeatures(Measured):
    """What the distance of features found, and the network that the features are from."""

    name: str
    sha256: str
    dim: int | None


@dataclass(frozen=True)
class Membership:
    """Whether the discriminator's logits tell training images from held-out ones."""

    auc: Estimate
    """0.5: they do not tell them apart; 1: they do so without an error; 0: so do they, held-out ones higher."""
    images: int
    """Number of training images; there are as many held-out ones."""
    found: bool
    """Whether the interval of `auc` lies above 0.5, or below it."""


@dataclass(frozen=True)
class MirroredShares:
    """Share of images with the heart on the wrong side."""

    synthetic: Estimate
    held_out: Estimate
    trained_with_flips: bool | None
    """None if the settings of the training are not known."""


@dataclass(frozen=True)
class AlikeShares:
    """Share of images that are like an earlier one of their kind."""

    distance: float
    """Two images are alike if they are closer than this."""
    images: int
    """Number of images of each kind that were compared."""
    synthetic: Estimate
    training: Estimate


@dataclass(frozen=True)
class RealCounts:
    """Images of one split, and the patients they show."""

    images: int
    patients: int


@dataclass(frozen=True)
class AuditCounts:
    """Images that were compared."""

    synthetic: int
    training: RealCounts
    held_out: RealCounts


@dataclass(frozen=True)
class SkippedPart:
    """A part of the audit that was left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AuditDocument(Document):
    """What an audit found. docs/audit.md says what each number means and what it does not show."""

    KIND: ClassVar[str] = "an audit"
    MADE_BY: ClassVar[str] = "samgan audit"

    verdict: str
    """What was found and what that does not prove, in sentences."""
    signs: tuple[str, ...]
    """Names of the signs that were found, such as "copies", "pixels.closer" or "membership"."""
    pixels: Measured
    features: MeasuredFeatures | None
    membership: Membership | None
    mirrored: MirroredShares
    alike: AlikeShares
    counts: AuditCounts
    generated: Origin
    data: DataUsed
    seed: int
    notes: tuple[str, ...] = ()
    """What a reader needs to know to judge the numbers."""
    skipped: tuple[SkippedPart, ...] = ()
    samgan: str = ""
    """The version that made the audit."""
    images: PairImages | None = None
    """None if the audit was to show no pictures, or is of an earlier version."""

    @property
    def measures(self) -> dict[str, Measured]:
        """What each measure found, by "in pixels" and, for example, "by radiograph features"."""
        found: dict[str, Measured] = {"in pixels": self.pixels}
        if self.features is not None:
            found[f"by {short_name(self.features.name)} features"] = self.features
        return found

    @property
    def copies(self) -> int:
        """Images that are copies: in pixels closer to a training image than any held-out image, and than 0.001.

        Up to `alike.distance` they are copies if there are more of them than new real images would be by chance.
        """
        least = self.pixels.distances.held_out.least
        sure, alike = (
            sum(pair.distance < min(limit, least) for pair in self.pixels.pairs)
            for limit in (COPY, self.alike.distance)
        )
        # That the closest ones of all are all synthetic has this probability, if none of them is a copy.
        every, held_out = self.counts.synthetic, self.counts.held_out.images
        chance = math.prod((every - place) / (every + held_out - place) for place in range(alike))
        return alike if chance < BY_CHANCE else sure

    @property
    def missed(self) -> dict[str, float]:
        """Plain changes of which no measure finds half of the planted copies, with the largest share that one finds."""
        found = {
            change: max(one.planted.get(change, 1.0) for one in self.measures.values()) for change in PLAIN_CHANGES
        }
        return {change: share for change, share in found.items() if share < 0.5}

    def exceeds(self, limit: float) -> bool:
        """Whether more than a share of the images is close, one is a copy, or copies could not have been found."""
        close = max(measured.closer.share.value for measured in self.measures.values())
        return close > limit or bool(self.copies or self.missed)

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Before schema numbers, the 1st percentile of distances had the key "1 %"."""
        for space in ("pixels", "features"):
            if measured := tree.get(space):
                distances = {
                    kind: {"first_percentile": quantiles["1 %"], **quantiles}
                    for kind, quantiles in measured["distances"].items()
                }
                tree[space] = {**measured, "distances": distances}
        return tree


@dataclass(frozen=True)
class ScreenedClass:
    """How many candidates of one class were kept, and which rules left the others out."""

    missing: int
    """Number of images that were wanted."""
    candidates: int
    kept: int
    left_out: dict[str, int]
    """Number of images by reason, one of `samgan.trust.REASONS`."""
    features: str | None
    """The network whose features were compared; None: pixels only."""
    rules: tuple[str, ...]
    """As sentences, with their numbers."""


@dataclass(frozen=True, kw_only=True)
class ScreeningDocument(Document):
    """screening.json: what screening kept of each class that lacked images."""

    KIND: ClassVar[str] = "a screening"
    MADE_BY: ClassVar[str] = "samgan balance, after removing it"

    classes: dict[str, ScreenedClass]

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Before schema numbers, the classes were the document."""
        return {"classes": tree}
