"""Echoes and phases under one SeriesInstanceUID are no several items of one label, in 2-D too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from client.cohort.left_out import NobodyUsable
from client.cohort.site_cohort import SiteCohort
from client.dicom.reasons import Reason
from client.inference.trained_model import Local, score_study
from common.config.run_config import parse_config
from common.platform.errors import CohortError
from tests.client.dicom_files import config_of, image, load, noise, placed, save, write_labels
from tests.client.small_models import model_of, stirred

FLAT = config_of(cohort="{images: {size: [8, 8]}, smallest_cohort: 1}")
DEEP = config_of(cohort="{images: {size: [8, 8, 8]}, smallest_cohort: 1}")
PRIVATE = parse_config("""
name: phases
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [8, 8]}, smallest_cohort: 5}
model: {network: small_cnn, width: 4}
training: {rounds: 1}
privacy: {unit: patient, epsilon: 8, default_patients: 20}
""").in_force()
TILTED = (1.0, 0.0, 0.0, 0.0, 0.8, 0.6)
Said = Mapping[str, object]


def scan(
    folder: Path,
    parts: Sequence[Said],
    *,
    count: int = 4,
    modality: str = "MR",
    places: bool = True,
) -> Path:
    """Write P1's series, for each part so many slices that say this, and P2 with a plain series."""
    for part, said in enumerate(parts):
        for number, plane in enumerate(noise(count, 8, 8, seed=part)):
            one = image(plane, "P1", "S", "1", 100 * part + number)
            if places:
                placed(one, (0, 0, 2.0 * number))
            one.Modality = modality
            for name, value in said.items():
                setattr(one, name, value)
            save(folder / f"p1-{part}-{number}.dcm", one)
    for number, plane in enumerate(noise(4, 8, 8, seed=9)):
        one = placed(image(plane, "P2", "S2", "2", number), (0, 0, 2.0 * number))
        one.Modality = modality
        save(folder / f"p2-{number}.dcm", one)
    write_labels(folder, [{"PatientID": "P1", "ill": 1}, {"PatientID": "P2", "ill": 0}])
    return folder


def used(found: SiteCohort) -> int:
    return sum(source.startswith("p1") for source in found.sources)


def reasons(found: SiteCohort) -> set[tuple[Reason, str]]:
    return {(problem.reason, problem.detail) for problem in found.unusable}


SEVERAL: dict[str, tuple[Said, ...]] = {
    "echo times": ({"EchoTime": 10}, {"EchoTime": 90.5}),
    "echo numbers": ({"EchoNumbers": 1}, {"EchoNumbers": 2}),
    "positions in time": tuple({"TemporalPositionIdentifier": n} for n in (1, 2, 3)),
    "trigger times": ({"TriggerTime": 0}, {"TriggerTime": 300}),
    "b-values": ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}),
    "inversion times": ({"InversionTime": 100}, {"InversionTime": 2000}),
}
NAMES = {
    "echo times": "EchoTime (10, 90.5)",
    "echo numbers": "EchoNumbers (1, 2)",
    "positions in time": "TemporalPositionIdentifier (1, 2, 3)",
    "trigger times": "TriggerTime (0, 300)",
    "b-values": "DiffusionBValue (0, 1000)",
    "inversion times": "InversionTime (100, 2000)",
    "acquisitions": "AcquisitionNumber (1, 2)",
}
AT_PLACES: dict[str, tuple[Said, ...]] = {
    **SEVERAL,
    "acquisitions": ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
    "nothing that is said": ({}, {}),
}


@pytest.mark.parametrize("kind", AT_PLACES)
def test_slices_that_show_one_place_twice_are_refused_in_2d_as_in_3d(
    tmp_path: Path, kind: str
) -> None:
    site = scan(tmp_path / "d", AT_PLACES[kind])
    flat, deep = (load(site, c, tmp_path / f"c{n}") for n, c in enumerate((FLAT, DEEP)))
    assert flat.items.pseudonyms == deep.items.pseudonyms == ("P2",)
    found = [p for p in flat.unusable if p.reason is Reason.MULTI_PHASE]
    assert len(found) == 4 * len(AT_PLACES[kind])
    assert NAMES.get(kind, "slices lie on another") in found[0].detail
    assert Reason.MULTI_PHASE in deep.reasons()


