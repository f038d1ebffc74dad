"""Whether an image fits a rule of `cohort.images.series`, by its header alone.

A file whose pixels or header broke says less than an image: what is not known of it neither fits
nor excludes (`may_fit`), so that what is used does not follow from what broke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from client.dicom.headers.instance import Instance
from common.config.series import SeriesMatch, SeriesRule, plain_words

#: By a rule's name, globs of this site's own words for it (site.yaml, series_aliases).
Aliases = Mapping[str, tuple[str, ...]]
NO_ALIASES: Aliases = MappingProxyType({})
#: None: nobody knows.
_Known = bool | None
#: What is written where no contrast agent was given.
_NO_AGENT = frozenset({"no", "none", "n", "nil", "without", "no contrast", "not given", "0"})
_PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is known of an image: its description, and the rest unless it broke."""

    description: str
    image: Instance | None


def fits(rule: SeriesRule, image: Instance, aliases: Aliases = NO_ALIASES) -> bool:
    """Return whether an image fits a rule, or one of the site's own words for it."""
    seen = _Seen(description=image.described, image=image)
    return _fits(rule, seen, aliases.get(rule.name, ())) is True


def may_fit(rule: SeriesRule, description: str, aliases: Aliases = NO_ALIASES) -> bool:
    """Return whether a file that broke may fit; of one without a description nobody knows."""
    seen = _Seen(description=description, image=None)
    return _fits(rule, seen, aliases.get(rule.name, ())) is not False


def found_in(globs: tuple[str, ...], text: str) -> bool:
    """Return whether any of these globs is somewhere in a text.

    Each part between asterisks is looked for once, behind the part before it: the time is that of
    reading the text, whatever the globs.
    """
    return _found_in(globs, text)


@lru_cache(maxsize=8192)
def _found_in(globs: tuple[str, ...], text: str) -> bool:
    words = f" {plain_words(text).strip()} "
    return any(_in_order(plain_words(glob).split("*"), words) for glob in globs)


def _in_order(parts: Iterable[str], text: str) -> bool:
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def _fits(rule: SeriesRule, seen: _Seen, own: tuple[str, ...]) -> _Known:
    return _all(_of_rule(rule, seen, own))


def _of_rule(rule: SeriesRule, seen: _Seen, own: tuple[str, ...]) -> Iterator[_Known]:
    for name, known in _keys(rule, seen):
        called = name == "description" and bool(own) and _described(own, seen)
        yield called or known
    if rule.any:
        ways = [_all(known for _, known in _keys(match, seen)) for match in rule.any]
        yield _any([*ways, *([_described(own, seen)] if own else [])])
    if rule.not_ is not None:
        excluded = _any(known for _, known in _keys(rule.not_, seen))
        yield None if excluded is None else not excluded


def _described(globs: tuple[str, ...], seen: _Seen) -> _Known:
    if seen.image is None and not seen.description:
        return None
    return found_in(globs, seen.description)


def _keys(match: SeriesMatch, seen: _Seen) -> Iterator[tuple[str, _Known]]:
    """Yield each key that is given, and whether it fits."""
    if match.description:
        yield "description", _described(match.description, seen)
    image = seen.image
    for name, given in _others(match):
        yield name, None if image is None else _one(name, given, image)


def _others(match: SeriesMatch) -> Iterator[tuple[str, object]]:
    for name in SeriesMatch.model_fields:
        given = getattr(match, name)
        if name != "description" and given is not None and given != ():
            yield name, given


def _one(name: str, given: object, image: Instance) -> bool:
    """Return whether an image fits one key; what it does not say does not fit."""
    if name == "contrast":
        return has_agent(image.technique.contrast) == given
    if name in {"kernel", "sequence"}:
        held = image.technique.kernel if name == "kernel" else image.technique.sequence_name
        return isinstance(given, tuple) and bool(held) and found_in(given, held.replace("\\", " "))
    if name in _NUMBERS:
        value = _NUMBERS[name](image)
        low, high = given if isinstance(given, tuple) else (0.0, 0.0)
        return value is not None and bool(low <= value <= high)
    wanted = {word.upper() for word in given} if isinstance(given, tuple) else set()
    return bool(wanted & _WORDS[name](image))


def has_agent(text: str) -> bool:
    """Return whether a text names a contrast agent, rather than none."""
    return bool(text.strip()) and plain_words(text).strip() not in _NO_AGENT


def plane_of(image: Instance) -> str:
    """Return in which plane slices lie, by the axis nearest to their normal; empty: not said."""
    if not image.orientations:
        return ""
    a, b, c, d, e, f = image.orientations[0]
    normal = [abs(b * f - c * e), abs(c * d - a * f), abs(a * e - b * d)]
    return _PLANES[normal.index(max(normal))]


def _values(text: str) -> set[str]:
    return {word.strip().upper() for word in text.split("\\")} - {""}


_NUMBERS: Mapping[str, Callable[[Instance], float | None]] = {
    "echo_time": lambda image: image.technique.echo_time,
    "inversion_time": lambda image: image.technique.inversion_time,
    "repetition_time": lambda image: image.technique.repetition_time,
    "b_value": lambda image: image.technique.b_value,
    "slice_thickness": lambda image: image.slice_thickness,
}
_WORDS: Mapping[str, Callable[[Instance], set[str]]] = {
    "image_type": lambda image: _values(image.image_type),
    "modality": lambda image: {image.modality.upper()},
    "plane": lambda image: {plane_of(image).upper()},
    "scanning_sequence": lambda image: _values(image.technique.scanning_sequence),
    "view": lambda image: {image.technique.view.upper()},
    "laterality": lambda image: {image.laterality.upper()},
}


def _all(known: Iterable[_Known]) -> _Known:
    found = list(known)
    if False in found:
        return False
    return None if None in found else True


def _any(known: Iterable[_Known]) -> _Known:
    found = list(known)
    if True in found:
        return True
    return None if None in found else False
