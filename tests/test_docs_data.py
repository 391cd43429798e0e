"""docs/data.md says what the program does: its example, its options and its messages."""

import argparse
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

import samgan
from samgan.commands.main import COMMANDS, main

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "data.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text() for path in Path(samgan.__file__).parent.rglob("*.py"))


def write_chest(path):
    """A drawn radiograph as an old detector would write it: inverted, with a negative slope and padding."""
    y, x = np.mgrid[:512, :400]
    values = (300 + 3.2 * y + 4 * x).astype(np.uint16)
    values[:16] = 4095
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.PatientID, dataset.ViewPosition = "4711", "PA"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelPaddingValue = 4095
    dataset.RescaleSlope, dataset.RescaleIntercept = "-1", "4095"
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = ["2000", "1500"], ["3000", "1000"], ""
    dataset.PixelData = values.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)


def test_the_example_is_what_the_command_prints(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"<!-- explain -->\n```text\n(.*?)```", PAGE, flags=re.S)
    monkeypatch.chdir(tmp_path)
    write_chest(tmp_path / "chest.dcm")
    assert main(["prepare", "--explain", "chest.dcm", "chest.png"]) == 0
    printed = capsys.readouterr().out
    assert printed == block
    assert "4711" not in printed


def test_every_option_of_the_page_is_one_of_the_commands_it_names():
    known = set()
    for command in COMMANDS:
        if command.name in ("prepare", "inspect", "card"):
            parser = argparse.ArgumentParser()
            command.add_arguments(parser)
            known |= {option for action in parser._actions for option in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE))
    assert len(named) > 15
    assert named <= known


MESSAGES = re.findall(r"^\| `([^`]+)`", PAGE[PAGE.index("## What is refused") : PAGE.index("## Look at")], flags=re.M)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_of_the_page_is_one_of_the_program(message):
    pieces = [piece.strip(" :,().") for piece in re.split(r"\b[NM]\b|\bOUT\b|\.\.\.", message)]
    pieces = [piece for piece in pieces if len(piece) > 3]
    assert pieces
    source = re.sub(r"\{[^{}]*\}", "", re.sub(r'"\s*\n\s*f?"', "", SOURCE))
    for piece in pieces:
        assert piece in source, piece


def test_other_pages_and_the_readme_lead_here():
    assert "docs/data.md" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "data.md" in (DOCS / "run-folder.md").read_text(encoding="utf-8")