@pytest.mark.parametrize("kind", SEVERAL)
def test_slices_without_a_place_are_told_apart_by_what_no_stack_varies(
    tmp_path: Path, kind: str
) -> None:
    site = scan(tmp_path / "d", SEVERAL[kind], places=False)
    found = load(site, FLAT, tmp_path / "c")
    assert used(found) == 0
    told = [p.detail for p in found.unusable if p.reason is Reason.MULTI_PHASE]
    assert NAMES[kind] in told[0]
    assert "do not say where they lie" in told[0]


def test_slices_without_a_place_lie_where_their_location_says(tmp_path: Path) -> None:
    def located(folder: Path, *parts: float) -> int:
        for part, start in enumerate(parts):
            for number, plane in enumerate(noise(4, 8, 8, seed=part)):
                one = image(plane, "P1", "S", "1", 10 * part + number)
                one.Modality, one.SliceLocation = "MR", start + 2.0 * number
                save(folder / f"p1-{part}-{number}.dcm", one)
        save(folder / "p2.dcm", image(noise(8, 8), "P2"))
        write_labels(folder, [{"PatientID": "P1", "ill": 1}, {"PatientID": "P2", "ill": 0}])
        return used(load(folder, FLAT, folder.with_suffix(".cache")))

    assert located(tmp_path / "a", 0.0, 0.0) == 0
    assert located(tmp_path / "b", 0.0, 8.0) == 8


def test_one_slice_twice_takes_its_series_out(tmp_path: Path) -> None:
    site = scan(tmp_path / "d", [{}])
    again = placed(image(noise(8, 8, seed=5), "P1", "S", "1", 77), (0, 0, 2.0))
    again.Modality = "MR"
    save(site / "p1-again.dcm", again)
    found = load(site, FLAT, tmp_path / "c")
    assert used(found) == 0
    assert (Reason.DUP_POSITION, "1 of 5 slices lie on another") in reasons(found)


def test_naming_the_series_does_not_choose_its_phase(tmp_path: Path) -> None:
    site = scan(tmp_path / "d", SEVERAL["echo times"])
    series = str(image(noise(8, 8), "P1", "S", "1", 0).SeriesInstanceUID)
    write_labels(site, [{"PatientID": "P1", "SeriesInstanceUID": series, "ill": 1}])
    with pytest.raises(NobodyUsable, match="8 x MULTI_PHASE"):
        load(site, FLAT, tmp_path / "c")


def test_a_private_run_and_an_answer_refuse_them_too(tmp_path: Path) -> None:
    site = scan(tmp_path / "d", SEVERAL["echo times"])
    found = load(site, PRIVATE, tmp_path / "c")
    assert found.items.pseudonyms == ("P2",)
    assert {p.patient for p in found.unusable if p.reason is Reason.MULTI_PHASE} == {"P1"}
    model = model_of(FLAT, stirred(FLAT))
    with pytest.raises(CohortError, match="8 x MULTI_PHASE"):
        score_study(sorted(site.glob("p1-*.dcm")), model, Local(explain=False))


def test_frames_of_an_enhanced_object_that_show_one_place_twice_are_refused(tmp_path: Path) -> None:
    def frames(folder: Path, levels: Sequence[float]) -> int:
        save(folder / "p1.dcm", enhanced(levels))
        save(folder / "p2.dcm", image(noise(8, 8), "P2"))
        write_labels(folder, [{"PatientID": "P1", "ill": 1}, {"PatientID": "P2", "ill": 0}])
        return used(load(folder, FLAT, folder.with_suffix(".cache")))

    assert frames(tmp_path / "a", (0, 2, 4, 0, 2, 4)) == 0
    assert frames(tmp_path / "b", (0, 2, 4, 6, 8, 10)) == 6


def enhanced(levels: Sequence[float]) -> FileDataset:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    def item(**values: object) -> Dataset:
        found = Dataset()
        for name, value in values.items():
            setattr(found, name, value)
        return found

    one = image(noise(len(levels), 8, 8).astype("uint8"), "P1", "S", "1")
    one.Modality = "MR"
    turn = item(ImageOrientationPatient=[1.0, 0, 0, 0, 1.0, 0])
    one.SharedFunctionalGroupsSequence = Items([item(PlaneOrientationSequence=Items([turn]))])
    one.PerFrameFunctionalGroupsSequence = Items(
        [
            item(PlanePositionSequence=Items([item(ImagePositionPatient=[0.0, 0.0, float(level)])]))
            for level in levels
        ]
    )
    return one


