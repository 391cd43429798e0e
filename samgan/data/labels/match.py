"""Find the image of the source that a row of a table of labels belongs to."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from samgan.data.readers import IMAGE_SUFFIXES
from samgan.data.sources.folder_names import SPLITS

MORE_SUFFIXES = (".dicom", ".gz", ".nii", ".jpe")
"""Suffixes that a table may give its names although the source's files have others."""
ALL_SUFFIXES = (*IMAGE_SUFFIXES, *MORE_SUFFIXES)
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
    """Names whose folders differ from those of their image; the rest of the path or the file's name told it."""
    by_number: tuple[str, ...] = ()
    """Names that are numbers without the leading zeros of their image's name."""


def tidy(name: str) -> list[str]:
    """The parts of a path or identifier, the last first, in lower case and one form of Unicode."""
    name = name.strip().casefold().replace("\\", "/")
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    parts = name.split("/")
    if "" in parts or "." in parts:
        parts = [part for part in parts if part not in ("", ".")]
    parts.reverse()
    return parts


def key_of(name: str) -> tuple[Key, str]:
    """The parts of a path, and its suffix if that is one of an image. Other dots, as in a UID, are part of the name."""
    parts = tidy(name) or [""]
    last = parts[0]
    if not last.endswith(ALL_SUFFIXES):
        return tuple(parts), ""
    suffix = next(suffix for suffix in ALL_SUFFIXES if last.endswith(suffix))
    parts[0] = last.removesuffix(suffix) or last
    return tuple(parts), suffix


def _identifier(text: str) -> str:
    """An identifier of a patient or study as folders have it; 123 for 123.0, as Excel and pandas write numbers."""
    text = text.strip().casefold()
    return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text


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
        self._top = _common_top([key for key, _ in self.keys])
        for index, (key, _) in enumerate(self.keys):
            self._by_stem[key[0]].append(index)
            if key[0].isdecimal():
                self._by_number[key[0].lstrip("0")].append(index)

    def match(self, names: Iterable[str]) -> Matches:
        """Match names of images with files.

        A name matches a file if one path is the end of the other; of several files, the one with the longest common
        path. Suffixes and capitals count only where they decide between files. If folders differ, an image still
        matches if only the folder at the top has another name, or if its file name occurs once in the source and all
        file names of the table are different: view1.jpg of another patient is another image.

        Args:
            names: of one table.
        """
        matches = Matches({}, {})
        claims: dict[int, list[_Claim]] = defaultdict(list)
        apart: dict[str, list[tuple[str, list[int]]]] = defaultdict(list)
        renamed: dict[int, list[str]] = defaultdict(list)
        by_number = []
        names = dict.fromkeys(names)
        has_folders = any("/" in name or "\\" in name for name in names)
        keys = [key_of(name) for name in names]
        tells_by_name = len({key[0] for key, _ in keys}) == len({key for key, _ in keys})
        for name, (key, suffix) in zip(names, keys, strict=True):
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
            if len(candidates) == 1 and (len(key) == 1 or key[1:] == self.keys[candidates[0]][0][1:]):
                claims[candidates[0]].append(_Claim(name, key, suffix, len(key)))  # nearly all
                continue
            scores = [(_common(key, self.keys[index][0]), index) for index in candidates]
            best = max(score for score, _ in scores)
            if best == 0:
                below = [index for index in candidates if self._is_same_below_top(key, self.keys[index][0])]
                if len(below) == 1:
                    renamed[below[0]].append(name)
                else:
                    apart[key[0]].append((name, list(candidates) if tells_by_name else []))
                continue
            chosen = self._decide(name, key, suffix, has_folders, [index for score, index in scores if score == best])
            if len(chosen) > 1:
                matches.reasons[name] = SEVERAL_IMAGES
            else:
                claims[chosen[0]].append(_Claim(name, key, suffix, best))
        for index, own in renamed.items():
            for name in own:
                apart[f"/{index}"].append((name, [index]))  # no name has a slash
        matched_by_name = self._settle(claims, apart, matches)
        used = [name for name in by_number if name in matches.files]
        return matches._replace(by_name=tuple(matched_by_name), by_number=tuple(used))

    def _is_same_below_top(self, one: Key, other: Key) -> bool:
        """Whether paths agree below the folder that all images are in, which may have another name in the table."""
        other = other[: len(other) - self._top]
        return self._top > 0 and 2 <= len(other) <= len(one) and one[: len(other)] == other

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
            if len(own) == 1:
                matches.files[own[0].name] = (index,)
                continue
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
                if len(names) == 1 == len(candidates) and candidates[0] not in claims:
                    matches.files[name] = (candidates[0],)
                    by_name.append(name)
                else:
                    matches.reasons[name] = SEVERAL_IMAGES if len(candidates) > 1 else NO_IMAGE
        return by_name


def _common_top(keys: Sequence[Key]) -> int:
    """Number of folders at the top that hold all images; the folder of a split is not passed over."""
    tops = [key[:0:-1] for key in keys]
    count = 0
    for folders in zip(*tops, strict=False):
        if len(set(folders)) > 1 or folders[0] in SPLITS:
            break
        count += 1
    return count


def _common(one: Key, other: Key) -> int:
    """Number of parts that two paths have in common from their ends; 0 if neither is the end of the other."""
    shorter = min(len(one), len(other))
    return shorter if one[1:shorter] == other[1:shorter] else 0


class Studies:
    """The folders of a source that are studies, as p10000032/s50414267 of MIMIC-CXR."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._by_study: dict[str, list[int]] = defaultdict(list)
        self._folders: list[tuple[str, ...]] = []
        for index, path in enumerate(paths):
            folders = tidy(path)[:0:-1]
            self._folders.append(tuple(folders))
            for folder in set(folders):
                self._by_study[folder].append(index)

    def match(self, studies: Iterable[tuple[str, str, str]]) -> Matches:
        """Match studies with the images in their folders.

        Args:
            studies: a name for messages, the patient (may be empty) and the study; folders may have p and s
                before, or sub- and ses-.
        """
        matches = Matches({}, {})
        for name, patient, study in studies:
            study, patient = _identifier(study), _identifier(patient)
            folder = next((name for name in (f"s{study}", f"ses-{study}") if name in self._by_study), study)
            found = self._by_study.get(folder, [])
            named = {f"p{patient}", f"sub-{patient}", patient}  # MIMIC-CXR, BIDS
            own = [index for index in found if named & set(self._folders[index])]
            found = own or found
            parents = {self._folders[index][: self._folders[index].index(folder)] for index in found}
            if len(parents) == 1:
                matches.files[name] = tuple(found)
            else:
                matches.reasons[name] = SEVERAL_STUDIES if parents else NO_STUDY
        return matches
