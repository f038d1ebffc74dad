from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import simulated_key
from client.dicom.reading.files import File
from client.dicom.reasons import Reason
from common.config.run_config import Split, parse_config
from common.platform.errors import CohortError
from tests.client.dicom_files import (
    SHARED,
    config_of,
    image,
    load,
    noise,
    save,
    segmentation,
    slices,
    uid,
    write_labels,
)

TABLE = "{table: {numbers: [{column: age, center: 50, scale: 10}]}}"
BOTH = "{images: {size: [16, 16]}, table: {numbers: [{column: age}]}}"
VOLUMES = "{images: {size: [8, 16, 16], fit: crop, spacing: [2.0, 0.5, 0.7]}}"
OUTLINES = "{kind: segmentation, structures: {front: [1], back: [2]}}"


def write_site(site: Path, patients: int = 6) -> Path:
    """One to three images a patient; the table is by patient."""
    for number in range(patients):
        for item in range(number % 3 + 1):
            picture = image(noise(20, 12, seed=10 * number + item), f"P{number}", number=item)
            save(site / f"P{number}" / f"{item}", picture)
    write_labels(
        site,
        [{"PatientID": f"P{n}", "ill": n % 2, "age": 40 + n, "mask": ""} for n in range(patients)],
    )
    return site


def test_images_are_joined_to_their_rows_and_stand_by_patient(tmp_path: Path) -> None:
    cohort = load(write_site(tmp_path / "north"), config_of(cohort=BOTH), tmp_path / "c")
    assert cohort.name == "north"
    assert cohort.items.pseudonyms == ("P0", "P1", "P2", "P3", "P4", "P5")
    assert cohort.items.patient.tolist() == [0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5]
    assert cohort.items.image.shape == (12, 1, 16, 16)
    assert cohort.items.image.dtype == torch.float32
    assert cohort.items.table[:, 0].tolist() == [40, 41, 41, 42, 42, 42, 43, 44, 44, 45, 45, 45]
    assert cohort.items.target.flatten().tolist() == [0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 1]
    assert not cohort.unusable


def test_a_patient_is_found_by_its_identifier_as_it_is_written(tmp_path: Path) -> None:
    """Whatever a spreadsheet, a wildcard or DICOM's sign between values would make of it."""
    names = [
        "007",
        "7",
        "1e5",
        "100000",
        "TRUE",
        "NA",
        "NaN",
        "null",
        "-1",
        "0x1F",
        "A*B",
        "A?B",
        "A\\B",
        "A^B",
        "a b",
        "A  B",
        "x.",
        "#1",
        "=1+1",
        "a,b",
        'q"x',
        "12345678901234567890",
    ]
    site = tmp_path / "site"
    for number, name in enumerate(names):
        save(site / f"{number}.dcm", image(noise(20, 20, seed=number), name, f"s{number}"))
    write_labels(site, [{"PatientID": n, "ill": k % 2} for k, n in enumerate(names)])
    cohort = load(site, config_of(), tmp_path / "cache")
    assert not cohort.unusable
    targets = cohort.items.target.reshape(-1).tolist()
    found = {int(s.partition(".")[0]): t for s, t in zip(cohort.sources, targets, strict=True)}
    assert found == {k: float(k % 2) for k in range(len(names))}


