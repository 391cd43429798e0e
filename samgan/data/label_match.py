"""Find the image of the source that a row of a table of labels belongs to."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from samgan.data.readers import IMAGE_SUFFIXES

MORE_SUFFIXES = (".dicom", ".gz", ".nii", ".jpe")
"""Suffixes that a table may give its names although the source's files have others."""
NO_IMAGE = "no such image in the source"
SEVERAL_IMAGES = "several images of the source have this name"
NO_STUDY = "no such study in the source"
SEVERAL_STUDIES = "several folders of the source have the name of this study"
SEVERAL_ROWS = "rows with other folders name the same image"

Key = tuple[str, ...]
"""A path as its parts, the last first, in lower case, without the suffix of an image."""


class Matches(NamedTuple):
    """Which images belong to which names."""

    files: dict[str, tuple[int, ...]]
    """Positions of the images for each name of a table that has some."""
    reasons: dict[str, str]
    """For each other name, why it has none."""
    by_name: tuple[str, ...] = ()
    """Names whose folders differ from those of their image; the file's name told it."""
    by_number: tuple[str, ...] = ()
    """Names that are numbers without the leading zeros of their image's name."""


def tidy(name: str) -> str:
    """A path or identifier with forward slashes, in lower case and one form of Unicode."""
    name = unicodedata.normalize("NFC", name.strip().replace("\\", "/")).casefold()
    return re.sub(r"^/+|^(\./)+|(?<=/)/+", "", name)


def key_of(name: str) -> tuple[Key, str]:
    """The parts of a path, and its suffix if that is one of an image. Other dots, as in a UID, are part of the name."""
    *folders, last = [part for part in tidy(name).split("/") if part != "."] or [""]
    suffix = next((suffix for suffix in (*IMAGE_SUFFIXES, *MORE_SUFFIXES) if last.endswith(suffix)), "")
    stem = last.removesuffix(suffix) or last
    return (stem, *reversed(folders)), suffix


class _Claim(NamedTuple):
    """A name that matches an image."""

    name: str
    key: Key
    suffix: str
    score: int
    """Number of parts that the two paths have in common."""


