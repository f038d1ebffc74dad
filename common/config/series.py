"""Rules that say which series of a study are a network's input (`cohort.images.series`).

Each rule chooses one series; several rules are channels, in their order. Keys of a rule must all
fit, one entry of `any` must, and no key under `not` may:

    description        any of these globs, over SeriesDescription and ProtocolName
    image_type         any of these values of ImageType
    modality           any of these
    contrast           whether a contrast agent is named
    echo_time, inversion_time, repetition_time (ms), b_value (s/mm2), slice_thickness (mm)
                       [lowest, highest], both included; what is not said does not fit
    plane              across which axis of the patient the slices lie
    kernel, sequence   any of these globs, over ConvolutionKernel and SequenceName
    scanning_sequence  any of these values of ScanningSequence: SE, IR, GR, EP
    view, laterality   any of these values of ViewPosition; L or R

Globs are lower case or not, `_`, `-` and `^` are blanks, `*` is anything; they are found anywhere
in the text, which has a blank at both ends. There are no regular expressions: one that comes from
a coordinator could keep a site busy for ever.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from common.config.parts.section import Part, Real

_Plane = Literal["axial", "coronal", "sagittal"]
#: DICOM's long strings have 64 characters.
_LONGEST, _MOST = 64, 64
_SEPARATORS = re.compile(r"[\s_\-^]+")


def plain_words(text: str) -> str:
    """Return a text as globs see it: lower case, with one blank for `_`, `-`, `^` and blanks."""
    return _SEPARATORS.sub(" ", text.lower())


def _says_something(glob: str) -> str:
    if not plain_words(glob).replace("*", "").strip():
        message = f"{glob!r} fits every series; name some of its description"
        raise ValueError(message)
    return glob


Glob = Annotated[
    str, StringConstraints(min_length=1, max_length=_LONGEST), AfterValidator(_says_something)
]
_Globs = Annotated[tuple[Glob, ...], Field(max_length=_MOST, exclude_if=lambda given: not given)]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=16, pattern=r"^[A-Za-z0-9_ ]+$")]
_Words = Annotated[tuple[_Word, ...], Field(max_length=_MOST, exclude_if=lambda given: not given)]


def _in_order(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        message = f"expected [lowest, highest], got {list(given)}"
        raise ValueError(message)
    return given


_Range = Annotated[
    Annotated[tuple[Real, Real], AfterValidator(_in_order)] | None,
    Field(exclude_if=lambda given: given is None),
]


RuleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class SeriesMatch(Part):
    """What a series must say of itself; all keys that are given must fit."""

    model_config = ConfigDict(serialize_by_alias=True)

    #: Any of these globs, over SeriesDescription and ProtocolName.
    description: _Globs = ()
    #: Any of these values of ImageType (DICOM 0008,0008).
    image_type: _Words = ()
    #: Any of these modalities (DICOM 0008,0060).
    modality: _Words = ()
    #: Whether a contrast agent is named (DICOM 0018,0010 or 0018,0012).
    contrast: Annotated[bool | None, Field(strict=True, exclude_if=lambda g: g is None)] = None
    #: Lowest and highest echo time in ms.
    echo_time: _Range = None
    #: Lowest and highest inversion time in ms.
    inversion_time: _Range = None
    #: Lowest and highest repetition time in ms.
    repetition_time: _Range = None
    #: Lowest and highest b-value in s/mm2.
    b_value: _Range = None
    #: Lowest and highest slice thickness in mm.
    slice_thickness: _Range = None
    #: Any of these planes, by the axis of the patient that is nearest to the slices' normal.
    plane: Annotated[tuple[_Plane, ...], Field(exclude_if=lambda given: not given)] = ()
    #: Any of these globs, over ConvolutionKernel.
    kernel: _Globs = ()
    #: Any of these globs, over SequenceName.
    sequence: _Globs = ()
    #: Any of these values of ScanningSequence (DICOM 0018,0020).
    scanning_sequence: _Words = ()
    #: Any of these views (ViewPosition, DICOM 0018,5101).
    view: _Words = ()
    #: Any of these sides (ImageLaterality or Laterality), L, R or B.
    laterality: _Words = ()

    @model_validator(mode="after")
    def _not_empty(self) -> SeriesMatch:
        if not self.model_dump():
            message = "a match without keys fits every series; name what must fit"
            raise ValueError(message)
        return self


class SeriesRule(SeriesMatch):
    """Which series is one channel of the network's input."""

    name: RuleName
    #: The series on whose grid the others are brought; where there is one rule, its own.
    reference: Annotated[bool, Field(strict=True, exclude_if=lambda given: not given)] = False
    #: One of these must fit, too.
    any: Annotated[tuple[SeriesMatch, ...], Field(max_length=16, exclude_if=lambda g: not g)] = ()
    #: No key of this may fit.
    not_: SeriesMatch | None = Field(default=None, alias="not", exclude_if=lambda g: g is None)
    #: Where several series fit: refuse leaves the study out and names them; else one of them.
    pick: Annotated[
        Literal["refuse", "most_slices", "newest", "oldest", "thinnest"],
        Field(exclude_if=lambda given: given == "refuse"),
    ] = "refuse"
    #: Where none fits: leave_out leaves the study out; zero gives a channel of zeros.
    missing: Annotated[
        Literal["leave_out", "zero"], Field(exclude_if=lambda given: given == "leave_out")
    ] = "leave_out"


def check_rules(rules: tuple[SeriesRule, ...], channels: int, *, by_header: bool = True) -> None:
    """Raise ValueError for rules that do not go together.

    Not `by_header`, the table names what is each channel.
    """
    names = [rule.name for rule in rules]
    if len(set(names)) != len(names):
        message = (
            f"series names {', '.join(sorted({n for n in names if names.count(n) > 1}))} twice"
        )
        raise ValueError(message)
    references = [rule.name for rule in rules if rule.reference]
    if len(references) > 1 or (len(rules) > 1 and not references):
        named = ", ".join(references) or "none"
        message = f"one of several series has reference: true, whose grid is taken; here: {named}"
        raise ValueError(message)
    lacking = [r.name for r in rules if r.missing == "zero" and (r.reference or len(rules) == 1)]
    if lacking:
        message = f"series {lacking[0]} gives the grid; missing: zero does not fit it"
        raise ValueError(message)
    if len(rules) > 1 and channels > 1:
        message = f"channels={channels} does not fit several series, each of which is a channel"
        raise ValueError(message)
    for rule in rules:
        asked = rule.model_dump(exclude={"name", "reference", "pick", "missing", "not_"})
        if by_header and not asked:
            message = f"series {rule.name} says only what does not fit; name what must"
            raise ValueError(message)
        if not by_header and (asked or rule.not_ or rule.pick != "refuse"):
            message = (
                f"series {rule.name} asks for DICOM headers; for files it has a name, reference and"
                f" missing, and the column image_{rule.name} names them"
            )
            raise ValueError(message)
