"""Labels from tables: the headers of the public sets, those of hospitals, and what is refused or said."""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samgan.commands.main import main
from samgan.data import LabelOptions, PreparedSet, prepare
from samgan.data.dataset import SetInfo
from samgan.data.documents import UnusedRow
from samgan.data.labels import UNUSED_ROWS_NAMED, label_source
from samgan.data.labels import cells as label_cells
from samgan.data.labels.cells import read_findings, safe_name, split_labels
from samgan.data.labels.match import Files
from samgan.data.labels.tables import read_table
from samgan.data.sources import Entry, Source
from samgan.errors import SamganError, UsageError
from samgan.trust import answers
from samgan.trust.record import Record

NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
MIMIC_LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
MIMIC_SPLIT = "dicom_id,study_id,subject_id,split"
MIMIC_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,"
    "labelCUIS,LocalizationsCUIS"
)
RSNA_LABELS = "patientId,x,y,width,height,Target"
RSNA_CLASSES = "patientId,class"
VINDR_BOXES = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
VINDR_LABELS = (
    "image_id,rad_id,Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,"
    "Emphysema,Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,"
    "Pleural effusion,Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,"
    "Pneumonia,Tuberculosis,Other diseases,No finding"
)


def source_of(*paths, splits=()):
    entries = [
        Entry(path, 9, 9, "folder", split) for path, split in zip(paths, splits or [""] * len(paths), strict=True)
    ]
    return Source("hospital", "id", Path("/hospital"), entries, {})


def row_of(header, **cells):
    """A line of a table: the named cells (their names as in the header, with other letters as _), the others empty."""
    names = next(csv.reader([header]))
    text = io.StringIO()
    keys = ["".join(letter if letter.isalnum() else "_" for letter in name) for name in names]
    assert set(cells) <= set(keys)
    csv.writer(text).writerow([cells.get(key, "") for key in keys])
    return text.getvalue().strip()


@pytest.fixture
def label(tmp_path):
    """A function: paths of a source, and tables as text; returns the labelled source."""

    def run(paths, *tables, splits=(), **options):
        files = []
        for number, text in enumerate(tables):
            file = tmp_path / f"labels{number}.csv"
            file.write_bytes(text if isinstance(text, bytes) else "\n".join([*text, ""]).encode())
            files.append(str(file))
        return label_source(source_of(*paths, splits=splits), LabelOptions(files=tuple(files), **options))

    return run


def classes(source):
    return {entry.path: entry.class_name for entry in source.entries}


def reasons(source):
    return {file.source: file.reason for file in source.unused}


def hashed(patient):
    return hashlib.sha256(patient.encode()).hexdigest()


# the public sets


def test_nih(label):
    paths = [f"images_00{number}/images/0000000{number}_000.png" for number in (1, 2, 3, 4)]
    rows = ["00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143"]
    rows += ["00000002_000.png,No Finding,0,2,81,M,AP,2500,2048,0.171,0.171"]
    rows += ["00000003_000.png,Pleural_Thickening,0,3,81,F,PA,2582,2991,0.143,0.143"]
    rows += ["00000009_000.png,Hernia,0,9,81,F,PA,2582,2991,0.143,0.143"]
    found = label(paths, [NIH, *rows])
    assert classes(found) == {paths[1]: "No Finding", paths[2]: "Pleural_Thickening"}
    assert [(entry.patient_in_table, entry.view) for entry in found.entries] == [
        (hashed("2"), "AP"),
        (hashed("3"), "PA"),
    ]
    assert reasons(found) == {
        paths[0]: "several labels: Cardiomegaly, Emphysema",
        paths[3]: "no row of the tables gives it a label",
    }
    used = found.labels
    assert (used.rows, used.rows_matched, used.files, used.files_used, used.files_without_row) == (4, 3, 4, 2, 1)
    assert [(row.row, row.reason) for row in used.unused_rows] == [("00000009_000.png", "no such image in the source")]
    assert (used.several_labels, used.uncertain_labels) == (1, 0)
    assert used.label_counts == {"Cardiomegaly": 1, "Emphysema": 1, "No Finding": 1, "Pleural_Thickening": 1}
    (table,) = used.tables
    assert (table.images, table.labels, table.patient, table.views) == (
        ("Image Index",),
        ("Finding Labels",),
        "Patient ID",
        ("View Position",),
    )
    assert set(table.guessed) == {"image", "label", "patient", "view"}
    (said,) = found.warnings
    assert "guessed" in said
    assert all(f"{role} from {name}" in said for role, name in (("image", "Image Index"), ("label", "Finding Labels")))
    assert classes(label(paths, [NIH, *rows], several="first"))[paths[0]] == "Cardiomegaly"
    assert classes(label(paths, [NIH, *rows], views=("pa",))) == {paths[2]: "Pleural_Thickening"}