def test_the_cache_changes_nothing_but_the_time(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    (site / "broken").write_bytes(b"")
    config = config_of()
    cold = load(site, config, tmp_path / "c")
    warm = load(site, config, tmp_path / "c")
    elsewhere = load(site, config, tmp_path / "d")
    for other in (warm, elsewhere):
        assert torch.equal(cold.items.image, other.items.image)
        assert cold.unusable == other.unusable


def test_another_size_starts_from_stored_pixels_not_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = write_site(tmp_path / "north")
    load(site, config_of(), tmp_path / "c")
    larger = config_of(cohort="{images: {size: [24, 24]}}")
    fresh = load(site, larger, tmp_path / "d")

    def forbidden(file: File) -> None:
        pytest.fail(f"decoded {file.path}")

    monkeypatch.setattr("client.cohort.decode.read_image", forbidden)
    again = load(site, larger, tmp_path / "c")
    assert torch.equal(fresh.items.image, again.items.image)


def test_a_changed_file_or_table_is_seen(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    before = load(site, config_of(), tmp_path / "c")
    save(site / "P0" / "0", image(noise(20, 12, seed=99), "P0", number=0))
    write_labels(site, [{"PatientID": f"P{n}", "ill": 1} for n in range(5)])
    after = load(site, config_of(), tmp_path / "c")
    assert not torch.equal(before.items.image[0], after.items.image[0])
    assert after.items.target.flatten().tolist() == [1] * 9
    assert after.reasons() == Counter({Reason.LABEL_MISSING: 3})


def test_what_cannot_be_used_is_listed_and_the_others_are_used(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    (site / "empty").write_bytes(b"")
    (site / "notes").write_bytes(b"these are no images, not at all")
    (site / "readme.txt").write_text("not even looked at")
    save(site / "blank.dcm", image(np.full((8, 8), 7, np.uint16), "P0", "blank"))
    shutil.copy(site / "P1" / "0", site / "P1" / "copy")
    twin = image(noise(20, 12, seed=77), "P2", number=0)  # P2/0's UID, another picture
    save(site / "P2" / "twin", twin)
    nameless = image(noise(8, 8), "", "S")
    save(site / "nameless", nameless)
    save(site / "stranger", image(noise(8, 8), "P99"))
    rows = [{"PatientID": f"P{n}", "ill": n % 2} for n in range(5)]
    write_labels(site, [*rows, {"PatientID": "P5", "ill": "maybe"}, {"PatientID": "P7", "ill": 0}])
    cohort = load(site, config_of(), tmp_path / "c")
    assert cohort.reasons() == Counter(
        {
            Reason.EMPTY_FILE: 1,
            Reason.NOT_DICOM: 1,
            Reason.BLANK: 1,
            Reason.DUP_SOP_SAME: 1,
            Reason.DUP_SOP_DIFFERENT: 2,
            Reason.MISSING_HEADER: 1,
            Reason.LABEL_MISSING: 1,
            Reason.LABEL_UNUSABLE: 1,
            Reason.NO_IMAGE: 1,
        }
    )
    assert cohort.items.patient.tolist() == [0, 1, 1, 2, 2, 3, 4, 4]
    by_reason = {problem.reason: problem.what for problem in cohort.unusable}
    assert by_reason[Reason.EMPTY_FILE] == "empty"
    assert by_reason[Reason.NO_IMAGE] == "line 8"
    (lonely,) = [problem for problem in cohort.unusable if problem.reason is Reason.NO_IMAGE]
    assert lonely.detail.startswith("PatientID ")


@pytest.mark.parametrize("privacy", ["none", "{unit: patient, epsilon: 2.0, default_patients: 9}"])
@pytest.mark.parametrize("key", ["PatientID", "StudyInstanceUID"])
def test_a_row_whose_images_are_refused_is_told_by_their_reason_alone(
    tmp_path: Path, key: str, privacy: str
) -> None:
    site = tmp_path / "north"
    blank = np.full((8, 8), 7, np.uint16)
    cut = image(noise(8, 8), "P3", "S3")
    one = {"P1": image(noise(8, 8), "P1", "S1"), "P2": image(blank, "P2", "S2"), "P3": cut}
    one["P4"] = image(noise(8, 8), "P4", "S4")
    one["P4"].Modality = "US"
    for patient, dataset in one.items():
        save(site / f"{patient}.dcm", dataset)
    (site / "P3.dcm").write_bytes((site / "P3.dcm").read_bytes()[:-50])
    studies = {patient: dataset.StudyInstanceUID for patient, dataset in one.items()}
    rows = [{"PatientID": p, "StudyInstanceUID": s, "ill": 1} for p, s in studies.items()]
    rows.append({"PatientID": "P5", "StudyInstanceUID": "1.2.5", "ill": 0})
    write_labels(site, [{"PatientID": r["PatientID"], key: r[key], "ill": r["ill"]} for r in rows])
    images = "{images: {size: [8, 8], modalities: [OT, MR]}, smallest_cohort: 1}"
    config = parse_config(
        config_of(cohort=images).to_yaml().replace("privacy: none", f"privacy: {privacy}")
    )
    for _ in range(2):  # the second time from what is kept
        cohort = load(site, config, tmp_path / "c")
        assert sorted((one.reason.name, one.what) for one in cohort.unusable) == [
            ("BLANK", "P2.dcm frame 1"),
            ("NO_IMAGE", "line 6"),
            ("TRUNCATED_PIXELS", "P3.dcm"),
            ("WRONG_MODALITY", "P4.dcm"),
        ]


def test_several_frames_are_several_items_of_their_patient(tmp_path: Path) -> None:
    save(tmp_path / "s" / "cine", image(noise(5, 8, 9), "P1"))
    save(tmp_path / "s" / "color", image(noise(8, 9, 3, dtype="uint8", top=255), "P2"))
    write_labels(tmp_path / "s", [{"PatientID": f"P{n}", "ill": n - 1} for n in (1, 2)])
    config = config_of(cohort="{images: {size: [16, 16], channels: 3}}")
    cohort = load(tmp_path / "s", config, tmp_path / "c")
    assert cohort.items.patient.tolist() == [0] * 5 + [1]
    assert torch.equal(cohort.items.image[0, 0], cohort.items.image[0, 2])
    assert not torch.equal(cohort.items.image[5, 0], cohort.items.image[5, 2])


def test_the_message_that_nobody_can_be_used_names_no_patient(tmp_path: Path) -> None:
    save(tmp_path / "s" / "one", image(noise(8, 8), "P1"))
    write_labels(tmp_path / "s", [{"PatientID": f"Canary{n}", "ill": n % 2} for n in range(5)])
    with pytest.raises(CohortError, match="5 x NO_IMAGE") as error:
        load(tmp_path / "s", config_of(), tmp_path / "c")
    assert "Canary" not in str(error.value)


def test_other_modalities_are_left_out(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    scan = image(noise(8, 8), "P0", "ct")
    scan.Modality = "CT"
    save(site / "ct", scan)
    cohort = load(site, config_of(cohort="{images: {size: [16, 16], modalities: [OT]}}"), tmp_path)
    assert cohort.reasons() == Counter({Reason.WRONG_MODALITY: 1})


def test_a_row_of_another_patient_is_not_used(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    write_labels(
        site,
        [
            {"PatientID": "", "StudyInstanceUID": uid("P0", "S1"), "ill": 0},
            {"PatientID": "P2", "StudyInstanceUID": uid("P1", "S1"), "ill": 1},
            {"PatientID": "P2", "StudyInstanceUID": uid("P2", "S1"), "ill": 1},
        ],
    )
    cohort = load(site, config_of(), tmp_path / "c")
    assert cohort.items.pseudonyms == ("P0", "P2")
    assert cohort.reasons()[Reason.PATIENT_MISMATCH] == 2


def test_one_patient_with_two_labels_is_left_out_unless_images_are_the_unit(tmp_path: Path) -> None:
    for study, seed in (("a", 1), ("b", 2)):
        save(tmp_path / "s" / study, image(noise(8, 8, seed=seed), "P1", study))
    save(tmp_path / "s" / "c", image(noise(8, 8, seed=3), "P2", "c"))
    write_labels(
        tmp_path / "s",
        [
            {"PatientID": p, "StudyInstanceUID": uid(p, s), "ill": ill}
            for p, s, ill in (("P1", "a", 0), ("P1", "b", 1), ("P2", "c", 1))
        ],
    )
    config = config_of()
    by_patient = load(tmp_path / "s", config, tmp_path / "c")
    assert by_patient.items.pseudonyms == ("P2",)
    assert by_patient.reasons() == Counter({Reason.LABEL_CONFLICT: 1})
    unit = config.evaluation.model_copy(update={"unit": "image"})
    by_image = load(tmp_path / "s", config.model_copy(update={"evaluation": unit}), tmp_path / "c")
    assert by_image.items.target.flatten().tolist() == [0, 1, 1]


def given_split(tmp_path: Path, cells: dict[str, list[str]]) -> SiteCohort:
    write_labels(
        tmp_path / "s",
        [
            {"PatientID": p, "ill": 1, "age": n, "split": cell}
            for p, parts in cells.items()
            for n, cell in enumerate(parts)
        ],
    )
    cohort = TABLE.replace("{table", "{split: {column: split}, table")
    return load(tmp_path / "s", config_of(cohort=cohort, network="table"), tmp_path / "c")


def test_given_splits_are_kept_and_a_patient_in_two_is_left_out(tmp_path: Path) -> None:
    cohort = given_split(
        tmp_path,
        {
            "P1": ["train"],
            "P2": ["test", "test"],
            "P3": ["train", "test"],
            "P4": ["hold-out"],
            "P5": [""],
            "P6": ["Validation"],
        },
    )
    assert cohort.given == {"P1": "train", "P2": "test", "P6": "validation"}
    found = [(p.reason, p.what) for p in cohort.unusable]
    assert found == [
        (Reason.PATIENT_IN_TWO_SPLITS, "patient P3"),
        (Reason.SPLIT_UNKNOWN, "patient P4"),
        (Reason.SPLIT_UNKNOWN, "patient P5"),
    ]
    parts = cohort.split(Split(column="split"), simulated_key(0))
    assert parts["test"].pseudonyms == ("P2",)
    assert parts["test"].table.shape == (2, 2)


def test_parts_share_no_patient_and_keep_items_with_their_patient(tmp_path: Path) -> None:
    cohort = load(write_site(tmp_path / "s", patients=20), config_of(cohort=BOTH), tmp_path / "c")
    seen: list[str] = []
    for part in cohort.split(Split(test_fraction=0.3), simulated_key(3)).values():
        seen += part.pseudonyms
        ages = {n: 40 + int(name[1:]) for n, name in enumerate(part.pseudonyms)}
        assert part.table[:, 0].tolist() == [ages[int(p)] for p in part.patient]
        assert part.patient.tolist() == sorted(part.patient.tolist())
    assert sorted(seen) == sorted(cohort.items.pseudonyms)


def test_a_table_alone_is_a_cohort(tmp_path: Path) -> None:
    write_labels(
        tmp_path / "s",
        [
            {"PatientID": "P1", "ill": 1, "age": 60},
            {"PatientID": "P1", "ill": 1, "age": ""},
            {"PatientID": "P2", "ill": 0, "age": "sixty"},
            {"PatientID": "", "ill": 0, "age": 5},
        ],
    )
    cohort = load(tmp_path / "s", config_of(cohort=TABLE, network="table"), tmp_path / "c")
    assert cohort.items.image.shape == (3, 0)
    assert cohort.items.table.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert cohort.items.patient.tolist() == [0, 0, 1]
    assert cohort.reasons() == Counter({Reason.NO_KEY: 1, Reason.VALUE_UNUSABLE: 1})


def test_features_take_the_place_of_images(tmp_path: Path) -> None:
    cohort = load(write_site(tmp_path / "s"), config_of(), tmp_path / "c")
    features = torch.arange(24.0).reshape(12, 2)
    part = cohort.with_images(features).split(Split(), simulated_key(0))["train"]
    assert part.image.shape == (len(part.patient), 2)
    assert cohort.items.image.shape == (12, 1, 16, 16)


def volumes(site: Path) -> dict[str, NDArray[np.uint8]]:
    """Three patients with a CT of 8 slices and a segmentation of two structures."""
    masks = {}
    for number in range(3):
        patient = f"P{number}"
        series = slices(noise(8, 16, 16, seed=number), patient)
        found = np.zeros((2, 8, 16, 16), np.uint8)
        found[0, 2:4, number : number + 5, 3:9] = 1
        found[1, 5, 10:12, 2:4] = 1
        for index, dataset in enumerate(series):
            save(site / patient / f"{7 - index}.dcm", dataset)
        save(site / patient / "seg.dcm", segmentation({1: found[0], 2: found[1]}, series))
        masks[patient] = found[0] + 2 * found[1]
    write_labels(site, [{"PatientID": p, "mask": f"{p}/seg.dcm"} for p in masks])
    return masks


def test_volumes_come_with_their_segmentations_on_one_grid(tmp_path: Path) -> None:
    masks = volumes(tmp_path / "s")
    config = config_of(OUTLINES, VOLUMES, "unet")
    cohort = load(tmp_path / "s", config, tmp_path / "c")
    assert cohort.items.image.shape == (3, 1, 8, 16, 16)
    for number, found in enumerate(masks.values()):
        assert np.array_equal(cohort.items.target[number].numpy(), found)
        values = noise(8, 16, 16, seed=number).astype(np.float32)
        order = np.corrcoef(values.ravel(), cohort.items.image[number, 0].ravel())[0, 1]
        assert order > 0.99
    assert not cohort.unusable


def test_structures_in_another_order_are_numbered_anew_whatever_the_cache_holds(
    tmp_path: Path,
) -> None:
    volumes(tmp_path / "s")
    turned = "{kind: segmentation, structures: {back: [2], front: [1]}}"
    first, second = (
        load(tmp_path / "s", config_of(task, VOLUMES, "unet"), tmp_path / "c").items.target
        for task in (OUTLINES, turned)
    )
    assert torch.equal(second, (3 - first) * (first > 0))


def test_a_series_with_a_slice_that_cannot_be_read_is_not_a_shorter_volume(tmp_path: Path) -> None:
    volumes(tmp_path / "s")
    path = tmp_path / "s" / "P1" / "0.dcm"  # the topmost slice, whose loss leaves no gap
    path.write_bytes(path.read_bytes()[:-100])
    cohort = load(tmp_path / "s", config_of(OUTLINES, VOLUMES, "unet"), tmp_path / "c")
    assert cohort.items.pseudonyms == ("P0", "P2")
    assert cohort.reasons() == Counter({Reason.TRUNCATED_PIXELS: 1, Reason.INCOMPLETE_SERIES: 1})


def test_a_series_without_a_row_is_listed_once(tmp_path: Path) -> None:
    volumes(tmp_path / "s")
    write_labels(tmp_path / "s", [{"PatientID": p, "mask": f"{p}/seg.dcm"} for p in ("P0", "P2")])
    cohort = load(tmp_path / "s", config_of(OUTLINES, VOLUMES, "unet"), tmp_path / "c")
    assert cohort.reasons() == Counter({Reason.LABEL_MISSING: 1, Reason.SEGMENTATION: 1})


def test_a_segmentation_is_nothing_unused_where_no_mask_is_asked_for(tmp_path: Path) -> None:
    volumes(tmp_path / "s")
    write_labels(tmp_path / "s", [{"PatientID": f"P{n}", "ill": n % 2} for n in range(3)])
    cohort = load(tmp_path / "s", config_of(cohort=VOLUMES), tmp_path / "c")
    assert len(cohort.items) == 3
    assert not cohort.unusable


def test_the_message_of_a_useless_table_shows_a_line_with_its_value(tmp_path: Path) -> None:
    write_labels(tmp_path, [{"PatientID": f"P{n}", "ill": "perhaps", "age": 50} for n in range(3)])
    with pytest.raises(CohortError, match=r"line 2: column ill holds 'perhaps', expected 0 or 1"):
        load(tmp_path, config_of(cohort=TABLE, network="table"), tmp_path / "c")


def test_masks_that_are_missing_or_leave_the_folder_are_listed(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for name in ("P0", "P1", "P2", "P3", "P4"):
        save(site / name, image(noise(8, 8), name))
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "outside.png")
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(site / "m.png")
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(site / "large.png")
    masks = {"P0": "m.png", "P1": "../outside.png", "P2": "gone.png", "P3": "", "P4": "large.png"}
    write_labels(site, [{"PatientID": p, "mask": m} for p, m in masks.items()])
    config = config_of("{kind: segmentation}", "{images: {size: [16, 16]}}", "unet")
    cohort = load(site, config, tmp_path / "c")
    assert cohort.items.pseudonyms == ("P0",)
    assert cohort.items.target.sum() == 8 * 4
    assert cohort.reasons()[Reason.MASK_UNUSABLE] == 2
    assert cohort.reasons()[Reason.MASK_MISSING] == 2


def test_a_mask_belongs_to_its_own_series_only(tmp_path: Path) -> None:
    site = tmp_path / "s"
    save(site / "one", image(noise(8, 8, seed=1), "P1", "S", "one"))
    save(site / "two", image(noise(8, 8, seed=2), "P1", "S", "two"))
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(site / "m.png")
    write_labels(
        site,
        [
            {
                "PatientID": "P1",
                "StudyInstanceUID": uid("P1", "S"),
                "SeriesInstanceUID": uid("P1", "S", "one"),
                "mask": "m.png",
            }
        ],
    )
    config = config_of("{kind: segmentation}", "{images: {size: [16, 16]}}", "unet")
    cohort = load(site, config, tmp_path / "c")
    assert cohort.items.image.shape[0] == 1
    assert cohort.reasons() == Counter({Reason.LABEL_MISSING: 1})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"PatientID": "P99", "ill": 0}], "LABEL_MISSING.*Compare the identifiers"),
        ([{"PatientID": "P1", "ill": "maybe"}], "LABEL_UNUSABLE"),
        ([{"PatientID": "P1", "sick": 1}], "no column ill"),
    ],
)
def test_a_site_where_nobody_can_be_used_says_what_was_found(
    tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    site = write_site(tmp_path / "s")
    write_labels(site, rows)
    with pytest.raises(CohortError, match=message) as caught:
        load(site, config_of(), tmp_path / "c")
    assert "P99" not in str(caught.value)


def test_a_missing_folder_and_a_cache_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no folder"):
        load(tmp_path / "none", config_of(), tmp_path / "c")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CohortError, match="Cannot use the cache"):
        load(write_site(tmp_path / "s"), config_of(), tmp_path / "file" / "c")


