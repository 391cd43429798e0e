"""Refuse classes that are patients, once the files have told whom they show."""

from samgan.data.chunks import Record
from samgan.data.patients import identify_patients
from samgan.data.sources.layout import suspicious


def refuse_patients_as_classes(source: str, records: list[Record], pattern: str | None) -> None:
    """Refuse folders that hold one patient each.

    Raises:
        SamganError: each of three or more classes has one patient, and no patient is in two classes.
    """
    patients = identify_patients(records, pattern)
    by_class: dict[str, set[str]] = {}
    for record, patient in zip(records, patients.names, strict=True):
        by_class.setdefault(record.entry.class_name, set()).add(patient)
    told = patients.share == 1 and len(by_class) > 2  # two patients in two classes may be a trial
    if told and len(set.union(*by_class.values())) == len(by_class) == sum(map(len, by_class.values())):
        raise suspicious(source, [f"each of the {len(by_class)} folders holds one patient, told by {patients.told_by}"])