def test_chexpert(label):
    names = ["train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study1/view1_frontal.jpg"]
    names += ["train/patient00002/study1/view2_lateral.jpg", "valid/patient64541/study1/view1_frontal.jpg"]
    names += ["valid/patient64542/study1/view1_frontal.jpg"]
    cells = [{"No_Finding": "1.0", "Frontal_Lateral": "Frontal", "AP_PA": "AP"}]
    cells += [{"Edema": "1.0", "Pneumonia": "-1.0", "Frontal_Lateral": "Frontal", "AP_PA": "PA"}]
    cells += [{"Edema": "1.0", "Cardiomegaly": "0.0", "Frontal_Lateral": "Lateral"}]
    cells += [{"Edema": "1.0", "Support_Devices": "1.0", "Frontal_Lateral": "Frontal", "AP_PA": "AP"}]
    cells += [{"Pneumothorax": "1.0", "Frontal_Lateral": "Frontal", "AP_PA": "AP"}]
    rows = [
        row_of(CHEXPERT, Path=f"CheXpert-v1.0-small/{name}", Sex="Male", **own)
        for name, own in zip(names, cells, strict=True)
    ]
    tables = [CHEXPERT, *rows[:3]], [CHEXPERT, *rows[3:]]
    splits = ["train"] * 3 + ["holdout"] * 2
    found = label(names, *tables, splits=splits)
    assert classes(found) == {names[0]: "No Finding", names[2]: "Edema", names[4]: "Pneumothorax"}
    assert [entry.view for entry in found.entries] == ["AP", "Lateral", "AP"]
    assert [entry.split for entry in found.entries] == ["train", "train", "holdout"]
    assert [entry.patient_in_table for entry in found.entries] == [
        hashed(f"patient{n}") for n in ("00001", "00002", "64542")
    ]
    assert any("patient00001" in said for said in found.warnings)
    assert reasons(found)[names[1]] == "an uncertain label"
    assert found.labels.uncertain_labels == 1
    assert classes(label(names, *tables, uncertain="negative"))[names[1]] == "Edema"
    assert "Edema, Pneumonia" in reasons(label(names, *tables, uncertain="positive"))[names[1]]
    frontal = label(names, *tables, views=("frontal",))
    assert reasons(frontal)[names[2]] == "view Lateral"
    moved = label([f"my copy/{name}" for name in names], *tables, splits=splits)
    assert len(moved.entries) == 3
    assert any("folders have other names" in said for said in moved.warnings)
    only_valid = label([name.replace("train", "valid") for name in names[:3]] + names[3:], *tables)
    assert list(classes(only_valid)) == names[4:]  # a folder train is never one named valid


def test_mimic_labels_of_studies_with_splits_and_views_in_other_files(label):
    studies = {
        "p10/p10000032/s50414267": ("a", "b"),
        "p10/p10000032/s53189527": ("c",),
        "p11/p11000011/s51029426": ("d",),
    }
    paths = [f"files/{study}/{name}-x.jpg" for study, names in studies.items() for name in names]
    labels = [
        MIMIC_LABELS,
        row_of(MIMIC_LABELS, subject_id="10000032", study_id="50414267", No_Finding="1.0"),
        row_of(MIMIC_LABELS, subject_id="10000032", study_id="53189527", Edema="1.0", Pneumonia="0.0"),
        row_of(MIMIC_LABELS, subject_id="11000011", study_id="51029426", Pneumonia="1.0"),
        row_of(MIMIC_LABELS, subject_id="11000011", study_id="59999999", Pneumonia="1.0"),
    ]
    of_image = {path.split("/")[-1][:-4]: path.split("/")[2:4] for path in paths}
    split = [MIMIC_SPLIT] + [
        f"{name},{study[1:]},{patient[1:]},{'validate' if patient == 'p11000011' else 'train'}"
        for name, (patient, study) in of_image.items()
    ]
    metadata = [MIMIC_METADATA] + [
        row_of(MIMIC_METADATA, dicom_id=name, ViewPosition="LATERAL" if name == "b-x" else "PA") for name in of_image
    ]
    found = label(paths, labels, split, metadata)
    expected = dict(zip(paths, ("No Finding", "No Finding", "Edema", "Pneumonia"), strict=True))
    assert classes(found) == expected
    assert [entry.split for entry in found.entries] == ["train"] * 3 + ["holdout"]
    assert [entry.patient_in_table for entry in found.entries] == [hashed("10000032")] * 3 + [hashed("11000011")]
    assert [entry.view for entry in found.entries] == ["PA", "LATERAL", "PA", "PA"]
    assert [row.row for row in found.labels.unused_rows] == ["row 4"]  # no IDs of patients
    assert found.labels.rows_matched == 3 + 4 + 4
    del expected[paths[1]]
    frontal = label(paths, labels, metadata, views=("PA", "AP"))
    assert classes(frontal) == expected
    assert any("No row has the view AP" in said for said in frontal.warnings)


def test_padchest(label):
    rows = [
        row_of(PADCHEST, ImageID="1_a.png", PatientID="77", Projection="PA", ViewPosition_DICOM="POSTEROANTERIOR",
               StudyID="1", Labels="['normal']", Report="sin hallazgos , ."),
        row_of(PADCHEST, ImageID="1_b.png", PatientID="78", Labels="['pleural effusion', ' scoliosis']"),
        row_of(PADCHEST, ImageID="1_c.png", PatientID="79", Projection="PA", Labels="['scoliosis', 'scoliosis', '']"),
        row_of(PADCHEST, ImageID="1_d.png", PatientID="79", Projection="PA", Labels="nan"),
    ]  # fmt: skip
    found = label(["0/1_a.png", "0/1_b.png", "1/1_c.png", "1/1_d.png"], [PADCHEST, *rows])
    assert classes(found) == {"0/1_a.png": "normal", "1/1_c.png": "scoliosis"}
    assert [(entry.patient_in_table, entry.view) for entry in found.entries] == [
        (hashed("77"), "PA"),
        (hashed("79"), "PA"),
    ]
    assert reasons(found)["0/1_b.png"] == "several labels: pleural effusion, scoliosis"
    assert reasons(found)["1/1_d.png"] == "its rows in the tables have no label"


def test_rsna(label):
    boxes = ["0004cfab,,,,,0", "00436515,264,152,213,379,1", "00436515,562,152,256,453,1"]
    paths = ["stage_2_train_images/0004cfab.dcm", "stage_2_train_images/00436515.dcm"]
    found = label(paths, [RSNA_LABELS, *boxes])
    assert classes(found) == {paths[0]: "Target_0", paths[1]: "Target_1"}
    assert {entry.patient_in_table for entry in found.entries} == {""}  # patientId is the name of the file
    assert any("Target_0, Target_1" in said for said in found.warnings)
    named = ["0004cfab,No Lung Opacity / Not Normal", "00436515,Lung Opacity", "00436515,Lung Opacity"]
    found = label(paths, [RSNA_CLASSES, *named])
    assert classes(found) == {paths[0]: "No Lung Opacity_Not Normal", paths[1]: "Lung Opacity"}
    assert any("'No Lung Opacity / Not Normal' is 'No Lung Opacity_Not Normal'" in said for said in found.warnings)
    both = label(paths, ["patientId,Target,class", "0004cfab,0,Normal", "00436515,1,Lung Opacity"])
    assert classes(both) == {paths[0]: "Normal", paths[1]: "Lung Opacity"}


