"""Rules over headers: keys, globs, words of a site, and patterns that mean no good."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.dicom.headers.instance import Instance
from client.dicom.reading.technique import Technique
from client.series.fitting import fits, found_in, has_agent, may_fit
from common.config.run_config import parse_config
from common.config.series import SeriesRule
from common.platform.errors import ConfigurationError
from tests.client.dicom_files import CONFIG

AXIAL = ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0),)
CORONAL = ((1.0, 0.0, 0.0, 0.0, 0.0, -1.0),)


def of(**more: object) -> Instance:
    """Return an image with these values of its header."""
    names = Technique.__dataclass_fields__
    technique = Technique(**{k: v for k, v in more.items() if k in names})  # type: ignore[arg-type]  # by the test's names
    empty = dict.fromkeys(Instance.__dataclass_fields__, "")
    values: dict[str, object] = {
        **empty,
        "path": Path("a.dcm"),
        "modality": "MR",
        "positions": (),
        "orientations": (),
        "remarks": frozenset(),
        "slice_thickness": None,
        "tracer": None,
        "technique": technique,
    }
    values |= {k: v for k, v in more.items() if k not in names}
    return Instance(**values)  # type: ignore[arg-type]  # as above


def rule(**keys: object) -> SeriesRule:
    return SeriesRule.model_validate({"name": "x", **keys})


@pytest.mark.parametrize(
    ("glob", "text", "found"),
    [
        ("flair", "Ax T2_FLAIR^fs", True),
        ("dark*fluid", "t2_tirm_tra_dark-fluid", True),
        ("dark*fluid", "fluid dark", False),
        ("T1-MPRAGE", "t1_mprage", True),
        ("t1*+c", "AX T1 SE +C", True),
        ("t1*+c", "+C AX T1", False),
        (" t1 ", "T1", True),  # a text has a blank at both ends
        (" t1 ", "t1ce", False),
        ("a.c", "abc", False),  # no regular expression
        ("[a]", "a", False),
        ("(a+)+$", "aaaa", False),
    ],
)
def test_globs_are_looked_for_anywhere(glob: str, text: str, *, found: bool) -> None:
    assert found_in((glob,), text) == found


def test_a_hostile_pattern_ends() -> None:
    # A search that goes back over its tracks would not, in a lifetime.
    text = "a" * 50_000 + "b"
    assert not found_in(("*a" * 31 + "*c",), text)
    assert not found_in(("(a*)*" * 12,), text)


@pytest.mark.parametrize(
    ("keys", "header", "fitting"),
    [
        ({"image_type": ["m"]}, {"image_type": "ORIGINAL\\PRIMARY\\M"}, True),
        ({"image_type": ["MPR"]}, {"image_type": "DERIVED\\MPRAGE"}, False),
        ({"inversion_time": [1500, 3000]}, {"inversion_time": 1500.0}, True),
        ({"inversion_time": [1500, 3000]}, {}, False),
        ({"echo_time": [80, 120]}, {"echo_time": 15.0}, False),
        ({"repetition_time": [0, 1000]}, {"repetition_time": 600.0}, True),
        ({"b_value": [900, 1100]}, {"b_value": 1000.0}, True),
        ({"slice_thickness": [0, 1.5]}, {"slice_thickness": 1.0}, True),
        ({"contrast": True}, {"contrast": "Gadovist"}, True),
        ({"contrast": True}, {"contrast": "NONE"}, False),
        ({"contrast": False}, {}, True),
        ({"modality": ["mr"]}, {}, True),
        ({"modality": ["CT"]}, {}, False),
        ({"plane": ["axial"]}, {"orientations": AXIAL}, True),
        ({"plane": ["axial", "sagittal"]}, {"orientations": CORONAL}, False),
        ({"plane": ["coronal"]}, {"orientations": CORONAL}, True),
        ({"plane": ["coronal"]}, {}, False),
        ({"kernel": ["b3*f"]}, {"kernel": "B30f\\2"}, True),
        ({"sequence": ["tfl"]}, {"sequence_name": "*tfl3d1_16"}, True),
        ({"scanning_sequence": ["IR"]}, {"scanning_sequence": "SE\\IR"}, True),
        ({"view": ["CC"]}, {"view": "MLO"}, False),
        ({"laterality": ["L"]}, {"laterality": "L"}, True),
        ({"description": ["t1"]}, {"protocol": "T1 SAG"}, True),
        ({"description": ["t1"], "contrast": True}, {"series_description": "t1"}, False),  # AND
        ({"any": [{"description": ["t1"]}, {"contrast": True}]}, {"contrast": "Gd"}, True),  # OR
        ({"description": ["t1"], "not": {"contrast": True, "plane": ["axial"]}},
         {"series_description": "t1", "orientations": AXIAL}, False),  # any key excludes
        ({"description": ["t1"], "not": {"contrast": True}}, {"series_description": "t1"}, True),
    ],
)  # fmt: skip
def test_keys(keys: dict[str, object], header: dict[str, object], *, fitting: bool) -> None:
    assert fits(rule(**keys), of(**header)) == fitting


def test_a_sites_own_words_stand_for_the_description_and_for_nothing_else() -> None:
    own = {"x": ("tirm",)}
    tirm = of(series_description="t2_tirm_tra")
    assert fits(rule(description=["flair"]), tirm, own)
    assert fits(rule(any=[{"description": ["flair"]}, {"contrast": True}]), tirm, own)
    assert not fits(rule(description=["flair"], plane=["axial"]), tirm, own)
    assert not fits(rule(description=["flair"], **{"not": {"description": ["tra"]}}), tirm, own)
    assert not fits(rule(description=["flair"]), tirm, {"y": ("tirm",)})


def test_of_a_file_that_broke_only_the_description_may_exclude_it() -> None:
    t1 = rule(description=["t1"], **{"not": {"contrast": True}})
    assert may_fit(t1, "ax t1")
    assert may_fit(t1, "")
    assert not may_fit(t1, "ax t2")
    assert may_fit(rule(any=[{"description": ["t1"]}, {"contrast": True}]), "ax t2")
    assert not may_fit(rule(description=["t"], **{"not": {"description": ["t2"]}}), "t2")


def test_words_for_no_contrast_agent() -> None:
    assert [has_agent(t) for t in ("", "No", "none", "N", "Magnevist")] == [False] * 4 + [True]


RUN = CONFIG.format(
    task="{kind: diagnosis, target: ill}",
    network="small_cnn",
    cohort="{images: {size: [16, 16, 16], series: [SERIES]MORE}}",
)
TWO = "{name: a, reference: true, description: [a]}, {name: b, description: [b]}"


@pytest.mark.parametrize(
    ("series", "more", "said"),
    [
        ("{name: a, description: ['*']}", "", "fits every series"),
        ("{name: a, description: ['-_']}", "", "fits every series"),
        ("{name: a, not: {contrast: true}}", "", "says only what does not fit"),
        ("{name: a, description: [a], any: [{}]}", "", "match without keys"),
        ("{name: a, echo_time: [5, 1]}", "", "[lowest, highest]"),
        ("{name: A, description: [a]}", "", "name"),
        (f"{TWO}, {{name: a, description: [c]}}", "", "names a twice"),
        ("{name: a, description: [a]}, {name: b, description: [b]}", "", "here: none"),
        (TWO.replace("{name: b", "{name: b, reference: true"), "", "here: a, b"),
        (TWO.replace("reference: true", "reference: true, missing: zero"), "", "gives the grid"),
        ("{name: a, description: [a], missing: zero}", "", "gives the grid"),
        (TWO, ", channels: 3", "channels=3"),
        ("{name: a, description: [a]}", ", drop_channels: 0.5", "two series or more"),
        ("{name: a, description: [a]}", ", register: trust", "two series or more"),
        ("{name: a, description: [a], pick: last}", "", "pick"),
    ],
)
def test_rules_that_say_nothing_or_contradict_are_refused(
    series: str, more: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(RUN.replace("SERIES", series).replace("MORE", more))
    assert said in str(caught.value)


def test_rules_keep_their_order_their_hash_and_what_was_not_said() -> None:
    from common.config.run_config import read_config

    config = parse_config(RUN.replace("SERIES", TWO).replace("MORE", ", register: trust"))
    images = config.cohort.images
    assert images is not None
    assert (images.channel_names, images.input_channels, images.channel_drop) == (("a", "b"), 2, 0)
    again = read_config(config.canonical_json())
    assert again == config
    assert again.fingerprint() == config.fingerprint()
    assert "pick" not in config.canonical_json()
    zero = parse_config(
        RUN.replace("SERIES", TWO.replace("[b]", "[b], missing: zero")).replace("MORE", "")
    )
    assert zero.cohort.images is not None
    assert zero.cohort.images.channel_drop == 0.3
    plain = parse_config(RUN.replace(", series: [SERIES]MORE", ""))
    assert "series" not in plain.canonical_json()