class Files:
    """The images of a source, found by path, by name or by name without suffix."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.keys = [key_of(path) for path in paths]
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        self._by_number: dict[str, list[int]] = defaultdict(list)
        for index, (key, _) in enumerate(self.keys):
            self._by_stem[key[0]].append(index)
            if key[0].isdecimal():
                self._by_number[key[0].lstrip("0")].append(index)

    def match(self, names: Iterable[str]) -> Matches:
        """Match names of images with files.

        A name matches a file if one path is the end of the other; of several files, the one with the longest common
        path. Suffixes and capitals count only where they decide between files. If folders differ, a file name that
        occurs once in the source and once in the table still matches.

        Args:
            names: of one table.
        """
        matches = Matches({}, {})
        claims: dict[int, list[_Claim]] = defaultdict(list)
        apart: dict[str, list[tuple[str, list[int]]]] = defaultdict(list)
        by_number = []
        names = dict.fromkeys(names)
        has_folders = any("/" in name or "\\" in name for name in names)
        for name in names:
            key, suffix = key_of(name)
            candidates = self._by_stem.get(key[0], [])
            if not candidates and key[0].endswith(".0") and key[0][:-2].isdecimal():  # Excel's 123.0
                key = (key[0][:-2], *key[1:])
                candidates = self._by_stem.get(key[0], [])
            if not candidates and key[0].isdecimal():
                candidates = self._by_number.get(key[0].lstrip("0"), [])
                by_number += [name] if candidates else []
            if not candidates:
                matches.reasons[name] = NO_IMAGE
                continue
            scores = [(_common(key, self.keys[index][0]), index) for index in candidates]
            best = max(score for score, _ in scores)
            if best == 0:
                apart[key[0]].append((name, list(candidates)))
                continue
            chosen = self._decide(name, key, suffix, has_folders, [index for score, index in scores if score == best])
            if len(chosen) > 1:
                matches.reasons[name] = SEVERAL_IMAGES
            else:
                claims[chosen[0]].append(_Claim(name, key, suffix, best))
        matched_by_name = self._settle(claims, apart, matches)
        used = [name for name in by_number if name in matches.files]
        return matches._replace(by_name=tuple(matched_by_name), by_number=tuple(used))

    def _decide(self, name: str, key: Key, suffix: str, has_folders: bool, chosen: list[int]) -> list[int]:
        """Narrow down several images that a name matches equally well."""
        if len(chosen) > 1 and suffix:
            chosen = [index for index in chosen if self.keys[index][1] == suffix] or chosen
        if len(chosen) > 1 and has_folders:  # so a name without folders is a file at the top
            chosen = [index for index in chosen if self.keys[index][0] == key] or chosen
        if len(chosen) > 1:
            end = name.replace("\\", "/")
            chosen = [index for index in chosen if self.paths[index].endswith(end)] or chosen
        return chosen

    def _settle(
        self, claims: dict[int, list["_Claim"]], apart: dict[str, list[tuple[str, list[int]]]], matches: Matches
    ) -> list[str]:
        """Give each file its names, unless these are paths to several files; return names that only the name told."""
        for index, own in claims.items():
            key, suffix = self.keys[index]
            if any(claim.key == key for claim in own):  # an exact path is better than one with more folders
                accepted = [claim for claim in own if len(claim.key) <= len(key)]
            else:
                accepted = own
            if any(claim.suffix == suffix for claim in accepted):
                accepted = [claim for claim in accepted if claim.suffix in ("", suffix)]
            most = max(claim.score for claim in accepted)
            accepted = [claim for claim in accepted if claim.score == most]
            if len({claim.key for claim in accepted if len(claim.key) > len(key)}) > 1:
                accepted = []
            for claim in accepted:
                matches.files[claim.name] = (index,)
            for claim in own:
                if claim not in accepted:
                    matches.reasons[claim.name] = SEVERAL_ROWS
        by_name = []
        for names in apart.values():
            for name, candidates in names:
                if len(names) == len(candidates) == 1 and candidates[0] not in claims:
                    matches.files[name] = (candidates[0],)
                    by_name.append(name)
                else:
                    matches.reasons[name] = SEVERAL_IMAGES if len(candidates) > 1 else NO_IMAGE
        return by_name


def _common(one: Key, other: Key) -> int:
    """Number of parts that two paths have in common from their ends; 0 if neither is the end of the other."""
    shorter = min(len(one), len(other))
    return shorter if one[1:shorter] == other[1:shorter] else 0


class Studies:
    """The folders of a source that are studies, as p10000032/s50414267 of MIMIC-CXR."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._by_study: dict[str, list[int]] = defaultdict(list)
        self._folders: list[list[str]] = []
        for index, path in enumerate(paths):
            folders = tidy(path).split("/")[:-1]
            self._folders.append(folders)
            for folder in set(folders):
                self._by_study[folder].append(index)

    def match(self, studies: Iterable[tuple[str, str, str]]) -> Matches:
        """Match studies with the images in their folders.

        Args:
            studies: a name for messages, the patient (may be empty) and the study; folders may have p and s before.
        """
        matches = Matches({}, {})
        for name, patient, study in studies:
            study, patient = (re.sub(r"^(\d+)\.0$", r"\1", tidy(text)) for text in (study, patient))
            folder = f"s{study}" if f"s{study}" in self._by_study else study
            found = self._by_study.get(folder, [])
            own = [index for index in found if {f"p{patient}", patient} & set(self._folders[index])]
            found = own or found
            parents = {tuple(self._folders[index][: self._folders[index].index(folder)]) for index in found}
            if len(parents) == 1:
                matches.files[name] = tuple(found)
            else:
                matches.reasons[name] = SEVERAL_STUDIES if parents else NO_STUDY
        return matches
