"""Every file of the public zoo: read as dcmtk and gdcm read it, or refused with its code."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from client.dicom.pixels.native import parse_image, read_image
from client.dicom.quiet import quiet
from client.dicom.reading.files import File
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import SHARED
from tests.client.dicom_peers import LOSSY, decoded_by_peer

ZOO = SHARED / "dicom-zoo"
#: What is refused, looked at one by one.
REFUSED: dict[Reason, tuple[str, ...]] = {
    # No image: reports, plans, waveforms, annotations, and headers whose pixels were taken out.
    Reason.NO_PIXELS: (
        "dicom-test-files__rwvm.dcm",
        "fo-dicom__GH178.dcm",
        "fo-dicom__GH220.dcm",
        "fo-dicom__GH487.dcm",
        "fo-dicom__Issue1097_FailToOpenDeflatedFileWithSQ.dcm",
        "highdicom__sm_annotations.dcm",
        "highdicom__sr_document.dcm",
        "pydicom__ExplVR_BigEndNoMeta.dcm",
        "pydicom__ExplVR_LitEndNoMeta.dcm",
        "pydicom__IM00000R",
        "pydicom__UN_sequence.dcm",
        "pydicom__chrKoreanMulti.dcm",
        "pydicom__empty_charset_LEI.dcm",
        "pydicom__fall.dcm",
        "pydicom__reportsi_with_empty_number_tags.dcm",
        "pydicom__rtplan_truncated.dcm",
        "pydicom__test-SR.dcm",
        "pydicom__waveform_ecg.dcm",
    ),
    Reason.DICOMDIR: ("pydicom__DICOMDIR-bigEnd", "pydicom__DICOMDIR-empty.dcm"),
    # A header of an image whose pixels are not all there.
    Reason.TRUNCATED_PIXELS: (
        "fo-dicom__GH1146.dcm",
        "fo-dicom__GH626.dcm",
        "pydicom__MR_truncated.dcm",
        "pydicom-data__emri_small_jpeg_2k_lossless_too_short.dcm",
    ),
    # Twelve bits packed as ACR-NEMA did, without SamplesPerPixel; and datasets made up of a tag.
    Reason.MISSING_HEADER: (
        "fo-dicom__GH340.dcm",
        "pydicom__meta_missing_tsyntax.dcm",
        "pydicom__nested_priv_SQ.dcm",
    ),
    Reason.NOT_DICOM: ("pydicom__no_meta.dcm",),
    # Twenty slices of a head side by side.
    Reason.MOSAIC: ("dcm_qa_uih__00000001.dcm",),
    # NumberOfFrames "1A"; a header that says RGB with a JFIF codestream, which is YCbCr.
    Reason.BAD_VR: ("pydicom__badVR.dcm", "fo-dicom__GH195.dcm"),
    # A codestream without tables; one whose size a delimiter overwrote. No peer reads them.
    Reason.DECODE_ERROR: (
        "fo-dicom__genFile.dcm",
        "pydicom__JPEG2000-embedded-sequence-delimiter.dcm",
    ),
    # Big endian in what the standard's words of 16 bits do not settle: readers differ.
    Reason.UNSUPPORTED_TS: (
        "pydicom-data__SC_rgb_expb_16bit.dcm",
        "pydicom-data__SC_rgb_expb_16bit_2frame.dcm",
        "pydicom-data__SC_rgb_expb_32bit.dcm",
        "pydicom-data__SC_rgb_expb_32bit_2frame.dcm",
        "pydicom__rtdose_expb.dcm",
        "pydicom__rtdose_expb_1frame.dcm",
    ),
}
#: Read, and no peer here decodes them: floats, HTJ2K, uncompressed 4:2:2, and a codestream with
#: bytes behind its end that dcmtk stumbles over.
ALONE = frozenset(
    {
        "fo-dicom__GH364.dcm",
        "pydicom-data__HTJ2K_08_RGB.dcm",
        "pydicom-data__parametric_map_double_float.dcm",
        "pydicom-data__parametric_map_float.dcm",
        "pydicom__SC_ybr_full_422_uncompressed.dcm",
    }
)
#: Lossy colour is rounded once more on its way from YCbCr.
ROUNDED = 2

pytestmark = [
    pytest.mark.processes,
    pytest.mark.needs_shared_data,
    pytest.mark.skipif(not ZOO.is_dir(), reason="public cohorts are not here"),
]


def names() -> list[str]:
    if not ZOO.is_dir():
        return []
    with (ZOO / "MANIFEST.csv").open(encoding="utf-8") as manifest:
        return sorted(row["file"] for row in csv.DictReader(manifest))


def file_of(name: str) -> File:
    path = next(iter(ZOO.rglob(name)))
    return File(path=path, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns)


def expected_reason(name: str) -> Reason | None:
    found = [reason for reason, files in REFUSED.items() if name in files]
    return found[0] if found else None


def test_the_zoo_is_whole() -> None:
    assert len(names()) == 191


@pytest.mark.processes
@pytest.mark.parametrize("part", range(8))
def test_the_zoo_is_read_as_its_peers_read_it_or_refused(part: int, tmp_path: Path) -> None:
    wrong = []
    for name in names()[part::8]:
        file = file_of(name)
        try:
            found = read_image(file)[1].stored
        except UnusableFile as problem:
            with quiet():
                wanted = dcmread(file.path, force=True, stop_before_pixels=True).get("Modality")
            if problem.reason is not expected_reason(name) and not (
                problem.reason is Reason.SEGMENTATION and wanted == "SEG"
            ):
                wrong.append(f"{name} refused: {problem.reason} {problem.detail}")
            continue
        if expected_reason(name) is not None:
            wrong.append(f"{name} was read")
        wrong += _differences(name, file, found, tmp_path)
    assert wrong == []


def _differences(name: str, file: File, found: np.ndarray, folder: Path) -> list[str]:
    peer = decoded_by_peer(file.path, folder)
    if peer is None:
        return [] if name in ALONE else [f"{name}: no peer decodes it"]
    if name in ALONE:
        return [f"{name}: {peer.by} decodes it, too"]
    if peer.values.shape != found.shape:
        return [f"{name}: {found.shape}, {peer.by} {peer.values.shape}"]
    with quiet():
        header = dcmread(file.path, force=True, stop_before_pixels=True)
    turned = str(header.PhotometricInterpretation).startswith("YBR")
    lossy = str(header.file_meta.get("TransferSyntaxUID")) in LOSSY
    allowed = ROUNDED if turned or (lossy and found.ndim == 4) else 0
    worst = int(np.abs(peer.values - found.astype(np.int64)).max())
    return [] if worst <= allowed else [f"{name}: differs by {worst} from {peer.by}"]


def test_the_easy_way_reads_what_pydicom_reads() -> None:
    compared, refusals = 0, []
    for name in names():
        file = file_of(name)
        try:
            header, pixels = read_image(file)
        except UnusableFile as problem:
            refusals.append((name, problem.reason, _reason_of(file)))
            continue
        slow_header, slow = parse_image(file)
        assert header == slow_header, name
        assert np.array_equal(pixels.stored, slow.stored), name
        assert np.array_equal(pixels.slope, slow.slope), name
        assert np.array_equal(pixels.intercept, slow.intercept), name
        compared += 1
    assert compared > 130
    assert [name for name, fast, slow in refusals if fast is not slow] == []


def _reason_of(file: File) -> Reason:
    with pytest.raises(UnusableFile) as caught:
        parse_image(file)
    return caught.value.reason
