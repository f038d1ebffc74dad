"""`wardround-site measure --send`: reports of measurements in the PACS, equal to what was sent."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import highdicom
import pytest
from pydicom import dcmread

from tests.client.dicom_files import write_labels
from tests.client.measurement.phantom import beating
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching
from tests.client.scores import faults
from tests.client.terminals import Site

pytestmark = pytest.mark.processes


def test_a_report_of_measurements_is_valid_and_comes_back_equal(tmp_path: Path, pacs: Pacs) -> None:
    site = Site(tmp_path)
    beating(site.data, "P1", acquired=True)
    write_labels(site.data, [{"PatientID": "P1", "mask_ed": "P1-ed.dcm", "mask_es": "P1-es.dcm"}])
    site.set_up(pacs=reaching(pacs))
    plan = tmp_path / "measure.yaml"
    plan.write_text(
        "structures: {lv: [1], tumour: [2], both: [1, 2]}\nmasks: {ed: mask_ed, es: mask_es}\n"
        "ejection_fraction: {structures: [lv], end_diastole: ed, end_systole: es}"
    )
    ended = site.types("measure", plan, "--send", "--json")
    assert ended.status == 0, ended.text
    answer = json.loads(ended.out)
    ((name, state, _),) = answer["sent"]
    assert state == "STORED"
    written = site.home.results / name
    assert faults(written) == []
    copy = highdicom.sr.srread(BytesIO(pacs.file(dcmread(written).SOPInstanceUID)))
    ((row,),) = ([one["values"]] for one in answer["measured"])
    groups = copy.content.get_volumetric_roi_measurement_groups()
    assert {g.tracking_identifier.rpartition(":")[2] for g in groups} == {
        "lv, ed",
        "tumour, ed",
        "lv, es",
        "tumour, es",
    }
    (lv,) = [g for g in groups if g.tracking_identifier.endswith(":lv, ed")]
    assert lv.finding_type.value == "87878005"  # SNOMED CT, left ventricle
    segment = dcmread(site.data / "P1-ed.dcm").SOPInstanceUID
    assert lv.referenced_segment.referenced_sop_instance_uid == segment
    told = {m.name.value: (m.value, m.unit.value) for m in lv.get_measurements()}
    assert told["118565006"] == (592, "mm3")  # SNOMED CT, volume
    assert told["RNU0"] == (pytest.approx(row["ed_lv_volume_mesh_mm3"]), "mm3")
    assert told["L0JK"] == (pytest.approx(13.1, rel=0.01), "mm")
    assert told["Q4LE"] == (pytest.approx(row["ed_lv_mean"]), "1")
    (fraction,) = [
        m
        for g in copy.content.get_image_measurement_groups()
        for m in g.get_measurements()
        if m.unit.value == "%"
    ]
    assert fraction.value == pytest.approx(row["lv_ejection_fraction_percent"])
    again = json.loads(site.types("measure", plan, "--send", "--json").out)
    assert [state for _, state, _ in again["sent"]] == ["ALREADY_THERE"]
