"""What the server asks of the process that makes pictures, and what comes back: records, sent as lines of JSON.

Paths are bytes, as the system has them: JSON writes those as base64, and names of files need not be text.
"""

from typing import Literal

import msgspec


class Weights(msgspec.Struct, frozen=True):
    """Which model to use."""

    path: bytes
    """A run folder or a .safetensors file."""
    sha256: str = ""
    """The beginning of the hash that its weights must have; empty: any."""
    truncation: float = 1.0
    """As for `samgan.sampling.truncated`."""
    checkpoint: str = ""
    """Name of a file among the checkpoints of a run; empty: the newest."""


class Seeds(msgspec.Struct, frozen=True, tag=True):
    """Make the images of seeds, those that `samgan sample` makes."""

    weights: Weights
    seeds: tuple[int, ...]
    classes: tuple[str, ...] = ()
    """One for each seed; empty: as `samgan sample` chooses them."""


class Sheet(msgspec.Struct, frozen=True, tag=True):
    """Make the images of seeds as one picture, a grid."""

    weights: Weights
    seeds: tuple[int, ...]
    columns: int
    class_name: str = ""


class Walk(msgspec.Struct, frozen=True, tag=True):
    """Make the images on the way from the latent of one seed to that of another."""

    weights: Weights
    first: int
    last: int
    steps: int
    """There are so many images and one more, since both ends are among them."""
    class_name: str = ""
    """Empty: the class of the first seed."""


class Around(msgspec.Struct, frozen=True, tag=True):
    """Make the image of a seed, and images of latents near to its own."""

    weights: Weights
    seed: int
    count: int
    degrees: float
    """Angle between the latents; those of two seeds are about 90 degrees apart."""
    class_name: str = ""


class Inside(msgspec.Struct, frozen=True, tag=True):
    """Make pictures of what is within a generator, each a row of images, one for each seed.

    They are its images at every scale, smallest first; or its images, then for each layer of attention where it looks
    from the centre of the image.
    """

    weights: Weights
    seeds: tuple[int, ...]
    what: Literal["scales", "attention"]
    class_name: str = ""


class Files(msgspec.Struct, frozen=True, tag=True):
    """Write pictures as files into a folder, and pack them into one if there are several."""

    of: Seeds | Walk | Around
    """The task that makes the pictures. Its seeds follow one another, and have one class or are in turn of each; then
    the files are those of `samgan sample`."""
    file_format: str
    """A key of `samgan.provenance.FORMATS`."""
    folder: bytes
    """An empty folder."""


Making = Seeds | Sheet | Walk | Around | Inside
"""Tasks whose answer is `Made`."""


class Nearest(msgspec.Struct, frozen=True, tag=True):
    """Find the training image that is nearest to a picture."""

    of: Making
    """The task that makes the picture."""
    number: int
    """Its place among the pictures of that task."""
    data: bytes
    """The prepared set that the model was trained on."""
    features: bool = False
    """Whether to compare features, too."""


Task = Making | Files | Nearest


class Picture(msgspec.Struct, frozen=True):
    """What one picture is of."""

    seed: int
    class_name: str = ""
    words: str = ""
    """What it is, if it is not simply the image of its seed."""


class Made(msgspec.Struct, frozen=True, tag=True):
    """Pictures were made. Their PNG files, which carry their marks, follow, one after the other."""

    sha256: str
    """Of the weights."""
    images_seen: int
    pictures: tuple[Picture, ...]
    sizes: tuple[int, ...]
    """Bytes of each file."""


class Packed(msgspec.Struct, frozen=True, tag=True):
    """Files were written."""

    sha256: str
    name: str
    """Of the one file in the folder."""


class Near(msgspec.Struct, frozen=True):
    """The nearest training image by one measure."""

    measure: str
    """In words, as in "in pixels"."""
    row: int
    """Of the manifest."""
    mirrored: bool
    """Whether the training image is nearer when it is turned left to right."""
    distance: float
    held_out: int
    """Held-out images that were compared in the same way; 0 if there are none."""
    closer: int
    """How many of them are as close to a training image, or closer."""
    median: float
    """Of their distances; 0 if there are none."""


class Found(msgspec.Struct, frozen=True, tag=True):
    """Nearest training images were found, one by each measure."""

    sha256: str
    training: int
    """Number of training images that were searched."""
    near: tuple[Near, ...]
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far a task is that takes long; its answer comes later."""

    words: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It could not be done."""

    words: str
    usage: bool = False
    """Whether the request itself was wrong."""


Answer = Made | Packed | Found | Failed
Said = Answer | Progress
"""What a line of the process that makes pictures may be."""