def test_vindr(label):
    boxes = ["a1,No finding,14,R11,,,,", "a1,No finding,14,R2,,,,", "b2,Nodule/Mass,8,R1,1,2,3,4"]
    boxes += ["b2,Nodule/Mass,8,R2,1,2,3,5", "c3,Cardiomegaly,3,R8,6,7,8,9", "c3,No finding,14,R9,,,,"]
    paths = ["train/a1.dicom", "train/b2.dicom", "train/c3.dicom"]
    found = label(paths, [VINDR_BOXES, *boxes])
    assert classes(found) == {paths[0]: "No finding", paths[1]: "Nodule_Mass"}
    assert reasons(found) == {paths[2]: "several labels: Cardiomegaly, No finding"}
    assert (found.labels.rows, found.labels.rows_matched) == (6, 6)

    def one_hot(image, reader, **findings):
        zeros = {"".join(c if c.isalnum() else "_" for c in name): "0" for name in VINDR_LABELS.split(",")[2:]}
        return row_of(VINDR_LABELS, **zeros | {"image_id": image, "rad_id": reader} | findings)

    rows = [one_hot("a1", "R1", No_finding="1"), one_hot("a1", "R2", No_finding="1")]
    rows += [one_hot("b2", "R1", Nodule_Mass="1"), one_hot("c3", "R1", Cardiomegaly="1")]
    rows += [one_hot("c3", "R2", No_finding="1")]
    same = label(paths, [VINDR_LABELS, *rows])
    assert classes(same) == classes(found)
    assert reasons(same) == reasons(found)
    zero = label(paths, [VINDR_LABELS, *rows[:3], one_hot("c3", "R1")])
    assert reasons(zero) == {paths[2]: "its rows in the tables have no label"}  # not even "No finding" is 1


# tables of hospitals


@pytest.mark.parametrize(
    "header",
    [
        "filename,label,patient,split,view",
        "File Name,Class,Patient_ID,Set,View Position",
        "image,diagnosis,mrn,fold,projection",
        "path,Finding,subject,SPLIT,VIEW",
        "ID,Target,patient id,split,view",
        "Dateiname,Befund,Patient,split,view",
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_headers_delimiters_and_encodings_of_hospitals(label, header, delimiter, encoding):
    rows = [
        header,
        "A1.png,Müller-Weiß,007,train,PA",
        "a2.png,normal,8.0,test,AP",
        "",
        ",,,,",
        "a3.png,normal,9,TRAIN,PA",
    ]
    text = "\r\n".join(rows).replace(",", delimiter) + "\r\n"
    found = label(["x/a1.PNG", "x/a2.png", "x/a3.png"], text.encode(encoding))
    assert list(classes(found).values()) == ["Müller-Weiß", "normal", "normal"]
    assert [entry.split for entry in found.entries] == ["train", "holdout", "train"]
    assert [entry.patient_in_table for entry in found.entries] == [hashed("007"), hashed("8"), hashed("9")]
    assert [entry.view for entry in found.entries] == ["PA", "AP", "PA"]
    assert any("Windows-1252" in said for said in found.warnings) == (encoding == "cp1252")


def test_named_columns_quotes_and_excels_first_line(label):
    text = 'sep=;\n"Bild Nr";"Text\nBefund";Alter\n"a;1";"mild;\n severe";3\nb2;ok;4\n'
    found = label(["a;1.png", "b2.png"], text.encode(), image_column="bild nr", label_columns=("Text\nBefund",))
    assert reasons(found) == {"a;1.png": "several labels: mild, severe"}
    assert classes(found) == {"b2.png": "ok"}
    assert found.warnings == ()  # nothing was guessed


def test_folders_in_a_column_of_their_own(label):
    paths = ["x/1/a.png", "x/2/a.png", "x/2/b.png"]
    expected = dict(zip(paths, "ABC", strict=True))
    for header in ("Path,File Name,label", "folder,image,label", "ImageDir,ImageID,label"):
        assert classes(label(paths, [header, "1,a.png,A", "2,a.png,B", "2,b.png,C"])) == expected
    assert classes(
        label(paths, ["path,filename,label", *(f"{path},{path[4:]},{expected[path]}" for path in paths)])
    ) == (expected)


def test_one_column_of_a_finding_and_tables_one_below_the_other(label):
    found = label(["a.png", "b.png", "c.png"], ["image,TB", "a,pos", "image,TB", "b,neg", "c,"], label_columns=("TB",))
    assert classes(found) == {"a.png": "TB", "b.png": "no_TB"}
    assert "no_TB means that all of TB are 0" in found.warnings[-1]
    assert set(classes(label(["a.png", "b.png"], ["image,Pneumonia", "a,1", "b,0"])).values()) == {
        "Pneumonia",
        "no_Pneumonia",
    }


def test_gzip_and_tab(tmp_path):
    file = tmp_path / "labels.tsv.gz"
    file.write_bytes(gzip.compress(b"image\tlabel\na\tA,B\nb\tC\n"))
    assert read_table(file).rows == [["a", "A,B"], ["b", "C"]]
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(SamganError, match=r"labels.tsv.gz: not a readable .gz"):
        read_table(file)


def write_sheet(path, lines, sheets=1):
    """A workbook as the Office Open XML standard has it (ECMA-376), with nothing that is not needed."""
    types = "application/vnd.openxmlformats-officedocument.spreadsheetml."
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    packages = "http://schemas.openxmlformats.org/package/2006"
    main_space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    numbers = range(1, sheets + 1)
    cells = "".join(
        f'<row r="{y}">'
        + "".join(
            f'<c r="{"ABCDEF"[x]}{y}"><v>{cell}</v></c>'
            if isinstance(cell, float)
            else f'<c r="{"ABCDEF"[x]}{y}" t="inlineStr"><is><t>{cell}</t></is></c>'
            for x, cell in enumerate(line)
        )
        + "</row>"
        for y, line in enumerate(lines, start=1)
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{packages}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{types}sheet.main+xml"/>'
        + "".join(f'<Override PartName="/xl/s{n}.xml" ContentType="{types}worksheet+xml"/>' for n in numbers)
        + "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{packages}/relationships">'
        f'<Relationship Id="r1" Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {main_space} xmlns:r="{relations}"><sheets>'
        + "".join(f'<sheet name="Sheet {n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{packages}/relationships">'
        + "".join(f'<Relationship Id="r{n}" Type="{relations}/worksheet" Target="s{n}.xml"/>' for n in numbers)
        + "</Relationships>",
    } | {f"xl/s{n}.xml": f"<worksheet {main_space}><sheetData>{cells}</sheetData></worksheet>" for n in numbers}
    with zipfile.ZipFile(path, "w") as book:
        for name, text in parts.items():
            book.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')


def test_sheet_of_excel(tmp_path):
    pytest.importorskip("python_calamine")
    file = tmp_path / "labels.xlsx"
    write_sheet(file, [("id", "label", "n"), (123.0, "Müller", 1.5), ("007", "A|B", -1.0)], sheets=2)
    table = read_table(file)
    assert table.header == ("id", "label", "n")
    assert table.rows == [["123", "Müller", "1.5"], ["007", "A|B", "-1"]]
    assert "2 sheets" in table.warnings[0]
    file.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(SamganError, match=r"labels.xlsx: not a readable spreadsheet"):
        read_table(file)


def test_sheet_without_the_package_names_it(tmp_path, monkeypatch):
    write_sheet(tmp_path / "labels.csv", [("id", "label"), ("1", "A")])  # whatever its name says
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(SamganError, match=r"labels.csv: .*pip install 'samgan\[tables\]', or save it as .csv"):
        read_table(tmp_path / "labels.csv")


# cells


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="ab01,;|\t\n\r\"'[]\0é", max_size=80).map(str.encode))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(data)
    with contextlib.suppress(SamganError):  # any other exception fails
        table = read_table(file)
        assert all(len(row) == len(table.header) for row in table.rows)


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("Pleural Effusion", ("Pleural Effusion",)),
        ("A|B", ("A", "B")),
        ("A ; B|  C", ("A", "B", "C")),
        ("['A', \"B's\"]", ("A", "B's")),
        ('["A", null, "A"]', ("A",)),
        ("[normal, scoliosis]", ("normal", "scoliosis")),
        ("[]", ()),
        ("['']", ()),
        (" NaN ", ()),
        ("B|A|B", ("B", "A")),
        ("[1, 2]", ("1", "2")),
        ("[[1]]", ("[1]",)),
        ("[" * 5000 + "]" * 5000, None),
    ],
)
def test_labels_of_a_cell(cell, labels):
    assert labels is None or split_labels(cell) == labels
    split_labels(cell)  # whatever there is in it


