from __future__ import annotations

import pytest

from common.config.run_config import RunConfig, parse_config
from common.config.tasks.diagnosis import DiagnosisTask
from common.config.tasks.regression import RegressionTask
from common.config.tasks.segmentation import SegmentationTask
from common.platform.errors import ConfigurationError

OUTLINES = """
name: quick
task: {kind: segmentation, structures: {tumour: [1], cyst: [2]}, codes: CODES}
cohort: {images: {size: [16, 16]}}
model: {network: unet, width: 8}
training: {rounds: 1}
privacy: none
"""


def coded(codes: str) -> RunConfig:
    return parse_config(OUTLINES.replace("CODES", codes))


def test_codes_are_of_structures_and_change_what_is_approved() -> None:
    given = coded('{tumour: {value: "108369006", meaning: Tumor, category: abnormal}}')
    assert isinstance(given.task, SegmentationTask)
    assert given.task.codes["tumour"].scheme == "SCT"
    bare = coded("{}")
    assert "codes" not in bare.canonical_json(), "runs that were approved before keep their hash"
    assert given.fingerprint() != bare.fingerprint()


def test_a_number_may_have_a_code_and_keeps_its_hash_without() -> None:
    task = "{kind: regression, target: ef, range: [0, 100]%s}"
    rest = "cohort: {images: {size: [16, 16]}}\ntraining: {rounds: 1}\nprivacy: none"
    model = "model: {network: small_cnn, width: 8}"
    text = f"name: quick\ntask: {task}\n{rest}\n{model}"
    given = parse_config(text % ", code: {value: 10230-1, scheme: LN, meaning: LVEF}")
    assert isinstance(given.task, RegressionTask)
    assert given.task.code is not None
    assert '"code"' not in parse_config(text % "").canonical_json()


def test_labels_have_codes_by_class_or_by_column_and_keep_their_hash_without() -> None:
    task = "{kind: diagnosis, type: binary, target: found, classes: [benign, malignant]%s}"
    rest = "cohort: {images: {size: [16, 16]}}\ntraining: {rounds: 1}\nprivacy: none"
    text = f"name: quick\ntask: {task}\n{rest}\nmodel: {{network: small_cnn, width: 8}}"
    code = '{value: "363346000", meaning: Malignant neoplastic disease}'
    given = parse_config(text % f", codes: {{malignant: {code}}}").task
    assert isinstance(given, DiagnosisTask)
    assert given.predicts.codes["malignant"].value == "363346000"
    assert '"codes"' not in parse_config(text % "").canonical_json()
    with pytest.raises(ConfigurationError, match="none of its labels: benign, malignant"):
        parse_config(text % f", codes: {{found: {code}}}")


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ('{tumor: {value: "108369006", meaning: Tumor}}', "none of structures: tumour, cyst"),
        ('{tumour: {value: "108369060", meaning: Tumor}}', "a digit is wrong or two are swapped"),
        ('{tumour: {value: "108369007", meaning: Tumor}}', "a digit is wrong or two are swapped"),
        ("{tumour: {value: tumour, meaning: Tumor}}", "expected 6 to 16 digits"),
        ("{tumour: {value: 108369006, meaning: Tumor}}", "value"),
        ('{tumour: {value: "1023", scheme: LN, meaning: Tumor}}', "a hyphen and a check digit"),
        ('{tumour: {value: "108369006", scheme: FMA, meaning: Tumor}}', "scheme"),
        ('{tumour: {value: "108369006", meaning: "a\\\\b"}}', "without backslash"),
        ('{tumour: {value: "108369006", meaning: ""}}', "meaning"),
        ('{tumour: {value: "108369006", meaning: Tumor, category: organ}}', "category"),
    ],
)
def test_what_is_no_code_is_refused_in_words(codes: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        coded(codes)
