from __future__ import annotations

from pathlib import Path

import pytest

import wardround as wr
from tests.client.dicom_files import config_of, write_labels


@pytest.fixture
def table_run() -> wr.RunConfig:
    return config_of(cohort="{table: {numbers: [{column: age}]}}", network="table")


def hospital(folder: Path, patients: int = 4) -> Path:
    rows = [{"PatientID": f"P{n}", "ill": n % 2, "age": 50 + n} for n in range(patients)]
    write_labels(folder, rows)
    return folder


def test_a_parent_one_hospital_and_a_list_of_hospitals_are_read(
    tmp_path: Path, table_run: wr.RunConfig
) -> None:
    a, b = hospital(tmp_path / "all" / "a"), hospital(tmp_path / "all" / "b")
    for data, names in (
        (tmp_path / "all", ("a", "b")),
        (str(a), ("a",)),
        ([b, str(a)], ("b", "a")),
    ):
        found = wr.cohorts(table_run, data, folder=tmp_path / "work", progress=False)
        assert found.names == tuple(found) == names
        assert len(found) == len(names)


def test_folders_that_cannot_be_are_refused(tmp_path: Path, table_run: wr.RunConfig) -> None:
    one, two = hospital(tmp_path / "x" / "a"), hospital(tmp_path / "y" / "a")
    with pytest.raises(wr.ConfigurationError, match="a name of its own"):
        wr.cohorts(table_run, [one, two], folder=tmp_path, progress=False)
    with pytest.raises(wr.ConfigurationError, match="no folder at all"):
        wr.cohorts(table_run, [], folder=tmp_path, progress=False)
    with pytest.raises(wr.CohortError, match="no folder"):
        wr.cohorts(table_run, tmp_path / "nowhere", folder=tmp_path, progress=False)
    with pytest.raises(wr.ConfigurationError, match="no synthetic hospitals"):
        wr.cohorts(table_run, folder=tmp_path, progress=False)


def test_what_cannot_be_used_is_counted_listed_and_shown(
    tmp_path: Path, table_run: wr.RunConfig
) -> None:
    rows: list[dict[str, object]] = [
        {"PatientID": f"P{n}", "ill": n % 2, "age": 50 + n} for n in range(30)
    ]
    write_labels(tmp_path / "all" / "<a>", [*rows, {"PatientID": "P30", "ill": "maybe", "age": 5}])
    (tmp_path / "all" / "<b>").mkdir()
    found = wr.cohorts(table_run, tmp_path / "all", folder=tmp_path / "work", progress=False)
    assert list(found.left_out) == ["<b>"]
    assert found.frame().to_dict("records") == [
        {"site": "<a>", "patients": 30, "images": 0, "not_used": 1}
    ]
    listed = found.not_used()
    assert listed.reason.tolist() == ["HOSPITAL", "LABEL_UNUSABLE"]
    assert "LABEL_UNUSABLE" in repr(found)
    assert "<b>" in repr(found)
    page = found._repr_html_()
    assert "&lt;a&gt;" in page
    assert "&lt;b&gt;" in page
    assert "<a>" not in page
    assert "<b>" not in page


def test_a_hospital_is_taken_by_its_name(sites: wr.Cohorts) -> None:
    assert sites["north"].names == ("north",)
    with pytest.raises(wr.ConfigurationError, match="nord"):
        sites["nord"]


def test_a_script_is_told_of_each_hospital_on_standard_error(
    tmp_path: Path, table_run: wr.RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    wr.cohorts(table_run, hospital(tmp_path / "a"), folder=tmp_path / "work")
    told = capsys.readouterr()
    assert told.out == ""
    assert "a: 4 patients" in told.err


@pytest.mark.parametrize("by", ["label", "quantity", "group"])
def test_every_patient_is_at_one_virtual_site_with_all_images(sites: wr.Cohorts, by: str) -> None:
    source = sites["north"]
    dealt = wr.partition(source, 3, by=by, seed=1, mixing=0.2)  # type: ignore[arg-type]
    assert dealt.names == ("north-1", "north-2", "north-3")
    whole = source.hospitals.cohorts[0]
    images: dict[str, int] = {}
    for part in dealt.hospitals.cohorts:
        assert len(part.items) >= 2
        assert len(part.confounder) == len(part.items.patient) == len(part.sources)
        for place, name in enumerate(part.items.pseudonyms):
            assert name not in images
            chosen = part.items.items_of(place)
            images[name] = len(chosen)
            theirs = whole.items.items_of(whole.items.pseudonyms.index(name))
            assert part.items.image[chosen].equal(whole.items.image[theirs])
            assert [part.sources[int(i)] for i in chosen] == [whole.sources[int(i)] for i in theirs]
            assert part.items.target[chosen].equal(whole.items.target[theirs])
    assert set(images) == set(whole.items.pseudonyms)
    again = wr.partition(source, 3, by=by, seed=1, mixing=0.2)  # type: ignore[arg-type]
    for one, two in zip(dealt.hospitals.cohorts, again.hospitals.cohorts, strict=True):
        assert one.items.pseudonyms == two.items.pseudonyms


def test_groups_stay_together(sites: wr.Cohorts) -> None:
    dealt = wr.partition(sites["north"], 2, by="group")
    held = [set(part.confounder) for part in dealt.hospitals.cohorts]
    assert held[0].isdisjoint(held[1])


def test_a_deal_that_cannot_be_made_is_refused(
    sites: wr.Cohorts, tmp_path: Path, table_run: wr.RunConfig
) -> None:
    with pytest.raises(wr.ConfigurationError, match="takes one hospital, found 4"):
        wr.partition(sites, 2)
    with pytest.raises(wr.ConfigurationError, match="expected one of label, quantity, group"):
        wr.partition(sites["north"], 2, by="scanner")  # type: ignore[arg-type]
    with pytest.raises(wr.ConfigurationError, match="too few"):
        wr.partition(sites["north"], 50)
    one = wr.cohorts(table_run, hospital(tmp_path / "a"), folder=tmp_path, progress=False)
    with pytest.raises(wr.ConfigurationError, match=r"cohort\.confounder"):
        wr.partition(one, 2, by="group")