def test_findings():
    names = ("No Finding", "Edema", "Mass")
    assert read_findings([None, 1, 0], names, "drop") == (("Edema",), False)
    assert read_findings([0, 0, 0], names, "drop") == ((), False)
    assert read_findings([0, 0], names[1:], "drop") == (("no_finding",), False)
    assert read_findings([0, None], names[1:], "drop") == ((), False)
    assert read_findings([0], names[1:2], "drop") == (("no_Edema",), False)
    assert read_findings([1, -1], names[1:], "drop").is_uncertain
    assert read_findings([1, -1], names[1:], "negative") == (("Edema",), False)
    assert read_findings([0, -1], names[1:], "negative") == (("no_finding",), False)
    assert read_findings([1, -1], names[1:], "positive") == (("Edema", "Mass"), False)


@given(st.text(max_size=20))
def test_names_of_classes_are_safe_for_folders(label):
    name = safe_name(label)
    assert name
    assert not name.startswith((".", "-", " "))
    assert not {"/", "\\", "\0", "\n"} & set(name)
    assert name.isprintable()
    assert safe_name(name) == name


def test_labels_that_differ_in_capitals_are_one_class_and_it_is_said():
    named, said = label_cells.name_classes({"Mass": 3, "mass": 1, "MASS ": 1, "../etc": 1})
    assert set(named.values()) == {"Mass", "_etc"}
    assert "'mass' is 'Mass'" in said[0]


LABELS = ("Mass", "Pleural Effusion", "No Finding", "Edema")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.sampled_from(LABELS), min_size=1, max_size=3), min_size=1, max_size=12), st.booleans())
def test_every_way_to_write_labels_gives_the_same_classes(tmp_path_factory, assigned, first):
    folder = tmp_path_factory.mktemp("tables")
    assigned = [tuple(label for label in LABELS if label in labels) for labels in assigned]
    if not first and all(len(labels) > 1 for labels in assigned):
        assigned[0] = ("Mass",)
    names = [f"d/{index:03d}.png" for index in range(len(assigned))]
    texts = {
        "bars": map("|".join, assigned),
        "json": map(json.dumps, assigned),
        "python": map(str, map(list, assigned)),
    }
    tables = {kind: [("image", "label"), *zip(names, cells, strict=True)] for kind, cells in texts.items()}
    tables["one_hot"] = [
        ("image", *LABELS),
        *(
            (name, *(str(int(label in labels)) for label in LABELS))
            for name, labels in zip(names, assigned, strict=True)
        ),
    ]
    tables["rows"] = [("image", "label")] + [
        (name, label) for name, labels in zip(names, assigned, strict=True) for label in labels
    ]
    results = []
    for kind, lines in tables.items():
        file = folder / f"{kind}.csv"
        with open(file, "w", newline="") as opened:
            csv.writer(opened).writerows(lines)
        options = LabelOptions(files=(str(file),), several="first" if first else "only-single")
        found = label_source(source_of(*names), options)
        results.append((classes(found), reasons(found), found.labels.label_counts, found.labels.several_labels))
    assert all(result == results[0] for result in results)
    expected = {name: own[0] for name, own in zip(names, assigned, strict=True) if first or len(own) == 1}
    assert results[0][0] == expected
    assert results[0][2] == dict(sorted(Counter(label for own in assigned for label in own).items()))


