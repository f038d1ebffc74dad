"""The index's tables, and the conversion between images and rows."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path

from client.dicom.headers.instance import Instance, Quarantined, Series
from client.dicom.reading.frame_times import facts_from, kept
from client.dicom.reading.technique import technique_from
from client.dicom.reading.tracer import Tracer
from client.dicom.reasons import Reason
from client.dicom.remarks import Remark

#: Raised when the tables or what stands in them change; an index of another version is made anew.
VERSION = 12

#: A patient, study or series that files describe differently has one row for each description.
SCHEMA = """
CREATE TABLE patient (id INTEGER PRIMARY KEY, patient TEXT, issuer TEXT, patient_sex TEXT,
    birth_date TEXT);
CREATE TABLE study (id INTEGER PRIMARY KEY, patient_id INTEGER NOT NULL REFERENCES patient,
    study TEXT, accession TEXT, study_date TEXT, study_description TEXT, patient_age TEXT);
CREATE TABLE series (id INTEGER PRIMARY KEY, study_id INTEGER NOT NULL REFERENCES study,
    series TEXT, modality TEXT, body_part TEXT, series_description TEXT, manufacturer TEXT,
    model TEXT);
CREATE TABLE instance (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER,
    series_id INTEGER NOT NULL REFERENCES series, instance TEXT, number INTEGER, sop_class TEXT,
    transfer_syntax TEXT, image_type TEXT, laterality TEXT, burned_in TEXT, photometric TEXT,
    "rows" INTEGER, "columns" INTEGER, frames INTEGER, samples INTEGER, bits_allocated INTEGER,
    bits_stored INTEGER, slope REAL, intercept REAL, slice_thickness REAL, geometry TEXT,
    frame_of_reference TEXT, units TEXT, presentation TEXT, remarks TEXT, technique TEXT,
    tracer TEXT) WITHOUT ROWID;
CREATE TABLE quarantine (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, reason TEXT,
    detail TEXT, patient TEXT, study TEXT, series TEXT, description TEXT) WITHOUT ROWID;
CREATE INDEX patient_patient ON patient (patient);
CREATE INDEX study_study ON study (study);
CREATE INDEX study_patient ON study (patient_id);
CREATE INDEX series_series ON series (series);
CREATE INDEX series_study ON series (study_id);
CREATE INDEX instance_series ON instance (series_id);
"""
JOINED = """FROM instance JOIN series ON series.id = series_id JOIN study ON study.id = study_id
    JOIN patient ON patient.id = patient_id"""
INSTANCES = f"SELECT * {JOINED}"
QUARANTINE = "SELECT * FROM quarantine"
#: By what files are known.
STATES = (
    "SELECT path, size, mtime_ns FROM instance",
    "SELECT path, size, mtime_ns FROM quarantine",
)
#: Rows that no file is left of, in the order in which they go.
ORPHANS = (
    "DELETE FROM series WHERE id NOT IN (SELECT series_id FROM instance)",
    "DELETE FROM study WHERE id NOT IN (SELECT study_id FROM series)",
    "DELETE FROM patient WHERE id NOT IN (SELECT patient_id FROM study)",
)
INSERT_INSTANCE = (
    "INSERT OR REPLACE INTO instance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
    "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_QUARANTINE = "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
SERIES = f"""SELECT patient.*, study.*, series.*, count(*) AS instances, sum(frames) AS frames
    {JOINED} GROUP BY series.id ORDER BY patient, study, series.series"""

Row = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Level:
    """How the row of a patient, study or series is found by its values, and made."""

    find: str
    insert: str


#: From the patient down; each row but the first begins with the row above it.
LEVELS = (
    Level(
        find="SELECT id FROM patient WHERE patient = ? AND issuer = ? AND patient_sex = ? AND "
        "birth_date = ?",
        insert="INSERT INTO patient (patient, issuer, patient_sex, birth_date) VALUES (?, ?, ?, ?)",
    ),
    Level(
        find="SELECT id FROM study WHERE patient_id = ? AND study = ? AND accession = ? AND "
        "study_date = ? AND study_description = ? AND patient_age = ?",
        insert="INSERT INTO study (patient_id, study, accession, study_date, study_description, "
        "patient_age) VALUES (?, ?, ?, ?, ?, ?)",
    ),
    Level(
        find="SELECT id FROM series WHERE study_id = ? AND series = ? AND modality = ? AND "
        "body_part = ? AND series_description = ? AND manufacturer = ? AND model = ?",
        insert="INSERT INTO series (study_id, series, modality, body_part, series_description, "
        "manufacturer, model) VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
)


def patient_row(image: Instance) -> Row:
    """Return what a patient's row holds."""
    return image.patient, image.issuer, image.patient_sex, image.birth_date


