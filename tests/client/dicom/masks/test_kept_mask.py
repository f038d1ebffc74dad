"""A mask of many slices is parsed once, a changed one anew, and none is kept afterwards."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from client.dicom.masks import kept_mask
from client.dicom.masks.kept_mask import forgotten, mask_dataset, mask_frames
from client.dicom.reasons import UnusableFile
from tests.client.dicom_files import (
    config_of,
    load,
    noise,
    save,
    segmentation,
    slices,
    write_labels,
)

OUTLINES = np.zeros((4, 16, 16), np.uint8)
OUTLINES[:, 4:8, 4:8] = 1


def test_a_mask_of_many_slices_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = slices(noise(4, 16, 16))
    for number, one in enumerate(stack):
        save(tmp_path / "site" / f"{number}.dcm", one)
    save(tmp_path / "site" / "seg.dcm", segmentation({1: OUTLINES}, stack))
    rows = [{"PatientID": str(stack[0].PatientID), "mask": "seg.dcm"}]
    write_labels(tmp_path / "site", rows)
    parsed: list[Path] = []
    read = kept_mask.read_dataset

    def counted(path: Path) -> Dataset:
        parsed.append(path)
        return read(path)

    monkeypatch.setattr(kept_mask, "read_dataset", counted)
    config = config_of("{kind: segmentation, structures: {lesion: [1]}}", network="unet")
    found = load(tmp_path / "site", config, tmp_path / "cache")
    assert len(found.items.patient) == 4
    assert [path.name for path in parsed] == ["seg.dcm"]


def test_a_mask_that_changed_is_read_anew(tmp_path: Path) -> None:
    stack = slices(noise(4, 16, 16))
    path = save(tmp_path / "seg.dcm", segmentation({1: OUTLINES}, stack))
    with forgotten():
        assert np.array_equal(mask_frames(path), OUTLINES)
        save(path, segmentation({1: OUTLINES[:2]}, stack[:2]))
        assert np.array_equal(mask_frames(path), OUTLINES[:2])
        assert mask_dataset(path).NumberOfFrames == 2
        with pytest.raises(ValueError, match="read-only"):
            mask_frames(path)[0] = 0
        path.write_bytes(b"no longer DICOM")
        with pytest.raises(UnusableFile):
            mask_frames(path)


def test_no_mask_is_kept_when_a_cohort_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "seg.dcm", segmentation({1: OUTLINES}, slices(noise(4, 16, 16))))
    with forgotten():
        held = weakref.ref(mask_dataset(path))
        assert mask_dataset(path) is held()
    gc.collect()
    assert held() is None
