"""A small OMOP database (CDM 5.4) in SQLite, with the columns that its documentation names."""

from __future__ import annotations

import sqlite3
from pathlib import Path

SCHEMA = """
CREATE TABLE person (person_id INTEGER PRIMARY KEY, gender_concept_id INTEGER NOT NULL,
    year_of_birth INTEGER NOT NULL, month_of_birth INTEGER, day_of_birth INTEGER,
    birth_datetime TEXT, race_concept_id INTEGER, person_source_value TEXT);
CREATE TABLE death (person_id INTEGER NOT NULL, death_date DATE NOT NULL);
CREATE TABLE observation_period (observation_period_id INTEGER PRIMARY KEY, person_id INTEGER,
    observation_period_start_date DATE, observation_period_end_date DATE);
CREATE TABLE condition_occurrence (condition_occurrence_id INTEGER PRIMARY KEY, person_id INTEGER,
    condition_concept_id INTEGER, condition_start_date DATE);
CREATE TABLE measurement (measurement_id INTEGER PRIMARY KEY, person_id INTEGER,
    measurement_concept_id INTEGER, measurement_date DATE, operator_concept_id INTEGER,
    value_as_number REAL, unit_concept_id INTEGER, unit_source_value TEXT);
CREATE TABLE concept (concept_id INTEGER PRIMARY KEY, concept_name TEXT, vocabulary_id TEXT,
    concept_code TEXT);
CREATE TABLE image_occurrence (image_occurrence_id INTEGER PRIMARY KEY, person_id INTEGER,
    image_occurrence_date DATE, image_study_uid TEXT, modality_concept_id INTEGER);
INSERT INTO concept VALUES (8751, 'milligram per liter', 'UCUM', 'mg/L'),
    (8840, 'milligram per deciliter', 'UCUM', 'mg/dL'), (1, 'other', 'Local', 'mg/L');
INSERT INTO person VALUES (1, 8532, 1950, 1, 1, NULL, 0, 'P1'), (2, 8507, 1960, NULL, NULL, NULL,
    0, 'P2'), (3, 0, 1970, 2, 30, '1970-03-01 00:00:00', 0, ' P3 '), (4, 8507, 1980, 1, 1, NULL, 0,
    NULL), (5, 8507, 1980, 1, 1, NULL, 0, 'P1');
INSERT INTO death VALUES (1, '2024-03-01');
INSERT INTO observation_period VALUES (1, 1, '2000-01-01', '2024-03-01'),
    (2, 2, '2000-01-01', '2024-06-30'), (3, 3, '2000-01-01', '2024-02-29');
INSERT INTO image_occurrence VALUES (1, 1, '2024-01-31', '1.2.1', 0), (2, 2, '2024-01-31', '1.2.2',
    0), (3, 3, '2024-01-31', '1.2.3', 0), (4, 3, '2024-02-10', '1.2.4', 0);
INSERT INTO condition_occurrence VALUES (1, 1, 201826, '2010-05-05'), (2, 2, 201826,
    '2024-02-02'), (3, 3, 999, '2001-01-01');
INSERT INTO measurement VALUES (1, 1, 3020460, '2024-01-30', 0, 5.5, 8751, 'x'),
    (2, 1, 3020460, '2024-02-20', 0, 99, 8751, 'x'), (3, 2, 3020460, '2024-01-30', 4172703, 0.75,
    8840, 'x'), (4, 3, 3020460, '2024-01-30', 4171756, 3, 8751, 'x'), (5, 3, 3020460,
    '2024-01-30', NULL, NULL, 8751, 'x'), (6, 3, 3020460, '2024-01-29', NULL, 4, 1, 'mmol/L');
"""


def omop_hospital(folder: Path, more: str = "") -> Path:
    """Write the database and return the file that holds its URL."""
    database = folder / "omop.sqlite"
    with sqlite3.connect(database) as connection:
        connection.executescript(SCHEMA + more)
    connection.close()
    return url_file(folder, f"sqlite:///{database}")


def url_file(folder: Path, url: str) -> Path:
    """Write a connection's URL for this user alone."""
    path = folder / "omop.url"
    path.write_text(url)
    path.chmod(0o600)
    return path
