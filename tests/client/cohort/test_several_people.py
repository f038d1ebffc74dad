from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from client.cohort.left_out import LeftOut, NobodyUsable
from client.cohort.loading import load_cohort
from client.cohort.quality_refusals import CohortPaths, images_left_out
from client.cohort.site_cohort import SiteCohort
from client.dicom.reasons import Reason
from client.labels.label_table import read_labels
from client.node.request_handler import RequestHandler, SiteContext
from client.node.worker import site_context
from client.site.cache import Cache
from client.site.quality_section import QualityRules
from common.config.run_config import RunConfig, parse_config
from common.messages.wire import Proposal, SiteUpdate, Standing, TrainRequest
from common.models.run_network import initial_weights
from common.platform.errors import CohortError
from common.tasks import task_of
from tests.client.dicom_files import image, noise, save, write_labels
from tests.client.terminals import Site

RUN = """
name: people
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [16, 16]}, smallest_cohort: 5}
model: {network: small_cnn, width: 4}
training: {rounds: 1}
"""
PLAIN = parse_config(f"{RUN}privacy: none")
PRIVATE = parse_config(f"{RUN}privacy: {{unit: patient, epsilon: 2, default_patients: 20}}")
PRIVATE = PRIVATE.in_force()


def folder(path: Path, **said: tuple[str, ...]) -> Path:
    """Write P1 with an image for each value of an attribute, and P2 who says nothing of it."""
    ((name, values),) = said.items()
    for number, value in enumerate(values):
        one = image(noise(16, 16, seed=number), "P1", f"S{number}")
        setattr(one, name, value)
        save(path / f"p1-{number}.dcm", one)
    save(path / "p2.dcm", image(noise(16, 16, seed=9), "P2"))
    write_labels(path, [{"PatientID": "P1", "ill": 1}, {"PatientID": "P2", "ill": 0}])
    return path


def load(data: Path, config: RunConfig, cache: Path) -> SiteCohort:
    store = Cache(cache)
    paths = CohortPaths(data=data, labels=data / "labels.csv", index=store.index, cache=cache)
    refused = LeftOut(images=images_left_out(paths, config, QualityRules()))
    return load_cohort(data, config, task_of(config.task), store, None, refused)


@pytest.mark.parametrize("config", [PLAIN, PRIVATE])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"IssuerOfPatientID": ("north", "south")}, Reason.PATIENT_TWO_ISSUERS),
        ({"PatientBirthDate": ("19500101", "19510101")}, Reason.PATIENT_CONFLICT),
        ({"PatientSex": ("M", "F")}, Reason.PATIENT_CONFLICT),
    ],
)
def test_two_people_under_one_identifier_are_never_one(
    said: dict[str, tuple[str, ...]], reason: Reason, config: RunConfig, tmp_path: Path
) -> None:
    cohort = load(folder(tmp_path / "d", **said), config, tmp_path / "c")
    assert cohort.items.pseudonyms == ("P2",)
    assert cohort.reasons()[reason] == 2


def issued_by(name: str, identifier: str = "", kind: str = "") -> Callable[[FileDataset], None]:
    """Return what names the issuer of an image's PatientID, with its qualifiers (0010,0024)."""

    def name_it(one: FileDataset) -> None:
        one.IssuerOfPatientID = name
        if identifier or kind:
            item = Dataset()
            item.UniversalEntityID, item.UniversalEntityIDType = identifier, kind
            one.IssuerOfPatientIDQualifiersSequence = Sequence([item])

    return name_it


NORTH = issued_by("", "1.2.840.1", "ISO")