# matching


def matched(paths, *names):
    matches = Files(paths).match(names)
    return {name: [paths[index] for index in indices] for name, indices in matches.files.items()}, matches.reasons


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train/p1/a.jpg", "Set-v1.0/train/p1/a.jpg"),
        ("train/p1/a.jpg", "p1\\A.JPG"),
        ("train/p1/a.jpg", "/data/train//p1/./a"),
        ("train/p1/a.jpg", "C:\\x\\train\\p1\\a.dcm"),
        ("a.dcm", "a"),
        ("x/1.2.840.113619.2.5", "1.2.840.113619.2.5"),
        ("x/1.2.840.113619.2.5.dcm", "1.2.840.113619.2.5"),
        ("x/123.png", "123.0"),
        ("x/00000123.png", "123"),
        ("x/ü.png", "u\u0308.png"),
        ("x/a.png", "elsewhere/a.png"),
    ],
)
def test_a_row_finds_its_image(path, name):
    assert matched([path, "other/b.png"], name) == ({name: [path]}, {})


def test_the_longest_path_decides_and_the_rest_is_named():
    paths = ["a/x.png", "b/x.png", "c/y.png", "c/y.dcm", "z.png"]
    files, reasons = matched(paths, "a/x.png", "root/b/x.png", "x.png", "y.dcm", "y", "p/z.png", "q/z.png", "none.png")
    assert files == {"a/x.png": ["a/x.png"], "root/b/x.png": ["b/x.png"], "y.dcm": ["c/y.dcm"]}
    assert set(reasons) == {"x.png", "y", "p/z.png", "q/z.png", "none.png"}
    assert "several images" in reasons["x.png"]
    assert "other folders" in reasons["p/z.png"]
    assert "no such image" in reasons["none.png"]


