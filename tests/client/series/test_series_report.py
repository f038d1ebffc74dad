"""How rules for series fare is told: to the site in full, to the coordinator in counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.app import app
from client.site.home import Home
from tests.client.dicom_files import CONFIG, write_labels
from tests.client.series.series_files import Grid, blob, write

GRID = Grid(shape=(4, 8, 8))
RUN = CONFIG.format(
    task="{kind: diagnosis, target: ill}",
    network="small_cnn",
    cohort="{images: {size: [8, 8, 8], series: [{name: flair, reference: true, description: "
    "[flair]}, {name: t1, description: [t1], missing: zero}]}, smallest_cohort: 1}",
)


@pytest.fixture
def site(tmp_path: Path) -> Home:
    """Return a site: 8 patients have both series, 6 FLAIR alone, 1 two of it, 5 call it tirm."""
    values = blob((8, 8, 8))(GRID.places())
    for number in range(20):
        patient = f"P{number:02}"
        names = ["FLAIR", "T1"] if number < 8 else ["FLAIR"]
        names = ["FLAIR", "FLAIR b"] if number == 14 else names
        for name in ["tirm"] if number > 14 else names:
            write(tmp_path / "data", name, values, GRID, patient=patient)
    write_labels(tmp_path / "data", [{"PatientID": f"P{n:02}", "ill": n % 2} for n in range(20)])
    home = Home(tmp_path / "home")
    home.folder.mkdir()
    home.site_yaml.write_text(f"name: north\ndata: {tmp_path / 'data'}\n", encoding="utf-8")
    (tmp_path / "run.yaml").write_text(RUN, encoding="utf-8")
    return home


def report(home: Home, tmp_path: Path) -> tuple[str, dict[str, object]]:
    said = CliRunner().invoke(
        app, ["report", str(tmp_path / "run.yaml"), "--home", str(home.folder)]
    )
    found: dict[str, object] = json.loads((home.report / "report.json").read_bytes())
    return said.output, found


def test_each_rule_is_shown_with_its_patients_and_the_sites_own_words(
    site: Home, tmp_path: Path
) -> None:
    said, found = report(site, tmp_path)
    rows = [
        {"rule": "flair", "matched": 14, "ambiguous": 1, "missing": 5, "own_words": []},
        {"rule": "t1", "matched": 8, "ambiguous": 0, "missing": 12, "own_words": []},
    ]
    assert found["series"] == rows
    assert "flair  14 matched  1 ambiguous  5 missing" in said
    page = (site.report / "report.html").read_text(encoding="utf-8")
    assert "Series that the run's rules choose" in page
    text = site.site_yaml.read_text(encoding="utf-8")
    site.site_yaml.write_text(f"{text}series_aliases: {{flair: ['ti*rm']}}\n", encoding="utf-8")
    _, found = report(site, tmp_path)
    assert found["series"] == [
        {**rows[0], "matched": 19, "missing": 0, "own_words": ["ti*rm"]},
        rows[1],
    ]
    assert "ti*rm" in (site.report / "report.html").read_text(encoding="utf-8")
    told = json.dumps(found["told"])
    assert "rm" not in told  # a site's words are never sent


def test_the_coordinator_is_told_counts_of_five_patients_and_more(
    site: Home, tmp_path: Path
) -> None:
    _, found = report(site, tmp_path)
    told = found["told"]
    assert isinstance(told, dict)
    tables = told["tables"]
    # One ambiguous patient: held back, and with it the smallest row that would give it away.
    assert tables["series flair"]["rows"] == {"matched": 14, "ambiguous": None, "missing": None}
    assert tables["series t1"]["rows"] == {"matched": 8, "ambiguous": 0, "missing": 12}
    assert tables["series t1"]["unit"] == "patients"


def test_a_site_of_which_nobody_can_be_used_says_how_the_rules_fared(
    site: Home, tmp_path: Path
) -> None:
    text = RUN.replace("missing: zero", "missing: leave_out").replace("[t1]", "[t9]")
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    said, found = report(site, tmp_path)
    assert found["series"] == [
        {"rule": "flair", "matched": 14, "ambiguous": 1, "missing": 5, "own_words": []},
        {"rule": "t1", "matched": 0, "ambiguous": 0, "missing": 20, "own_words": []},
    ]
    assert "MISSING_SERIES" in said
