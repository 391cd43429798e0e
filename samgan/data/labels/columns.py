"""Find the columns of a table of labels: as named, otherwise by the headers of public sets and hospitals."""

import re
from collections.abc import Callable
from typing import NamedTuple

from samgan.data.labels.cells import STATES, is_blank
from samgan.data.labels.tables import Table, repeated
from samgan.data.options import LabelOptions
from samgan.errors import UsageError

NONE = "none"
"""What is given for a column that must not be guessed."""

# Names in lower case, letters and digits only. A name of an earlier group is preferred; two of one group are ambiguous.
IMAGE = (
    {"path", "imagepath", "filepath", "relativepath", "imgpath", "fullpath", "dicompath", "pngpath", "jpgpath"},
    {"filename", "file", "image", "imagefile", "imagefilename", "imagename", "imageindex", "img", "imgname"},
    {"xrayimagename"},  # Coronahack
    {"dateiname", "datei", "bild", "bilddatei"},
    {"imageid", "imgid", "dicomid", "sopinstanceuid", "fileid"},
    {"id", "uid"},
)
FOLDER = ({"imagedir", "folder", "foldername", "dir", "directory", "imagefolder"},)
STUDY = ({"studyid", "studyinstanceuid"}, {"accessionnumber", "accession"}, {"study"}, {"reportid"})
LABEL = (
    {"findinglabels", "findinglabel"},  # NIH; the second in its table of boxes
    {"classname", "labelname"},  # VinDr-CXR, which has class_id beside it
    {"label", "labels", "class", "classes", "diagnosis", "diagnoses", "finding", "findings", "category", "pathology"},
    {"befund", "diagnose", "klasse"},
    {"target", "classid", "labelid"},
)
PATIENT = (
    {"patientid", "patientkey", "patientnumber", "patientno", "pid"},
    {"patient"},
    {"subjectid", "subject"},
    {"participantid", "participant"},  # BIDS
    {"mrn"},
)
SPLIT = ({"split"}, {"set", "subset", "partition"}, {"fold"}, {"datasettype"})
VIEW = ({"viewposition", "view"}, {"projection"}, {"appa"}, {"viewpositiondicom"}, {"frontallateral"})
SECOND_VIEW = {"appa": "frontallateral"}  # CheXpert: AP/PA is empty for lateral images
FINDINGS = {
    re.sub(r"[^a-z0-9]", "", name.lower())
    for name in (
        # NIH ChestX-ray14
        *("No Finding", "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
        *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
        # CheXpert and MIMIC-CXR
        *("Enlarged Cardiomediastinum", "Lung Opacity", "Lung Lesion", "Pleural Effusion", "Pleural Other"),
        *("Fracture", "Support Devices"),
        # VinDr-CXR
        *("Aortic enlargement", "Calcification", "Clavicle fracture", "Enlarged PA", "ILD", "Lung cavity"),
        *("Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pulmonary fibrosis", "Rib fracture", "Other lesion"),
        *("COPD", "Lung tumor", "Tuberculosis", "Other disease", "Other diseases"),
        # NIH-CXR-LT, JSRT, COVID-19 sets and hospitals
        *("Normal", "COVID-19", "COVID", "Pneumoperitoneum", "Pneumomediastinum", "Subcutaneous Emphysema"),
        *("Tortuous Aorta", "Calcification of the Aorta", "Oedema", "Opacity", "Viral Pneumonia"),
        *("Bacterial Pneumonia", "Healthy", "Abnormal", "Lung Cancer", "Scoliosis", "TB"),
    )
}
NAMES_SHOWN = 30


class Columns(NamedTuple):
    """Positions of a table's columns; None or empty if there is none."""

    image: int | None
    folder: int | None
    """The folder that the name in `image` is in."""
    study: int | None
    """Used only if there is no `image`."""
    labels: tuple[int, ...]
    patient: int | None
    split: int | None
    views: tuple[int, ...]
    """The first that is not empty tells the view."""
    guessed: tuple[str, ...]
    """Which were guessed: "image", "label", "patient", "split", "view"."""
    one_hot: bool
    """Whether `labels` are columns of findings, with 1, 0, -1 or nothing in each."""
    names_patients: bool
    """Whether the names of rows hold IDs of patients, which documents must not tell."""


def plain(name: str) -> str:
    """A name in lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", name.lower())


def may_be_used(options: LabelOptions) -> Callable[[str], bool]:
    """What tells by its name whether a column may be used: it was named, or its name is a known one."""
    named = (options.image_column, options.patient_column, options.split_column, options.view_column)
    names = {plain(name) for name in (*named, *options.label_columns) if name}
    names = names.union(FINDINGS, *IMAGE, *FOLDER, *STUDY, *LABEL, *PATIENT, *SPLIT, *VIEW)
    return lambda name: plain(name) in names


def find_columns(table: Table, options: LabelOptions) -> Columns:
    """Find the columns of one of several tables.

    Raises:
        UsageError: a named column is not clear, or the column of images cannot be guessed.
    """
    guessed: list[str] = []

    def find(role: str, named: str | None, groups: tuple[set[str], ...]) -> int | None:
        if named is not None:
            place = None if named == NONE else position(table, named, f"--{role}-column")
            if place is not None or named == NONE:
                return place
        place = _guess(table, role, groups)
        if place is not None:
            guessed.append(role)
        return place

    image = find("image", options.image_column, IMAGE)
    patient = find("patient", options.patient_column, PATIENT)
    folder = None
    if image is not None and "image" in guessed:
        image, folder = _with_folder(table, image)
    study = _guess(table, "image", STUDY) if image is None else None
    names_patients = image is None
    if image is None and study is None and patient is not None:  # RSNA: patientId is the name of the file
        image, patient = patient, None
        guessed = ["image" if role == "patient" else role for role in guessed]
    if image is None and study is None:  # each row tells of all images in a folder
        image = _guess(table, "image", FOLDER)
        guessed += ["image"] if image is not None else []
    if image is None and "image" not in guessed:
        guessed.insert(0, "image")
    if image is None and study is None:
        raise UsageError(f"{table.name}: no column is known to name the images: {_choose(table, '--image-column')}")
    labels, one_hot = _find_labels(table, options, guessed)
    split = find("split", options.split_column, SPLIT)
    view = find("view", options.view_column, VIEW)
    views: tuple[int, ...] = () if view is None else (view,)
    if "view" in guessed and view is not None and (other := SECOND_VIEW.get(plain(table.header[view]))):
        views += tuple(place for place, name in enumerate(table.header) if plain(name) == other)
    known = () if table.is_list else tuple(guessed)
    return Columns(image, folder, study, labels, patient, split, views, known, one_hot, names_patients)


def _with_folder(table: Table, image: int) -> tuple[int, int | None]:
    """The columns of file names and of their folders, if paths are in two columns."""
    name = None if plain(table.header[image]) not in IMAGE[0] else _guess(table, "image", IMAGE[1:3])
    if name is None:
        return image, _guess(table, "image", FOLDER)
    rows = table.rows[:100]
    if all(row[image].lower().endswith(row[name].lower()) for row in rows):
        return image, None
    return name, image


def _find_labels(table: Table, options: LabelOptions, guessed: list[str]) -> tuple[tuple[int, ...], bool]:
    """The columns of labels, and whether each is named after a finding."""
    if options.label_columns:
        places = [position(table, name, "--label-column") for name in options.label_columns]
        found = tuple(place for place in places if place is not None)
        is_text = len(options.label_columns) == 1 and not (found and _is_finding(table, found[0]))
        return found, not is_text
    place = _guess(table, "label", LABEL)
    if place is not None:
        guessed.append("label")
        return (place,), False
    found = tuple(place for place, name in enumerate(table.header) if plain(name) in FINDINGS)
    if len(found) > 1 or (found and _is_finding(table, found[0])):
        guessed.append("label")
        if twice := repeated(tuple(plain(table.header[place]) for place in found)):
            raise UsageError(f"{table.name} has two columns of the finding {sorted(twice)[0]}: name the --label-column")
        return found, True
    return (), False


def _is_finding(table: Table, place: int) -> bool:
    """Whether a single column holds nothing but words for present and absent, under a name that is no label's."""
    name = plain(table.header[place])
    generic = any(name in group for group in LABEL)
    cells = {row[place].lower() for row in table.rows}
    return not generic and all(cell in STATES or is_blank(cell) for cell in cells)


def position(table: Table, named: str, option: str) -> int | None:
    """Where a column is that was named; None if the table does not have it.

    Raises:
        UsageError: there are several.
    """
    cleaners: tuple[Callable[[str], str], ...] = (str.strip, str.casefold, plain)
    for clean in cleaners:
        wanted = clean(named)
        places = [place for place, name in enumerate(table.header) if wanted and clean(name) == wanted]
        if len(places) > 1:
            raise UsageError(f"{table.name} has {len(places)} columns named {named}: rename all but one for {option}")
        if places:
            return places[0]
    return None


def _guess(table: Table, role: str, groups: tuple[set[str], ...]) -> int | None:
    for group in groups:
        places = [place for place, name in enumerate(table.header) if plain(name) in group]
        if len(places) > 1:
            names = " or ".join(table.header[place] for place in places)
            raise UsageError(f"{table.name}: {names}? Give --{role}-column")
        if places:
            return places[0]
    return None


def _choose(table: Table, option: str) -> str:
    shown = ", ".join(name for name in table.header[:NAMES_SHOWN] if name)
    more = f" and {len(table.header) - NAMES_SHOWN} more" if len(table.header) > NAMES_SHOWN else ""
    return f"give {option}, one of {shown}{more}"


def no_labels(tables: list[Table]) -> UsageError:
    """What to say if no table has a column of labels."""
    told = [table for table in tables if not table.is_list]
    if not told:
        remedy = "give the table of labels as well, with another --labels"
        return UsageError(f"{tables[0].name}: a list of images tells their split, not what they show: {remedy}")
    flags = [name for name in told[0].flags if name]
    hint = f" (only 1, 0 and the like are in {', '.join(flags[:NAMES_SHOWN])})" if flags else ""
    return UsageError(f"{told[0].name}: no column is known to hold labels: {_choose(told[0], '--label-column')}{hint}")


def unknown_findings(table: Table, columns: Columns) -> str:
    """Say that columns look like findings but have unknown names, and are not used; empty if there are none."""
    if not (columns.one_hot and "label" in columns.guessed and table.flags):
        return ""
    named = ", ".join(table.flags[:NAMES_SHOWN])
    return (
        f"{table.name}: only 1, 0 and the like are in {named} as well, which are not known as findings and are not "
        "used. If they are findings, name all columns of findings with --label-column."
    )


def tells_patients(table: Table, columns: Columns) -> bool:
    """Whether the column that names images has a name of a column of patients."""
    return columns.image is not None and any(plain(table.header[columns.image]) in group for group in PATIENT)


def check_named(tables: list[Table], options: LabelOptions) -> None:
    """Refuse the name of a column that no table has.

    Raises:
        UsageError: it is in none of the tables.
    """
    for option, named in (
        ("--image-column", options.image_column),
        *(("--label-column", name) for name in options.label_columns),
        ("--patient-column", options.patient_column),
        ("--split-column", options.split_column),
        ("--view-column", options.view_column),
    ):
        if named is None or (named == NONE and option != "--label-column"):
            continue
        if all(position(table, named, option) is None for table in tables):
            raise UsageError(f"{tables[0].name} has no column {named}: {_choose(tables[0], option)}")