PARTS = st.sampled_from(["a", "b", "train", "p1"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@settings(deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=6, unique=True), st.lists(PATHS, min_size=1, max_size=6, unique=True))
def test_a_match_is_the_longest_of_all_files(paths, names):
    """The plain way: compare each name with each file."""

    def common(one, other):
        one, other = one.split("/")[::-1], other.split("/")[::-1]
        shorter = min(len(one), len(other))
        return shorter if one[:shorter] == other[:shorter] else 0

    files, reasons = matched(paths, *names)
    assert files.keys() | reasons.keys() == set(names)
    for name in names:
        scores = {path: common(name, path) for path in paths}
        best = [path for path, score in scores.items() if score == max(scores.values())]
        if name in files and max(scores.values()):
            (path,) = files[name]
            assert path in best
            assert len(best) == 1 or path == name
        if name in paths and best == [name] and all(other == name or not common(other, name) for other in names):
            assert files[name] == [name]


@settings(deadline=None)
@given(
    st.lists(PATHS, min_size=1, max_size=6, unique=True),
    st.sampled_from(["", "/data/", "C:\\x\\", "./"]),
    st.booleans(),
)
def test_whole_paths_are_always_found(paths, before, is_windows):
    paths = [f"{path}/{number}.png" for number, path in enumerate(paths)]
    names = {before + (path.replace("/", "\\").upper() if is_windows else path): path for path in paths}
    assert matched(paths, *names) == ({name: [path] for name, path in names.items()}, {})


def test_names_that_are_the_same_for_every_patient_never_match_by_name_alone():
    names = [f"train/patient{n}/view1.jpg" for n in range(3)]
    for path in ("patient9/view1.jpg", "patient9/view2.jpg"):
        files, reasons = matched([path], *names, "train/patient0/view2.jpg")
        assert files == {}
        assert len(reasons) == 4
    files, _ = matched(["train/patient1/view1.jpg"], *names)
    assert files == {names[1]: ["train/patient1/view1.jpg"]}


def test_capitals_and_whole_paths_decide_between_images():
    assert matched(["A.png", "a.png"], "a.png", "A.png")[0] == {"a.png": ["a.png"], "A.png": ["A.png"]}
    assert matched(["a.png", "x/a.png"], "a.png", "x/a.png")[0] == {"a.png": ["a.png"], "x/a.png": ["x/a.png"]}
    assert matched(["a.png"], "a.png", "x/a.png")[0] == {"a.png": ["a.png"]}
    assert matched(["x/a.png", "y/a.png"], "a.png")[0] == {}


def test_what_was_found_by_less_than_its_path_is_said(label):
    found = label(["x/a.png", "x/007.png"], ["image,label", "y/a.png,A", "7,B"])
    assert classes(found) == {"x/a.png": "A", "x/007.png": "B"}
    assert any("folders have other names" in said and "'y/a.png'" in said for said in found.warnings)
    assert any("leading zeros" in said and "'7'" in said for said in found.warnings)


def test_studies_of_the_same_name_need_their_patient(label):
    table = ["patient,study_id,label", "p1,1,A", "p2,1,B"]
    found = label(["p1/1/x.png", "p2/1/x.png", "p2/1/y.png"], table)
    assert classes(found) == {"p1/1/x.png": "A", "p2/1/x.png": "B", "p2/1/y.png": "B"}
    unknown = label(["p1/1/x.png", "p2/1/x.png", "z.png"], [*table, "p3,1,C"])
    assert [row.row for row in unknown.labels.unused_rows] == ["row 3"]
    assert "several folders" in unknown.labels.unused_rows[0].reason


def test_many_rows_without_image_are_counted_and_some_named(label):
    rows = [f"{index}.png,A" for index in range(500)]
    found = label(["1.png"], ["image,label", *rows, ",B"])
    assert (found.labels.rows, found.labels.rows_matched) == (501, 1)
    assert len(found.labels.unused_rows) == UNUSED_ROWS_NAMED
    assert "1 rows of labels0.csv name no image" in found.labels.unused_rows[0].reason


# splits, patients, views


def test_the_split_of_the_table_wins_over_folders(label):
    paths = ["train/a.png", "train/b.png", "test/c.png"]
    table = ["image,label,split", "a.png,A,test", "b.png,A,train", "c.png,A,"]
    found = label(paths, table, splits=["train", "train", "holdout"])
    assert [entry.split for entry in found.entries] == ["holdout", "train"]
    assert reasons(found) == {"test/c.png": "the tables do not say which split it is in"}
    kept = label(paths, table, splits=["train", "train", "holdout"], split_column="none")
    assert [entry.split for entry in kept.entries] == ["train", "train", "holdout"]
    one = label(paths, [line.replace("test", "train") for line in table])
    assert [entry.split for entry in one.entries] == ["", ""]
    assert any("one split (train)" in said for said in one.warnings)


def test_rows_that_contradict_each_other_are_left_out(label):
    table = ["image,label,patient,view,split", "a,A,1,PA,train", "a,A,2,PA,train", "b,A,1,PA,train", "b,A,1,AP,train"]
    table += ["c,A,1,PA,train", "c,A,1,PA,test", "d,A,1,PA,train", "d,A,1,PA,train"]
    found = label(["a.png", "b.png", "c.png", "d.png"], table)
    words = "its rows in the tables give different "
    assert reasons(found) == {"a.png": words + "patients", "b.png": words + "views", "c.png": words + "splits"}
    assert list(classes(found)) == ["d.png"]


# what is refused


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "expected a header and rows below it, found none"),
        ("image,label\n", {}, "found a header"),
        ("image\na.png\n", {}, "expected two columns or more.* found 'image'"),
        (
            "Export of 2026,,\nimage,label,x\na.png,A,\n",
            {},
            "found 'Export of 2026'. If this line is a title, delete it",
        ),
        ("Export of 2026\nimage,label\na.png,A\n", {}, "found 'Export of 2026'. If this line is a title, delete it"),
        ("1 a.png negative cohen\n2 b.png positive x\n", {}, "its cells are separated by spaces.* put commas between"),
        ("a.png,A\nb.png,B\n", {}, "its first line, 'a.png, A', is a row and no header: put a line with the names"),
        ("image,x,y\na,1,0\nb,0,1\n", {}, "one of image, x, y .only 1, 0 and the like are in x, y"),
        ("image,label\na.png,A,B\n", {}, "line 2: 3 cells, but the header has 2: put text with delimiters in quotes"),
        ("foto,note\na.png,A\n", {}, "no column is known to name the images: give --image-column, one of foto, note"),
        ("image,note\na.png,A\n", {}, "no column is known to hold labels: give --label-column, one of image, note"),
        ("image,file,label\na,a,A\n", {}, r"image or file\? Give --image-column"),
        ("image,label,class\na,A,A\n", {}, r"label or class\? Give --label-column"),
        ("image,label,label\na,A,A\n", {"label_columns": ("label",)}, "2 columns named label"),
        ("image,label\na,A\n", {"image_column": "foto"}, "has no column foto: give --image-column, one of image"),
        ("image,label\na,A\n", {"label_columns": ("x",)}, "has no column x: give --label-column, one of"),
        ("image,label\na,A\n", {"split_column": "x"}, "has no column x: give --split-column"),
        (
            "image,label,split\na,A,7\n",
            {},
            "'7' in column split is no split: expected a word such as train.*-column none",
        ),
        ("image,label\na,A\n", {"views": ("PA",)}, "no column is known to tell views: give --view-column"),
        ("image,label,view\na,A,AP\n", {"views": ("PA",)}, "--views PA: no row has this view; those .* are AP"),
        ("image,Mass,Edema\na,1,mild\n", {}, "column Edema holds 'mild': expected 1, 0, -1 or nothing"),
        ("image,Mass,mass\na,1,0\n", {}, "two columns of the finding mass"),
        ("image,label\nzzz,A\n", {}, "no row belongs to an image .* image holds 'zzz', an image is 'a.png'"),
        ("image,label\na,A|B\n", {}, "the tables leave out all 1 images: 1 for 'several labels'"),
        ("image,label\na," + "long " * 30 + "\n", {}, "a label has 149 characters"),
        ("image,label\na," + "|".join(map("L{}".format, range(1001))) + "\n", {}, "are 1001 different ones"),
        ('image,label\na,"open\nb,B\n', {}, "labels0.csv, line 3: .*: correct the table"),
        ("\x00\x01\x02image,label\na,A\n", {}, "binary file"),
        ('image,label\na,"' + "A" * 200_000 + '"\n', {}, "line .*field larger"),
        ("image,label\na,A\n", {"several": "all"}, "--several 'all': expected one of only-single, first"),
        ("image,label\na,A\n", {"uncertain": "?"}, "--uncertain '?': expected one of drop, positive, negative"),
    ],
)
def test_broken_tables_are_refused_in_one_line(label, text, options, message):
    with pytest.raises(SamganError, match=message.replace("'?'", r"'\?'")) as error:
        label(["a.png"], text.encode(), **options)
    assert "\n" not in str(error.value)