@pytest.mark.parametrize("config", [PLAIN, PRIVATE])
@pytest.mark.parametrize(
    ("issuers", "people"),
    [
        ((NORTH, issued_by("", "1.2.840.2", "ISO")), 2),
        ((NORTH, issued_by("", "1.2.840.1", "UUID")), 2),
        ((issued_by("A", "1.2", "ISO"), issued_by("A", "1.3", "ISO")), 2),
        ((issued_by("A", "1.2", "ISO"), issued_by("B", "1.2", "ISO")), 2),
        ((issued_by("A", "1.2", "ISO"), issued_by("B")), 2),
        ((NORTH, NORTH), 1),
        ((NORTH, issued_by("")), 1),
        ((NORTH, issued_by("A")), 1),
        ((issued_by("A", "1.2", "ISO"), issued_by("A")), 1),
        ((NORTH, issued_by("", "1.2.840.1")), 1),
    ],
)
def test_an_issuer_is_known_by_its_qualifiers_too(
    issuers: tuple[Callable[[FileDataset], None], ...],
    people: int,
    config: RunConfig,
    tmp_path: Path,
) -> None:
    data = folder(tmp_path / "d", PatientSex=("", ""))
    for number, issuer in enumerate(issuers):
        one = dcmread(data / f"p1-{number}.dcm")
        issuer(one)
        save(data / f"p1-{number}.dcm", one)
    cohort = load(data, config, tmp_path / "c")
    assert cohort.items.pseudonyms == (("P1", "P2") if people == 1 else ("P2",))
    assert cohort.reasons()[Reason.PATIENT_TWO_ISSUERS] == (0 if people == 1 else 2)


@pytest.mark.parametrize(
    "said",
    [
        {"IssuerOfPatientID": ("north", "north")},
        {"IssuerOfPatientID": ("north", "")},
        {"PatientBirthDate": ("19500101", "")},
        {"PatientSex": ("F", "")},
    ],
)
def test_what_is_left_empty_says_nothing(said: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    cohort = load(folder(tmp_path / "d", **said), PLAIN, tmp_path / "c")
    assert cohort.items.pseudonyms == ("P1", "P2")


def test_rows_of_a_private_run_name_their_patient(tmp_path: Path) -> None:
    write_labels(
        tmp_path,
        [
            {"PatientID": "P1", "StudyInstanceUID": "1.2", "ill": 1},
            {"PatientID": "P2", "StudyInstanceUID": "1.2", "ill": 0},
            {"PatientID": "", "StudyInstanceUID": "1.2", "ill": 0},
        ],
    )
    table = tmp_path / "labels.csv"
    labels = read_labels(table, ("ill",), with_images=True, by_patient=True)
    keys = {"SeriesInstanceUID": "9", "StudyInstanceUID": "1.2", "AccessionNumber": ""}
    found = [labels.rows[labels.find({**keys, "PatientID": p})]["ill"] for p in ("P1", "P2")]
    assert found == ["1", "0"]
    assert [(u.reason, u.what) for u in labels.unusable] == [(Reason.NO_KEY, "line 4")]
    write_labels(tmp_path, [{"StudyInstanceUID": "1.2", "ill": 1}])
    with pytest.raises(CohortError, match="has no column PatientID"):
        read_labels(table, ("ill",), with_images=True, by_patient=True)


def handler(folder: Path, *, diagnosis: object) -> tuple[RequestHandler, list[str]]:
    folder.mkdir()
    site, told = Site(folder), list[str]()
    for number in range(3):
        save(site.data / f"{number}.dcm", image(noise(16, 16, seed=number), f"P{number}"))
    write_labels(site.data, [{"PatientID": f"P{n}", "ill": diagnosis} for n in range(3)])
    context: SiteContext = site_context(site.home, site.set_up())
    return RequestHandler(context, told.append), told


def test_a_private_run_is_not_told_that_nobody_fits(tmp_path: Path) -> None:
    """What it asks for it chooses itself, so a refusal would say whether anybody has it."""
    for diagnosis in ("neither", 1):
        here, told = handler(tmp_path / str(diagnosis), diagnosis=diagnosis)
        asked = Proposal(run="r", round=0, seed=0, config=PRIVATE)
        assert isinstance(here.answer(asked), Standing)
        weights = initial_weights(PRIVATE, 0)
        request = TrainRequest(run="r", round=1, seed=0, config=PRIVATE, weights=weights)
        assert isinstance(here.answer(request), SiteUpdate)
        assert "It goes on" in " ".join(told), "the site's own admin is told"


def test_a_plain_run_says_that_nobody_fits(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", PatientSex=("F",))
    write_labels(data, [{"PatientID": "P9", "ill": 1}])
    with pytest.raises(NobodyUsable):
        load(data, PLAIN, tmp_path / "c")
