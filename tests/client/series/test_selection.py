"""Which series of a study are a run's channels: named where it is unclear, never guessed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from client.cohort.left_out import LeftOut
from client.cohort.loading import load_cohort
from client.cohort.site_cohort import SiteCohort
from client.dicom.index.index import Index
from client.dicom.reasons import Reason
from client.inference.study_reading import SiteRows, read_study
from client.site.cache import Cache
from common.config.run_config import RunConfig
from common.platform.errors import CohortError
from common.tasks import task_of
from tests.client.dicom_files import SHARED, config_of, image, noise, save, write_labels
from tests.client.series.series_files import Grid, blob, write

THREE = """
  - {name: flair, reference: true, any: [{description: [flair]}, {inversion_time: [1500, 3000]}],
     not: {image_type: [DERIVED]}}
  - {name: t1, description: [t1], not: {description: [+c], contrast: true}, missing: zero}
  - {name: t1ce, any: [{description: ['t1*+c']}, {description: [t1], contrast: true}],
     missing: zero}
"""
GRID = Grid(shape=(6, 8, 8))
KIND = "{kind: diagnosis, target: ill}"


def run(series: str = THREE, size: str = "[8, 8, 8]", more: str = "") -> RunConfig:
    text = series.strip().replace("\n", " ")
    rules = ", ".join(part.strip() for part in text.split("  - ")).lstrip("- ")
    return config_of(cohort=f"{{images: {{size: {size}, series: [{rules}]{more}}}}}")


def sequence(site: Path, name: str, patient: str = "P1", **more: object) -> str:
    """Write a series whose values follow from its name."""
    values = blob((8, 8, 10 + len(name)))(GRID.places())
    return write(site, name, values, GRID, patient=patient, **more)  # type: ignore[arg-type]  # keywords of DICOM


def rows(site: Path, *patients: str, **more: str) -> None:
    write_labels(site, [{"PatientID": p, **more, "ill": n % 2} for n, p in enumerate(patients)])


def load(site: Path, config: RunConfig | None = None, **more: object) -> SiteCohort:
    """Load the site beside a patient who has everything."""
    for name in ("FLAIR", "T1", "T1 +C"):
        sequence(site, name, patient="P0")
    chosen = config or run()
    cache = Cache(site.parent / "cache")
    return load_cohort(site, chosen, task_of(chosen.task), cache, **more)  # type: ignore[arg-type]  # by the test's names


def why(found: SiteCohort) -> set[tuple[Reason, str]]:
    told = {(p.reason, p.detail) for p in found.unusable}
    return {one for one in told if one[0] not in {Reason.OTHER_SERIES, Reason.LOCALIZER}}


def channels(found: SiteCohort, patient: str = "P1") -> list[bool]:
    """Return which channels of a patient hold anything."""
    (item,) = found.items.items_of(found.items.pseudonyms.index(patient)).tolist()
    return [bool(channel.any()) for channel in found.items.image[item]]


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (("FLAIR", "T1", "T1 +C"), [True, True, True]),
        (("FLAIR", "T1 +C"), [True, False, True]),
        (("FLAIR",), [True, False, False]),
    ],
)
def test_absent_sequences_are_zeros_where_the_rule_says_so(
    tmp_path: Path, names: tuple[str, ...], held: list[bool]
) -> None:
    site = tmp_path / "s"
    for name in names:
        sequence(site, name)
    rows(site, "P0", "P1")
    found = load(site)
    assert found.items.image.shape == (2, 3, 8, 8, 8)
    assert channels(found) == held
    assert not why(found)


def test_several_vocabularies_scouts_and_reformats(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "AX T2 FLAIR")
    sequence(site, "AX T2 FLAIR MPR", ImageType=["DERIVED", "SECONDARY", "MPR"])
    sequence(site, "scout T1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    sequence(site, "t1_se_tra")
    sequence(site, "t1_se_tra KM", ContrastBolusAgent="Gadovist")
    sequence(site, "ep2d_diff")
    sequence(site, "dunkel", patient="P2", InversionTime=2400)
    sequence(site, "BRAIN", patient="P2", ProtocolName="T1 AX +C")
    rows(site, "P0", "P1", "P2")
    found = load(site)
    assert channels(found) == [True, True, True]
    assert channels(found, "P2") == [True, False, True]
    left = {p.detail for p in found.unusable if p.reason is Reason.OTHER_SERIES}
    assert left == {"AX T2 FLAIR MPR", "ep2d_diff"}


def cut(site: Path, name: str) -> None:
    """Leave one slice of a series of P1, as a transfer that broke off."""
    for file in sorted((site / "P1" / "S" / name).iterdir())[1:]:
        file.unlink()


@pytest.mark.parametrize("size", ["[8, 8, 8]", "[8, 8]"])
@pytest.mark.parametrize("name", ["T1", "FLAIR"])
def test_a_series_of_which_one_slice_arrived_is_never_zeros(
    tmp_path: Path, name: str, size: str
) -> None:
    site = tmp_path / "s"
    for one in ("FLAIR", "T1"):
        sequence(site, one)
    cut(site, name)
    rows(site, "P0", "P1")
    found = load(site, run(size=size))
    assert found.items.pseudonyms == ("P0",)
    ((reason, detail),) = why(found)
    assert reason is Reason.TOO_FEW_SLICES
    assert f"series {name.lower()}: {name} (MR, 1 file" in detail
    nobody = SiteRows(labels=None, withdrawn=frozenset())
    with pytest.raises(CohortError, match="TOO_FEW_SLICES"):
        read_study(sorted((site / "P1").rglob("*.dcm")), run(size=size), nobody)


@pytest.mark.parametrize("size", ["[8, 8, 8]", "[8, 8]"])
def test_an_image_alone_is_passed_over_beside_a_series_that_fits(tmp_path: Path, size: str) -> None:
    site = tmp_path / "s"
    for name in ("FLAIR", "T1", "t1 loc", "flair key"):
        sequence(site, name)
    cut(site, "t1 loc")
    cut(site, "flair key")
    rows(site, "P0", "P1")
    found = load(site, run(size=size))
    assert found.items.pseudonyms == ("P0", "P1")
    assert not why(found)


def test_a_capture_or_scout_alone_is_no_series_that_broke(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "FLAIR")
    sequence(site, "t1 loc", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    sequence(site, "T1 key", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    cut(site, "t1 loc")
    cut(site, "T1 key")
    rows(site, "P0", "P1")
    found = load(site)
    assert channels(found) == [True, False, False]
    assert not why(found)


def test_two_that_fit_leave_the_study_out_with_both_named(tmp_path: Path) -> None:
    site = tmp_path / "s"
    first, second = sequence(site, "FLAIR"), sequence(site, "FLAIR again")
    rows(site, "P0", "P1")
    found = load(site)
    assert found.items.pseudonyms == ("P0",)
    ((reason, detail),) = why(found)
    assert reason is Reason.AMBIGUOUS_SERIES
    assert "rule flair fits 2 series" in detail
    assert first in detail
    assert second in detail


@pytest.mark.parametrize(
    ("pick", "taken"),
    [("newest", "FLAIR a"), ("oldest", "FLAIR bb"), ("most_slices", "FLAIR bb"),
     ("thinnest", "FLAIR a")],
)  # fmt: skip
def test_a_rule_may_say_which_of_two_is_taken(tmp_path: Path, pick: str, taken: str) -> None:
    site = tmp_path / "s"
    made = {}
    for name, thick, slices, date in (
        ("FLAIR a", 3.0, 6, "20200102"),
        ("FLAIR bb", 4.0, 7, "20200101"),
    ):
        grid = Grid(shape=(slices, 8, 8), spacing=(thick, 2, 2))
        values = blob((8, 8, 12))(grid.places())
        made[name] = write(site, name, values, grid, SeriesDate=date, SeriesTime="120000")
    rows(site, "P1")
    chosen = run(f"  - {{name: flair, description: [flair], pick: {pick}}}")
    found = load_cohort(site, chosen, task_of(chosen.task), Cache(tmp_path / "cache"))
    assert found.sources == (made[taken],)


@pytest.mark.parametrize("pick", ["newest", "most_slices", "thinnest"])
def test_a_tie_is_no_choice(tmp_path: Path, pick: str) -> None:
    site = tmp_path / "s"
    for name in ("FLAIR", "FLAIR b"):
        sequence(site, name, SeriesDate="20200101", SeriesTime="10")
    rows(site, "P0", "P1")
    found = load(site, run(THREE.replace("reference: true", f"reference: true, pick: {pick}")))
    assert [reason for reason, _ in why(found)] == [Reason.AMBIGUOUS_SERIES]


def test_one_series_is_not_two_channels(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "T1 FLAIR")
    rows(site, "P0", "P1")
    ((reason, detail),) = why(load(site))
    assert reason is Reason.AMBIGUOUS_SERIES
    assert "rules flair and t1 fit the same: T1 FLAIR" in detail


@pytest.mark.parametrize("fault", ["cut", "gone", "all cut", "empty", "two", "refused", "blank"])
def test_a_channel_that_is_there_and_cannot_be_used_is_never_zeros(
    tmp_path: Path, fault: str
) -> None:
    site = tmp_path / "s"
    sequence(site, "FLAIR")
    sequence(site, "T1")
    files = sorted((site / "P1" / "S" / "T1").iterdir())
    left_out = LeftOut()
    if fault == "cut":
        files[2].write_bytes(files[2].read_bytes()[:-50])
    elif fault == "gone":
        files[2].unlink()
    elif fault == "all cut":
        for file in files:
            file.write_bytes(file.read_bytes()[:-50])
    elif fault == "empty":
        for file in files:
            file.write_bytes(b"")
    elif fault == "two":
        other = image(noise(8, 8), "P1", "S", "T1", 2)
        shutil.copy(files[2], files[2].with_name("x.dcm"))
        from pydicom import dcmread

        changed = dcmread(files[2])
        changed.PixelData = other.PixelData
        save(files[2], changed)
    elif fault == "refused":
        from pydicom import dcmread

        name = str(dcmread(files[2]).SOPInstanceUID)
        left_out = LeftOut(images={("P1", name): (Reason.BURNED_IN_SUSPECT, "text")})
    else:
        from pydicom import dcmread

        for file in files:
            blank = dcmread(file)
            blank.PixelData = bytes(len(blank.PixelData))
            save(file, blank)
    rows(site, "P0", "P1")
    found = load(site, left_out=left_out)
    assert found.items.pseudonyms == ("P0",)
    again = load(site, left_out=left_out)  # what pixels told is in the index now
    assert again.items.pseudonyms == ("P0",)
    assert why(again)


def test_what_broke_for_certain_is_no_channel_and_leaves_nobody_out(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "FLAIR")
    sequence(site, "DWI")
    for file in (site / "P1" / "S" / "DWI").iterdir():
        file.write_bytes(file.read_bytes()[:-50])
    rows(site, "P0", "P1")
    by_words = run(
        THREE.replace(
            "any: [{description: [flair]}, {inversion_time: [1500, 3000]}]", "description: [flair]"
        ).replace(
            "any: [{description: ['t1*+c']}, {description: [t1], contrast: true}]",
            "description: ['t1*+c']",
        )
    )
    assert channels(load(site, by_words)) == [True, False, False]
    # Its inversion time might have been FLAIR's; nobody can tell any more.
    assert {reason for reason, _ in why(load(site))} >= {Reason.AMBIGUOUS_SERIES}


def test_a_missing_reference_and_a_needed_channel_leave_the_study_out(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "T1")
    sequence(site, "FLAIR", patient="P2")
    rows(site, "P0", "P1", "P2")
    found = load(site, run(THREE.replace("contrast: true}, missing: zero}", "contrast: true}}", 1)))
    assert found.items.pseudonyms == ("P0",)
    assert why(found) == {
        (Reason.MISSING_SERIES, "line 3: none fits flair"),
        (Reason.MISSING_SERIES, "line 4: none fits t1"),
    }


def test_copies_of_files_are_one_series(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for name in ("FLAIR", "T1"):
        sequence(site, name)
    shutil.copytree(site / "P1" / "S" / "T1", site / "P1" / "S" / "copy")
    rows(site, "P0", "P1")
    found = load(site)
    assert channels(found) == [True, True, False]
    assert {p.reason for p in found.unusable} == {Reason.DUP_SOP_SAME}


def test_one_echo_of_a_series_is_a_channel_and_half_of_its_places_is_none(tmp_path: Path) -> None:
    site = tmp_path / "s"
    values = blob((8, 8, 12))(GRID.places())
    write(site, "PD T2", values, GRID, EchoTime=15)
    for file in (site / "P1" / "S" / "PD T2").iterdir():
        from pydicom import dcmread

        second = dcmread(file)
        second.SOPInstanceUID = f"{second.SOPInstanceUID[:50]}.9"
        second.file_meta.MediaStorageSOPInstanceUID = second.SOPInstanceUID
        second.EchoTime = 90
        save(file.with_name(f"b{file.name}"), second)
    rows(site, "P1")
    both = "- {name: pd, reference: true, echo_time: [0, 30]}  - {name: t2, echo_time: [60, 120]}"
    chosen = run(both)
    found = load_cohort(site, chosen, task_of(chosen.task), Cache(tmp_path / "cache"))
    assert channels(found) == [True, True]
    for number, file in enumerate(sorted((site / "P1" / "S" / "PD T2").glob("b*"))):
        if number % 2:
            file.unlink()
    with pytest.raises(CohortError, match="rule t2 fits 3 of 6 places"):
        load_cohort(site, chosen, task_of(chosen.task), Cache(tmp_path / "cache"))


@pytest.mark.parametrize(("size", "pick"), [("[8, 8]", "plane: [axial]"), ("[8, 8, 8]", "")])
def test_one_rule_chooses_one_series(tmp_path: Path, size: str, pick: str) -> None:
    site = tmp_path / "s"
    sequence(site, "portal", Modality="CT", ContrastBolusAgent="Iomeprol", ConvolutionKernel="B30f")
    sequence(site, "portal", study="T", Modality="CT", ConvolutionKernel="B70f")
    sequence(site, "native", Modality="CT", ConvolutionKernel="B30f")
    rows(site, "P1")
    rule = f"  - {{name: portal, description: [portal], kernel: [b30], {pick}}}"
    chosen = run(rule.replace(", }", "}"), size)
    found = load_cohort(site, chosen, task_of(chosen.task), Cache(tmp_path / "cache"))
    assert len(found.items.patient) == (6 if size == "[8, 8]" else 1)
    assert {p.reason for p in found.unusable} == {Reason.OTHER_SERIES}
    assert found.items.image.shape[1] == 1


def test_views_are_chosen_among_pictures_that_are_no_slices(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for view in ("CC", "MLO"):
        for side in "LR":
            one = image(noise(8, 8, seed=len(view)), "P1", "S", f"{view}{side}")
            one.Modality, one.ViewPosition, one.ImageLaterality = "MG", view, side
            one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
            save(site / "P1" / f"{view}{side}.dcm", one)
    rows(site, "P1")
    chosen = run("  - {name: cc, view: [CC]}", "[8, 8]")
    found = load_cohort(site, chosen, task_of(chosen.task), Cache(tmp_path / "cache"))
    assert sorted(found.sources) == ["P1/CCL.dcm", "P1/CCR.dcm"]
    two = run("  - {name: cc, reference: true, view: [CC]}  - {name: mlo, view: [MLO]}", "[8, 8]")
    with pytest.raises(CohortError, match="NO_GEOMETRY"):
        load_cohort(site, two, task_of(two.task), Cache(tmp_path / "cache"))


def test_two_studies_of_a_row_are_unclear_and_the_newest_may_be_asked_for(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "FLAIR", study="S", SeriesDate="20200101", SeriesTime="10")
    later = sequence(site, "FLAIR", study="T", SeriesDate="20210101", SeriesTime="10")
    sequence(site, "T1", study="S")
    rows(site, "P0", "P1")
    assert {reason for reason, _ in why(load(site))} == {Reason.AMBIGUOUS_SERIES}
    newest = run(THREE.replace("reference: true", "reference: true, pick: newest"))
    # The other patient has no dates, and nothing to choose between.
    found = load(site, newest)
    assert later in found.sources
    assert channels(found) == [True, False, False]  # the T1 is of another study


def test_a_row_that_names_a_series_or_shares_a_study_has_no_channels(tmp_path: Path) -> None:
    site = tmp_path / "s"
    flair = sequence(site, "FLAIR")
    t1 = sequence(site, "T1")
    write_labels(
        site,
        [
            {"PatientID": "P0", "SeriesInstanceUID": "", "ill": 0},
            {"PatientID": "P1", "SeriesInstanceUID": flair, "ill": 1},
        ],
    )
    found = load(site)
    assert found.items.pseudonyms == ("P0",)
    assert any("name the study" in detail for _, detail in why(found))
    write_labels(
        site,
        [
            {"PatientID": "P0", "SeriesInstanceUID": "", "ill": 0},
            {"PatientID": "P1", "SeriesInstanceUID": "", "ill": 1},
            {"PatientID": "P1", "SeriesInstanceUID": t1, "ill": 1},
        ],
    )
    found = load(site)
    assert found.items.pseudonyms == ("P0",)


def test_a_sites_own_words_choose_too_and_change_what_is_cached(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "tirm")
    rows(site, "P0", "P1")
    assert load(site).items.pseudonyms == ("P0",)
    assert load(site, aliases={"flair": ("tirm",)}).items.pseudonyms == ("P0", "P1")


def test_a_model_scores_by_the_rules_it_was_trained_with(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for name in ("FLAIR", "T1", "scout"):
        sequence(site, name)
    rows(site, "P0", "P1")
    trained = load(site)
    files = sorted(p for p in (site / "P1").rglob("*.dcm"))
    nobody = SiteRows(labels=None, withdrawn=frozenset())
    (item,) = read_study(files, run(), nobody).items
    assert item.place is not None
    assert {path.parent.name for path in item.place.sources} == {"FLAIR"}
    assert sorted(item.beside) == [path for path in files if path.parent.name == "T1"]
    for flat in read_study(files, run(size="[8, 8]"), nobody).items:
        assert sorted(flat.beside) == sorted(item.beside)
    near = read_study(
        sorted((site / "P1" / "S" / "T1").iterdir()),
        config_of(cohort="{images: {size: [8, 8], channels: 3, neighbours: 1}}"),
        nobody,
    ).items
    assert sorted(len(one.beside) for one in near) == [1, 1, 2, 2, 2, 2]  # at the ends one
    place = trained.items.pseudonyms.index("P1")
    assert item.image.equal(trained.items.image[place])
    sequence(site, "FLAIR b")
    more = sorted(p for p in (site / "P1").rglob("*.dcm"))
    with pytest.raises(CohortError, match=r"AMBIGUOUS_SERIES, rule flair fits 2 series"):
        read_study(more, run(), nobody)
    for file in (site / "P1" / "S" / "T1").iterdir():
        file.write_bytes(b"")
    with pytest.raises(CohortError, match="INCOMPLETE_SERIES"):
        read_study(files, run(), nobody)


@pytest.mark.parametrize("content", [b"", b"cut"])
def test_a_study_of_the_index_is_scored_with_what_broke_in_it(
    tmp_path: Path, content: bytes
) -> None:
    site = tmp_path / "s"
    for name in ("FLAIR", "T1"):
        sequence(site, name)
        sequence(site, name, patient="P2")
    study = str(image(noise(2, 2), "P1", "S").StudyInstanceUID)
    nobody = SiteRows(labels=None, withdrawn=frozenset())
    with Index(tmp_path / "index.sqlite") as index:
        index.update(site)
        assert len(index.find_study(study)) == 12
        for file in (site / "P1" / "S" / "T1").iterdir():
            file.write_bytes(content and file.read_bytes()[:-50])
        (site / "P2" / "S" / "T1" / "00.dcm").write_bytes(b"")  # another's
        index.update(site)
        files = index.find_study(study)
    assert len(files) == 12
    with pytest.raises(CohortError, match=r"cannot be read, and may be (series )?t1"):
        read_study(files, run(), nobody)


def test_one_patients_files_decide_nothing_of_another_in_a_private_run(tmp_path: Path) -> None:
    site = tmp_path / "s"
    sequence(site, "FLAIR")
    for number in range(3):  # nobody's, in the patient's folder
        path = site / "P1" / "S" / "T1" / f"{number}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    rows(site, "P0", "P1")
    assert load(site).items.pseudonyms == ("P0",)
    private = run().model_copy(update={"privacy": config_private()})
    assert channels(load(site, private)) == [True, False, False]


def test_a_patient_who_was_withdrawn_is_neither_chosen_nor_counted(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for name in ("FLAIR", "FLAIR b"):
        sequence(site, name)
    rows(site, "P0", "P1")
    found = load(site, left_out=LeftOut(withdrawn=frozenset({"P1"})))
    assert found.items.pseudonyms == ("P0",)
    assert {p.reason for p in found.unusable} == {Reason.WITHDRAWN}
    assert "P1" not in str(found.fared)
    with pytest.raises(CohortError, match="withdrawn"):
        read_study(
            sorted((site / "P1").rglob("*.dcm")),
            run(),
            SiteRows(labels=None, withdrawn=frozenset({"P1"})),
        )


def test_a_series_that_no_rule_takes_is_listed_once_in_2d_too(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for name in ("FLAIR", "DWI"):
        sequence(site, name)
    rows(site, "P0", "P1")
    found = load(site, run("  - {name: flair, description: [flair]}", "[8, 8]"))
    assert len(found.items.patient) == 12
    listed = [p.detail for p in found.unusable if p.reason is Reason.OTHER_SERIES]
    assert sorted(listed) == ["DWI", "T1", "T1 +C"]


def config_private() -> object:
    from common.config.run_config import parse_config
    from tests.client.dicom_files import CONFIG

    text = CONFIG.format(
        task=KIND, cohort="{images: {size: [8, 8, 8]}}", network="small_cnn"
    ).replace("privacy: none", "privacy: {epsilon: 8, delta: 1.0e-5, unit: patient}")
    return parse_config(text).privacy


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("name", ["jefferson", "henry-ford", "case-western"])
def test_real_sequences_of_three_hospitals_are_the_channels_that_their_folders_name(
    tmp_path: Path, name: str
) -> None:
    from client.cohort.loading import _labels, _wanted, needed_columns
    from client.cohort.select import ImageGate
    from common.config.run_config import load_config

    config = load_config(Path("configs/simulations/glioma-mr.yaml"))
    images, site = config.cohort.images, SHARED / "glioma-mr" / name
    assert images is not None
    nobody = LeftOut()
    labels = _labels(
        site / "labels.csv", needed_columns(config, task_of(config.task)), config, nobody
    )
    with Index(tmp_path / "index.sqlite") as index:
        index.update(site)
        gate = ImageGate(_wanted(images, config, labels, nobody, {}), site, index)
        held: dict[str, dict[str, set[str]]] = {}
        ruled = gate.choice.ruled
        assert ruled is not None
        for one in index.instances(site):
            place = ruled.channel.get((one.patient, one.series, one.instance))
            if place is not None:
                folder = (
                    one.path.stem if one.path.parent.name == one.patient else one.path.parent.name
                )
                channel = held.setdefault(one.patient, {})
                channel.setdefault(images.channel_names[place], set()).add(folder)
    said = {row["PatientID"]: set(row["sequences"].split("+")) for row in labels.rows}
    assert {patient: set(channel) for patient, channel in held.items()} == said
    assert all(folder == {name} for one in held.values() for name, folder in one.items())
    assert len(held) == 13
    assert np.sum([len(way["ambiguous"]) for way in ruled.fared.values()]) == 0