def study_row(image: Instance) -> Row:
    """Return what a study's row holds besides its patient."""
    return (
        image.study,
        image.accession,
        image.study_date,
        image.study_description,
        image.patient_age,
    )


def series_row(image: Instance) -> Row:
    """Return what a series' row holds besides its study."""
    return (
        image.series,
        image.modality,
        image.body_part,
        image.series_description,
        image.manufacturer,
        image.model,
    )


def instance_row(image: Instance, series_id: int) -> Row:
    """Return what an image's row holds."""
    geometry = (
        image.spacing,
        image.positions,
        image.orientations,
        image.aspect,
        image.acquired,
        kept(image.each),
    )
    return (
        str(image.path),
        image.size,
        image.mtime_ns,
        series_id,
        image.instance,
        image.number,
        image.sop_class,
        image.transfer_syntax,
        image.image_type,
        image.laterality,
        image.burned_in,
        image.photometric,
        image.rows,
        image.columns,
        image.frames,
        image.samples,
        image.bits_allocated,
        image.bits_stored,
        image.slope,
        image.intercept,
        image.slice_thickness,
        json.dumps(geometry),
        image.frame_of_reference,
        image.units,
        image.presentation,
        ",".join(sorted(remark.name for remark in image.remarks)) if image.remarks else "",
        json.dumps(image.technique.values()),
        "" if image.tracer is None else json.dumps(asdict(image.tracer)),
    )


def instance_of(row: sqlite3.Row) -> Instance:
    """Return the image of a row of INSTANCES."""
    spacing, positions, orientations, aspect, acquired, each = json.loads(row["geometry"])
    return Instance(
        path=Path(row["path"]),
        size=row["size"],
        mtime_ns=row["mtime_ns"],
        patient=row["patient"],
        issuer=row["issuer"],
        patient_sex=row["patient_sex"],
        birth_date=row["birth_date"],
        study=row["study"],
        accession=row["accession"],
        study_date=row["study_date"],
        study_description=row["study_description"],
        patient_age=row["patient_age"],
        series=row["series"],
        modality=row["modality"],
        body_part=row["body_part"],
        series_description=row["series_description"],
        manufacturer=row["manufacturer"],
        model=row["model"],
        instance=row["instance"],
        number=row["number"],
        sop_class=row["sop_class"],
        transfer_syntax=row["transfer_syntax"],
        image_type=row["image_type"],
        laterality=row["laterality"],
        burned_in=row["burned_in"],
        photometric=row["photometric"],
        rows=row["rows"],
        columns=row["columns"],
        frames=row["frames"],
        samples=row["samples"],
        bits_allocated=row["bits_allocated"],
        bits_stored=row["bits_stored"],
        slope=row["slope"],
        intercept=row["intercept"],
        slice_thickness=row["slice_thickness"],
        spacing=None if spacing is None else (spacing[0], spacing[1]),
        positions=tuple((x, y, z) for x, y, z in positions),
        orientations=tuple((a, b, c, d, e, f) for a, b, c, d, e, f in orientations),
        frame_of_reference=row["frame_of_reference"],
        units=row["units"],
        presentation=row["presentation"],
        aspect=aspect,
        acquired=tuple(acquired),
        each=facts_from(each),
        remarks=frozenset(Remark[name] for name in row["remarks"].split(",") if name),
        technique=technique_from(json.loads(row["technique"])),
        tracer=Tracer(**json.loads(row["tracer"])) if row["tracer"] else None,
    )


def series_of(row: sqlite3.Row) -> Series:
    """Return the series of a row of SERIES."""
    return Series(
        patient=row["patient"],
        patient_sex=row["patient_sex"],
        birth_date=row["birth_date"],
        study=row["study"],
        accession=row["accession"],
        study_date=row["study_date"],
        study_description=row["study_description"],
        patient_age=row["patient_age"],
        series=row["series"],
        modality=row["modality"],
        body_part=row["body_part"],
        series_description=row["series_description"],
        manufacturer=row["manufacturer"],
        model=row["model"],
        instances=row["instances"],
        frames=row["frames"],
    )


def quarantined_of(row: sqlite3.Row) -> Quarantined:
    """Return the file of a row of quarantine."""
    return Quarantined(
        reason=Reason[row["reason"]],
        what=row["path"],
        detail=row["detail"],
        patient=row["patient"],
        study=row["study"],
        series=row["series"],
        description=row["description"],
    )
