"""The guide for a hospital with a PACS, as docs/site-admin.md has it: from archive to results.

The PACS is a real Orthanc on loopback. Only names of folders, the PACS's address and the study
are replaced; the bundle, which a coordinator would have sent, is trained on the spot.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.cohort.split import simulated_key
from client.dicom.index.index import Index
from client.site.home import Home
from common.config.run_config import RunConfig, parse_config
from simulations.synthetic.hospitals import CohortSpec, HospitalSpec, write_hospital
from simulations.synthetic.scanners import Scanner
from tests.client.dicom_files import load
from tests.client.pacs.orthanc import Pacs, orthanc
from tests.client.small_models import bundled, head_on_features

ROOT = Path(__file__).parents[2]
PATIENTS = 120
CONFIGURATION = """
name: chest
task: {kind: diagnosis, target: malignant}
cohort:
  images: {size: [96, 96], modalities: [DX, CR]}
  split: {test_fraction: 0.25, validation_fraction: 0.25}
model: {network: frozen_features}
training: {rounds: 1}
privacy: none
"""

pytestmark = pytest.mark.slow


def guide() -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the guide's `pacs` section and its commands."""
    text = (ROOT / "docs" / "site-admin.md").read_text(encoding="utf-8")
    part = text.partition("## From the PACS and back")[2].partition("\n## ")[0]
    (section,) = re.findall(r"```yaml\n(.*?)```", part, re.DOTALL)
    blocks = re.findall(r"\*\*Site admin\*\*.*?```sh\n(.*?)```", part, re.DOTALL)
    return yaml.safe_load(section), [line for block in blocks for line in block.splitlines()]


def hospital(folder: Path) -> Path:
    """Write a hospital's images and table, all invented."""
    north = HospitalSpec(
        name="archive",
        patients=PATIENTS,
        prevalence=0.45,
        scanner=Scanner(),
        transfer_syntax="jpeg-ls",
        images_per_patient=(1, 1),
        monochrome1=True,
    )
    return write_hospital(folder, CohortSpec(modality="xray", hospitals=(north,)), north, 3)


def bundle(folder: Path, site: Path, config: RunConfig) -> Path:
    """Train a model as a run would and write its bundle."""
    cohort = load(site, config, folder / "cache")
    train = cohort.split(config.cohort.split, simulated_key(0))["train"]
    return bundled(folder / "chest-bundle", config, head_on_features(config, train))


class Admin:
    """Types commands in one folder."""

    def __init__(self, folder: Path, replaced: dict[str, str]) -> None:
        self.folder = folder
        self.replaced = replaced

    def type(self, line: str) -> str:
        for old, new in self.replaced.items():
            line = line.replace(old, new)
        environment = os.environ | {
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            shlex.split(line),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def results_in(pacs: Pacs, study: str) -> list[Dataset]:
    """Return the study's objects that are no X-rays."""
    found = pacs.rest("/instances", expand="")
    assert isinstance(found, list)
    uids = [one["MainDicomTags"]["SOPInstanceUID"] for one in found]
    objects = [dcmread(BytesIO(pacs.file(uid))) for uid in uids]
    return [o for o in objects if o.StudyInstanceUID == study and o.Modality not in {"DX", "CR"}]


def test_the_guide_leads_from_the_pacs_to_results_in_it(tmp_path: Path) -> None:
    archive = hospital(tmp_path)
    config = parse_config(CONFIGURATION)
    (tmp_path / "chest.yaml").write_text(CONFIGURATION, encoding="utf-8")
    bundle(tmp_path, archive, config)
    images = sorted(p for p in archive.rglob("*") if p.is_file() and p.suffix in {".dcm", ""})
    study = str(dcmread(images[0], stop_before_pixels=True).StudyInstanceUID)
    (tmp_path / "north").mkdir()
    shutil.copy(archive / "labels.csv", tmp_path / "outcomes.csv")
    with orthanc(tmp_path / "pacs") as pacs:
        pacs.store(images)
        shutil.rmtree(archive)  # the PACS alone has them now
        admin = Admin(tmp_path, {"/data/": f"{tmp_path}/", "STUDY": study})
        section, commands = guide()
        section["pacs"]["url"] = pacs.url
        section["pacs"]["user"] = pacs.user
        section["pacs"]["password_file"] = str(pacs.password_file)
        home = Home(tmp_path / ".wardround" / "site")
        said = {}
        for line in commands:
            said[line.split()[1]] = admin.type(line)
            if " init " in line:
                text = home.site_yaml.read_text(encoding="utf-8")
                assert "\npacs: null" in text
                written = yaml.safe_dump(section)
                home.site_yaml.write_text(text.replace("pacs: null", written), encoding="utf-8")
        assert len(commands) == 7
        with Index(home.index) as index:
            assert index.counts().patients == PATIENTS
        report = json.loads((home.report / "report.json").read_text(encoding="utf-8"))
        assert (home.report / "report.html").is_file()
        assert report
        kinds = {o.Modality for o in results_in(pacs, study)}
        assert kinds == {"SR", "OT"}  # report and secondary capture
        assert "research" in said["predict"].lower()