@pytest.mark.parametrize("kind", ["echo times", "echo numbers", "b-values"])
def test_slices_of_several_kinds_are_refused_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    """Two echoes whose slices lie between each other make an even series."""
    shifted = [
        {**said, "ImagePositionPatient": [0, 0, 4.0 * n + 2.0 * part]}
        for part, said in enumerate(SEVERAL[kind])
        for n in range(4)
    ]
    site = scan(tmp_path / "d", shifted, count=1)
    for number, config in enumerate((FLAT, DEEP)):
        found = load(site, config, tmp_path / f"c{number}")
        assert found.items.pseudonyms == ("P2",)
        told = [p.detail for p in found.unusable if p.reason is Reason.MIXED_SERIES]
        assert NAMES[kind] in told[0]


def test_a_series_of_two_studies_or_modalities_or_half_rescaled_is_refused_in_2d(
    tmp_path: Path,
) -> None:
    reasons_of: dict[str, tuple[Said, Reason]] = {
        "study": ({"StudyInstanceUID": "1.2.3"}, Reason.MIXED_SERIES),
        "modality": ({"Modality": "CT"}, Reason.MIXED_SERIES),
        "rescale": ({"RescaleSlope": 1, "RescaleIntercept": -1024}, Reason.MISSING_HEADER),
    }
    for name, (said, reason) in reasons_of.items():
        other = {**said, "ImagePositionPatient": [0, 0, 100.0]}
        site = scan(tmp_path / name, ({"ImagePositionPatient": [0, 0, 0]}, other), count=1)
        series = str(image(noise(8, 8), "P1", "S", "1", 0).SeriesInstanceUID)
        write_labels(
            site,
            [
                {"PatientID": "P1", "SeriesInstanceUID": series, "ill": 1},
                {"PatientID": "P2", "SeriesInstanceUID": "", "ill": 0},
            ],
        )
        found = load(site, FLAT, tmp_path / f"{name}-cache")
        assert used(found) == 0
        assert sum(p.reason is reason for p in found.unusable) == 2, name


@pytest.mark.parametrize(
    "name", ["NumberOfEnergyWindows", "NumberOfPhases", "NumberOfRRIntervals", "NumberOfTimeSlots"]
)
def test_frames_of_a_nuclear_image_are_of_one_energy_phase_and_time(
    tmp_path: Path, name: str
) -> None:
    for patient, count in (("P1", 2), ("P2", 1)):
        one = image(noise(4, 8, 8, seed=count).astype("uint8"), patient)
        one.Modality = "NM"
        setattr(one, name, count)
        save(tmp_path / f"{patient.lower()}.dcm", one)
    write_labels(tmp_path, [{"PatientID": "P1", "ill": 1}, {"PatientID": "P2", "ill": 0}])
    found = load(tmp_path, FLAT, tmp_path / "c")
    assert found.items.pseudonyms == ("P2",)
    assert (Reason.MULTI_PHASE, f"4 frames, {name} is 2") in reasons(found)


PLAIN: dict[str, tuple[str, tuple[Said, ...]]] = {
    "an MR series": ("MR", ({"EchoTime": 10, "AcquisitionNumber": 1},)),
    "echo times that were rounded": (
        "MR",
        tuple(
            {"EchoTime": 4.6 + 0.01 * n, "ImagePositionPatient": [0, 0, 9.0 * n]} for n in range(3)
        ),
    ),
    "slices of two tilts": ("MR", ({}, {"ImageOrientationPatient": list(TILTED)})),
    "gated slices, each at its own time": (
        "MR",
        tuple({"ImagePositionPatient": [0, 0, 9.0 * n], "TriggerTime": 50 * n} for n in range(3)),
    ),
    "stations beside each other": ("MR", ({}, {"ImagePositionPatient": [0, 400.0, 0]})),
    "X-rays": ("CR", ({"KVP": 60}, {"KVP": 110})),
    "ultrasound with a place of nothing": ("US", ({"ImagePositionPatient": [0, 0, 0]},)),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_pictures_of_several_places_stay_items_of_their_patient(tmp_path: Path, kind: str) -> None:
    modality, parts = PLAIN[kind]
    count = 1 if kind.startswith(("gated", "stations", "echo")) else 4
    site = scan(tmp_path / "d", parts, count=count, modality=modality)
    assert used(load(site, FLAT, tmp_path / "c")) == count * len(parts)


def test_ct_slices_without_a_place_are_used_whatever_their_acquisition(tmp_path: Path) -> None:
    said = [{"AcquisitionNumber": n, "KVP": 120} for n in range(4)]
    site = scan(tmp_path / "d", said, count=1, modality="CT", places=False)
    assert used(load(site, FLAT, tmp_path / "c")) == 4