def test_tables_that_are_not_there_and_sources_without_names(tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        label_source(source_of("a.png"), LabelOptions(files=(str(tmp_path / "none.csv"),)))
    with pytest.raises(UsageError, match="expected one table or more"):
        label_source(source_of("a.png"), LabelOptions(files=()))
    arrays = source_of("train/0000001")._replace(path=Path("set.npz"))
    with pytest.raises(UsageError, match=r"belong to a folder or \.zip"):
        label_source(arrays, LabelOptions(files=("labels.csv",)))


# lists of a split


def lists(folder, **texts):
    """Files of these names, as LabelOptions has them; a__b is a.b."""
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return tuple(str(folder / name.replace("__", ".")) for name in texts)


def test_lists_of_nih_without_a_header_tell_the_split(tmp_path):
    files = lists(
        tmp_path,
        Data_Entry__csv="Image Index,Finding Labels\n1.png,Mass\n2.png,Mass\n3.png,Edema\n4.png,Edema\n",
        train_val_list__txt="1.png\n3.png\n",
        test_list__txt="2.png",
    )
    source = label_source(source_of("x/1.png", "x/2.png", "y/3.png", "y/4.png"), LabelOptions(files=files))
    found = {entry.path: (entry.class_name, entry.split) for entry in source.entries}
    assert found == {"x/1.png": ("Mass", "train"), "x/2.png": ("Mass", "holdout"), "y/3.png": ("Edema", "train")}
    assert reasons(source) == {"y/4.png": "the tables do not say which split it is in"}
    assert "train_val_list.txt: a list of 2 image(s); its name says that they are training images." in source.warnings
    assert "test_list.txt: a list of 1 image(s); its name says that they are held-out images." in source.warnings


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train_list.txt", "train"),
        ("TBX11K_val.txt", "holdout"),
        ("test.csv", "holdout"),
        ("trainval.lst", "train"),
        ("images.txt", ""),
        ("train_vs_test.txt", ""),
    ],
)
def test_names_of_lists(tmp_path, name, split):
    (tmp_path / name).write_text("file\nA/1.png\nB/2.png\n")
    if split:
        table = read_table(tmp_path / name)
        assert (table.header, table.rows) == (("image", "split"), [["A/1.png", split], ["B/2.png", split]])
    else:
        with pytest.raises(SamganError, match="a list of images whose file name tells their split, such as train_list"):
            read_table(tmp_path / name)


def test_a_list_alone_asks_for_labels(tmp_path):
    files = lists(tmp_path, train__txt="1.png\n")
    with pytest.raises(UsageError, match=r"train.txt: a list of images tells their split.*with another --labels"):
        label_source(source_of("1.png"), LabelOptions(files=files))


# other forms of tables


def test_lines_of_json_are_a_table(tmp_path):
    lines = [
        {"file_name": "1.png", "label": "normal", "age": 61.0},
        {"file_name": "2.png", "label": ["tb", "effusion"], "flag": True},
        {"file_name": "3.png", "label": None},
    ]
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "metadata.jsonl").write_text(text + "\n\n")
    (tmp_path / "metadata.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    table = read_table(tmp_path / "metadata.jsonl")
    assert table.header == ("file_name", "label", "age", "flag")
    rows = [["1.png", "normal", "61", ""], ["2.png", '["tb", "effusion"]', "", "true"], ["3.png", "", "", ""]]
    assert table.rows == read_table(tmp_path / "metadata.jsonl.gz").rows == rows
    assert split_labels(rows[1][1]) == ("tb", "effusion")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"a": 1}\n{"a":', "line 2: not JSON"), ("[1, 2]", "line 1: expected an object"), ("", "found none")],
)
def test_damaged_lines_of_json_are_refused(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(SamganError, match=message):
        read_table(tmp_path / "x.jsonl")


def test_a_tsv_with_semicolons_is_read(tmp_path):
    (tmp_path / "x.tsv").write_text("image;label\na.png;A\n")
    assert read_table(tmp_path / "x.tsv").rows == [["a.png", "A"]]


def test_rows_may_be_patients_whose_folders_hold_the_images(label):
    paths = ["images/Fall_ax/0.png", "images/Fall_ax/1.png", "images/Fall_bx/0.png", "images/Fall_cx/0.png"]
    source = label(paths, ["patient,diagnosis", "Fall_ax,normal", "Fall_bx,tb", "Fall_dx,tb"])
    assert classes(source) == {paths[0]: "normal", paths[1]: "normal", paths[2]: "tb"}
    assert [entry.patient_in_table for entry in source.entries] == [hashed("Fall_ax")] * 2 + [hashed("Fall_bx")]
    assert any("its rows name folders, not files, each of one patient" in said for said in source.warnings)
    assert source.labels.unused_rows == (UnusedRow("row 3", "no such folder in the source"),)


def test_rows_may_be_folders(label):
    source = label(["x/1.png", "x/2.png", "y/1.png"], ["folder,label", "x,A", "y,B"])
    assert classes(source) == {"x/1.png": "A", "x/2.png": "A", "y/1.png": "B"}
    assert {entry.patient_in_table for entry in source.entries} == {""}


def test_bids(label):
    paths = [f"sub-0{number}/ses-1/sub-0{number}_dx.png" for number in (1, 2)]
    source = label(paths, ["participant_id,age,diagnosis", "sub-01,40,normal", "sub-02,50,tb"])
    assert classes(source) == dict(zip(paths, ("normal", "tb"), strict=True))


def test_bimcv(label):
    paths = [f"sub-S0304{n}/ses-E0798{n}/mod-rx/sub-S0304{n}_ses-E0798{n}_run-1_bp-chest_vp-pa_dx.png" for n in (7, 8)]
    table = ["PatientID,ReportID,Labels", "S03047,E07987,\"['COVID 19']\"", "S03048,E07988,['normal']"]
    source = label(paths, table)
    assert classes(source) == {paths[0]: "COVID 19", paths[1]: "normal"}
    assert [entry.patient_in_table for entry in source.entries] == [hashed("S03047"), hashed("S03048")]


def test_columns_like_findings_that_are_not_known_are_said(label):
    source = label(["a", "b"], ["image,normal,zebra,sex,site", "a,1,0,M,1", "b,0,1,F,1"])
    (said,) = [said for said in source.warnings if "known as findings" in said]
    assert said.startswith("labels0.csv: only 1, 0 and the like are in zebra as well")
    assert reasons(source) == {"b": "its rows in the tables have no label"}
    assert not any("findings" in said for said in label(["a"], ["image,label,flag", "a,A,1", "b,A,0"]).warnings)


def test_a_table_without_a_row_for_the_source_is_said(label):
    source = label(["a", "b"], ["image,label", "a,A", "b,B"], ["image,label", "c,C"])
    assert "labels1.csv: none of its 1 rows belongs to an image." in source.warnings
    with pytest.raises(SamganError, match=r"no row of the tables gives it a label'; labels1.csv: none of its 1 rows"):
        label(["a", "b"], ["image,view", "a,PA"], ["image,label", "c,C"])


def test_classes_without_training_images_are_said(label):
    source = label(["a", "b"], ["image,label,split", "a,A,train", "b,B,test"])
    assert "The tables give no training images of B." in source.warnings


def test_minus_one_is_not_one(label):
    source = label(["a", "b"], ["image,label", "a,-1", "b,557374 2 1015 8"])
    assert classes(source) == {"a": "minus_1", "b": "557374 2 1015 8"}


# into a prepared set


@pytest.fixture
def hospital(tmp_path):
    """Eight images in one folder, and their table."""
    random = np.random.default_rng(3)
    (tmp_path / "pacs").mkdir()
    lines = ["file,diagnosis,patient,view"]
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / f"pacs/{number}.png")
        lines.append(
            f"{number}.png,{'A/B' if number % 2 else 'normal'},MRN-{number // 2},{'AP' if number == 7 else 'PA'}"
        )
    (tmp_path / "table.csv").write_text("\n".join([*lines, "9.png,normal,MRN-9,PA"]))
    return tmp_path


