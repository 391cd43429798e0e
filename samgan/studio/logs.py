"""The log of a run, read piece by piece: curves for the page, and signs of a collapse, however long it is."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from samgan.runs import Collapse, find_collapse

PIECE = 1 << 22
"""Bytes that are read at a time: some 10,000 lines."""
POINTS = 600
"""Points of a curve from one piece."""
TRAIN = (
    *("loss_discriminator", "loss_generator", "gradient_discriminator", "gradient_generator"),
    *("images_per_second", "augment"),
)
SCORES = ("quick_score", "swd", "ms_ssim_generated", "ms_ssim_real")


class Line(msgspec.Struct):
    """A line of `stats.jsonl`, as far as curves and the alarm need it."""

    kind: str
    step: int
    images_seen: int
    wall_seconds: float | None = None
    images_per_second: float | None = None
    loss_discriminator: float | None = None
    loss_generator: float | None = None
    gradient_discriminator: float | None = None
    gradient_generator: float | None = None
    sign_real: float | None = None
    augment: float | None = None
    quick_score: float | None = None
    swd: float | None = None
    ms_ssim_gap: float | None = None
    ms_ssim_real: float | None = None
    ms_ssim_generated: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The line without what it does not say."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


_DECODER = msgspec.json.Decoder(Line)


@dataclass(frozen=True)
class Piece:
    """A part of a log."""

    lines: list[Line]
    """Those that are whole; what is torn is left out."""
    file: int
    """Which file it is: another number means that the log was replaced."""
    start: int
    """Where the piece begins; 0 if what was asked for is not there, as after a replacement."""
    after: int
    """Where the next piece begins."""
    size: int
    """Of the whole file, in bytes."""


def read_piece(path: Path, file: int = 0, after: int = 0, most: int = PIECE) -> Piece:
    """Read the lines of a log from a byte offset on.

    Args:
        path: `stats.jsonl`.
        file: `Piece.file` of the piece before.
        after: `Piece.after` of the piece before.
        most: Bytes to read.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with open(path, "rb") as opened:
        size, own = opened.seek(0, 2), path.stat().st_ino
        if own != file or not 0 <= after <= size:
            after = 0
        opened.seek(after)
        data = opened.read(most)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == most:
        end = most  # a line that is longer than any of ours: pass over it
    lines = []
    for text in data[:end].splitlines():
        try:
            lines.append(_DECODER.decode(text))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # torn by a crash
    return Piece(lines, own, after, after + end, size)


def curves(lines: list[Line], points: int = POINTS) -> dict[str, dict[str, list[float | None]]]:
    """Columns of numbers over kimg, for lines of training and for scores.

    If there are more lines than points, two points stand for each stretch of lines: its lowest values at its beginning
    and its highest at its end, so that spikes stay.

    Returns:
        By kind: "kimg" and, with None where there is no value, each name that has values.
    """
    return {
        kind: _columns(_unrepeated([line for line in lines if line.kind == kind]), names, points)
        for kind, names in (("train", TRAIN), ("scores", SCORES))
    }


def _unrepeated(lines: list[Line]) -> list[Line]:
    """Lines in order of step: after a resume, later lines replace those of the same steps."""
    kept: list[Line] = []
    for line in lines:
        while kept and kept[-1].step >= line.step:
            kept.pop()
        kept.append(line)
    return kept


def _columns(lines: list[Line], names: tuple[str, ...], points: int) -> dict[str, list[float | None]]:
    stretch = max(1, -(-2 * len(lines) // points)) if len(lines) > points else 1
    columns: dict[str, list[float | None]] = {"kimg": [], **{name: [] for name in names}}
    for start in range(0, len(lines), stretch):
        part = lines[start : start + stretch]
        ends = [(part[0], min), (part[-1], max)] if len(part) > 1 else [(part[0], min)]
        for line, extreme in ends:
            columns["kimg"].append(line.images_seen / 1000)
            for name in names:
                values = [value for each in part if (value := getattr(each, name)) is not None]
                columns[name].append(extreme(values) if values else None)
    return {name: column for name, column in columns.items() if name == "kimg" or any(v is not None for v in column)}


@dataclass
class Alarm:
    """Looks for a collapse in the log of one run, and remembers what it has read.

    Of the lines between two snapshots it keeps two: the last, and the one with the largest gradient of the generator.
    `find_collapse` gives the same answer for these as for all.
    """

    every: int
    """Steps from one snapshot to the next."""
    file: int = 0
    after: int = 0
    size: int = 0
    scores: dict[int, Line] = field(default_factory=dict)
    last: dict[int, Line] = field(default_factory=dict)
    steepest: dict[int, Line] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def read(self) -> float:
        """Share of the log that has been read."""
        return self.after / self.size if self.size else 1.0

    def look(self, path: Path, seconds: float = 0.3) -> Collapse | None:
        """Read on, for some time at most, and say whether what has been read shows a collapse.

        Raises:
            OSError: The file is missing or cannot be read.
        """
        with self.lock:
            end = time.monotonic() + seconds
            while True:
                piece = read_piece(path, self.file, self.after)
                if piece.start != self.after or piece.file != self.file:
                    self.scores, self.last, self.steepest = {}, {}, {}
                moved = piece.after > piece.start
                self.file, self.after, self.size = piece.file, piece.after, piece.size
                for line in piece.lines:
                    self._add(line)
                if not moved or time.monotonic() > end:
                    break
            kept = {id(line): line for each in (self.steepest, self.last, self.scores) for line in each.values()}
            return find_collapse(line.to_dict() for line in kept.values())

    def _add(self, line: Line) -> None:
        if line.kind == "scores":
            self.scores[line.step] = line
        elif line.kind == "train":
            number = -(-line.step // self.every)
            self.last[number] = line
            before = self.steepest.get(number)
            if before is None or (line.gradient_generator or 0.0) > (before.gradient_generator or 0.0):
                self.steepest[number] = line