SHARED_SETS = [
    (
        "breast-us",
        "{kind: diagnosis, target: malignant}",
        "{images: {size: [96, 96]}}",
        "small_cnn",
        {"north": (267, 267), "south": (223, 223), "east": (172, 172), "west": (118, 118)},
    ),
    (
        "breast-us",
        "{kind: segmentation}",
        "{images: {size: [96, 96]}}",
        "unet",
        {"north": (267, 267), "south": (223, 223), "east": (172, 172), "west": (118, 118)},
    ),
    (
        "chest-icu",
        "{kind: diagnosis, target: icu}",
        "{images: {size: [96, 96]}, table: {numbers: [{column: crp}]}}",
        "small_cnn",
        {"ward-a": (30, 94), "ward-b": (21, 87), "ward-c": (20, 62)},
    ),
    (
        "hippocampus",
        "{kind: segmentation, structures: {anterior: [1], posterior: [2]}}",
        "{images: {size: [32, 48, 32], fit: crop}}",
        "unet",
        {"mr-alpha": (15, 15), "mr-beta": (15, 15), "mr-gamma": (15, 15)},
    ),
    (
        "tcga-brca",
        "{kind: diagnosis, target: event}",
        "{split: {column: split}, table: {numbers: [{column: age_at_index}]}}",
        "table",
        {
            "canada": (51, 51),
            "europe": (162, 162),
            "midwest": (162, 162),
            "northeast": (311, 311),
            "south": (196, 196),
            "west": (206, 206),
        },
    ),
]


@pytest.mark.slow
@pytest.mark.needs_shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="public cohorts are not here")
@pytest.mark.parametrize(("name", "task", "cohort", "network", "sizes"), SHARED_SETS)
def test_public_cohorts_are_read_whole(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    task: str,
    cohort: str,
    network: str,
    sizes: dict[str, tuple[int, int]],
) -> None:
    cache = tmp_path_factory.getbasetemp() / "public-cohorts"  # the second run is from pixels
    config = config_of(task, cohort, network)
    for site, (patients, items) in sizes.items():
        found = load(SHARED / name / site, config, cache)
        assert (len(found.items), len(found.items.patient)) == (patients, items)
        assert not found.unusable
        if config.task.kind == "segmentation":
            share = (found.items.target > 0).float().mean().item()
            assert 0.005 < share < 0.2
