"""Synthetic images as DICOM files."""

import json
import uuid
from pathlib import Path

import numpy as np

from samgan.errors import SamganError
from samgan.grids import SYNTHETIC
from samgan.provenance.mark import Sample, hash_pixels

UID_NAMESPACE = uuid.UUID("6f0e9a52-6d0b-4c52-9d0c-0d8a1b1f7c3e")
"""Drawn at random once and kept, so that a name gets the same UID everywhere."""
DICOM_TEXT = 1024
"""Largest number of characters of a Derivation Description."""
DICOM_INTEGER = 1 << 31
"""Instance numbers are smaller than this, and so are half of all seeds."""


def write_dicom(path: Path, sample: Sample) -> None:
    """Write one Secondary Capture image, without identity, dates or anything else that a patient has.

    UIDs are 2.25. and a name-based UUID (PS3.5, B.2; RFC 9562, version 5), which needs no registered root. The name of
    the instance consists of the mark and the pixels, from which the whole file is made. So the same image gets the same
    UID wherever this version of the software makes it; an image of another class or bit depth, or one that came out
    differently on another machine, gets another UID.

    Long because it sets one attribute per line, module by module of the standard.

    Source:
        DICOM PS3.3, A.8.1 (Secondary Capture Image IOD), C.12.1 (Synthetic Data).
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    image, mark = sample
    text = json.dumps(mark.entries())
    if len(text) > DICOM_TEXT:
        raise SamganError(
            f"the mark has {len(text)} characters, but DICOM allows {DICOM_TEXT}: shorten the preset's label"
        )
    bits = 8 * image.itemsize
    dataset = Dataset()
    # patient: none
    dataset.PatientName = dataset.PatientID = "SYNTHETIC"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    # study: the images of one model
    dataset.StudyInstanceUID = _uid("study", mark.model_sha256)
    dataset.StudyID = "SYNTHETIC"
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    # series: those of one version of this software, at one bit depth
    dataset.SeriesInstanceUID = _uid("series", mark.model_sha256, mark.software, str(bits))
    dataset.SeriesNumber = bits
    dataset.SeriesDescription = "SYNTHETIC, not a patient"
    dataset.Modality = "OT"  # other: no device made the image
    dataset.Laterality = ""  # unknown; validators ask for it if no body part is named
    # equipment
    dataset.ConversionType = "SYN"  # synthetic image
    dataset.Manufacturer = dataset.ManufacturerModelName = dataset.SecondaryCaptureDeviceManufacturer = "samgan"
    dataset.SoftwareVersions = dataset.SecondaryCaptureDeviceSoftwareVersions = mark.software
    # image
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = _uid("image", text, hash_pixels(image))
    dataset.SyntheticData = "YES"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.InstanceNumber = mark.seed if mark.seed < DICOM_INTEGER and not mark.latent else None
    dataset.PatientOrientation = ""
    dataset.DerivationDescription = text
    dataset.ImageComments = SYNTHETIC
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel = len(image)
    dataset.PhotometricInterpretation = "MONOCHROME2" if len(image) == 1 else "RGB"
    if len(image) == 1:  # the whole range, so that neither viewers nor `samgan prepare` stretch the contrast
        dataset.WindowCenter, dataset.WindowWidth = 1 << bits - 1, 1 << bits
    else:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = image.shape[1:]
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    values = np.moveaxis(image, 0, -1)
    dataset.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def _uid(*names: str) -> str:
    return f"2.25.{uuid.uuid5(UID_NAMESPACE, ' '.join(names)).int}"