def test_hundreds_of_reasons_are_a_few_lines(hospital, capsys):
    """NIH ChestX-ray14 has 836 combinations of labels, each of which is a reason of its own."""
    random = np.random.default_rng(4)
    rows = []
    for number in range(8, 60):
        Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)).save(hospital / f"pacs/{number}.png")
        rows.append(f"{number}.png,A|label {number},MRN-{number},PA\n")
    with open(hospital / "table.csv", "a") as file:
        file.write("\n" + "".join(rows))
    arguments = [
        *("prepare", str(hospital / "pacs"), str(hospital / "out"), "--resolution", "32", "--workers", "1"),
        *("--labels", str(hospital / "table.csv")),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    told = [line for line in printed if line.startswith("left out")]
    assert told == ["left out: 52 images: several labels, such as 10.png (A, label 10)"]
    assert len(PreparedSet.open(hospital / "out").info.left_out.unused) == 52


def test_a_split_of_a_table_is_not_said_to_be_one_of_folders(hospital, capsys):
    lines = (hospital / "table.csv").read_text().splitlines()
    words = ("split", *(["train"] * 4 + ["test"] * 5))
    (hospital / "table.csv").write_text("\n".join(f"{line},{word}" for line, word in zip(lines, words, strict=True)))
    arguments = ["prepare", str(hospital / "pacs"), str(hospital / "out"), "--resolution", "32", "--workers", "1"]
    assert main([*arguments, "--labels", str(hospital / "table.csv")]) == 0
    printed = capsys.readouterr().out
    assert "split by source (split of table.csv; --holdout is not used)" in printed
    assert "folders" not in printed


def test_a_prepared_set_says_all_of_it(hospital, capsys):
    arguments = ["prepare", hospital / "pacs", hospital / "out", "--resolution", 32, "--workers", 1, "--views", "PA"]
    assert main([*map(str, arguments), "--labels", str(hospital / "table.csv"), "--holdout", "0.4"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "note: table.csv: columns were guessed",
        "labels: table.csv; 8 of 9 rows belong to images of the source",
        "9.png: no such image in the source",
        "left out: 7.png: view AP",
    ):
        assert words in printed
    prepared = PreparedSet.open(hospital / "out")
    assert prepared.classes == ["A_B", "normal"]
    assert [row.view for row in prepared.manifest] == ["PA"] * 7
    assert prepared.info.split_by == "patient (label table)"
    of_patient = {}
    for row in prepared.manifest:
        of_patient.setdefault(row.patient, set()).add((row.split, int(row.source[0]) // 2))
    assert len(of_patient) == 4
    assert all(len(found) == 1 for found in of_patient.values())
    text = "".join((hospital / "out" / name).read_text() for name in ("manifest.csv", "dataset.json"))
    assert "MRN" not in text
    assert hashed("MRN-1") not in text
    assert str(hospital) not in text
    used = SetInfo.read(hospital / "out").labels
    assert used.tables[0].sha256 == hashlib.sha256((hospital / "table.csv").read_bytes()).hexdigest()
    record = Record(data=prepared.info)
    assert "7 of 8 images were used" in answers.labels(record)
    assert answers.exclusions(record).endswith("1 images for other reasons (1 for 'view AP')")


def test_another_table_is_another_set(hospital):
    def run(**options):
        labels = LabelOptions(files=(str(hospital / "table.csv"),), **options)
        return prepare(hospital / "pacs", hospital / "out", resolution=16, workers=1, labels=labels, replace=True).info

    before = run()
    assert run().fingerprint == before.fingerprint
    other = LabelOptions(files=(str(hospital / "table.csv"),), several="first")
    with pytest.raises(UsageError, match="its labels come from other tables or options"):
        prepare(hospital / "pacs", hospital / "out", resolution=16, labels=other)
    assert run(several="first").fingerprint != before.fingerprint
    with open(hospital / "table.csv", "a") as file:
        file.write("\n")
    after = run()
    assert after.fingerprint != before.fingerprint
    assert after.options.labels.files == ("table.csv",)
    shutil.copy(hospital / "table.csv", hospital / "pacs/table.csv")  # tables may lie beside the images
    assert os.listdir(hospital / "out")


def test_options_of_tables_need_a_table(hospital, capsys):
    assert main(["prepare", str(hospital / "pacs"), str(hospital / "out"), "--views", "PA"]) == 2
    assert "give --labels FILE" in capsys.readouterr().err
