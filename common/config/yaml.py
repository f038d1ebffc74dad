"""YAML 1.2's core types, and no key twice.

PyYAML reads version 1.1, in which `no` is false, `012` is ten, `1:30` is ninety, `2024-01-01` is
a date and `1e-3` is text. A hospital or a class called `no` must stay what it is.

Reading takes time in proportion to a bounded length: aliases, by which a few hundred bytes stand
for more values than a machine has memory, are refused, and so are tags other than !!str.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

import yaml
from typing_extensions import override

#: The longest file that ships has 4 KB; PyYAML reads about a megabyte in a second.
LARGEST_YAML = 1024 * 1024
_MOST_NODES = 20_000
_DEEPEST = 20
#: Digits of a number; 64 bits have 20.
_LONGEST_NUMBER = 40


class _Yaml12(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2 (section 10.3), decimal numbers only."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own name; filled below, then constant

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types here
        problem = _problem(event) or self._too_much()
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self._nodes += 1
        self._depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self._depth -= 1

    def _too_much(self) -> str | None:
        if self._depth >= _DEEPEST:
            return f"it is nested deeper than {_DEEPEST}"
        return f"it has more than {_MOST_NODES} values" if self._nodes >= _MOST_NODES else None

    @override
    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {key.value} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def _problem(event: yaml.Event) -> str | None:
    """Return what a part says that a configuration has no use for."""
    anchor = getattr(event, "anchor", None)
    if isinstance(event, yaml.AliasEvent):
        return f"it has an alias, *{anchor}; write the value out where it is used"
    if anchor is not None:
        return f"it has an anchor, &{anchor}; remove it"
    tag = getattr(event, "tag", None)
    if tag not in {None, "!", "tag:yaml.org,2002:str"}:
        return f"it has the tag {tag[:60]}; write the value without"
    return _problem_of_scalar(event) if isinstance(event, yaml.ScalarEvent) else None


def _problem_of_scalar(event: yaml.ScalarEvent) -> str | None:
    text = event.value
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        return "a text holds half a character"
    if event.implicit[0] and len(text) > _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        return f"a number has {len(text)} characters, at most {_LONGEST_NUMBER} are read"
    return None


_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        # A point or an exponent, and no leading zeros: 012 is a label, not a number.
        r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(?:0|[1-9][0-9]*)(?=[eE]))(?:[eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
_NUMBER = re.compile(f"{_CORE['int'][0]}|{_CORE['float'][0]}")
for _name, (_pattern, _first) in _CORE.items():
    _tag = f"tag:yaml.org,2002:{_name}"
    _Yaml12.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


def read_yaml(text: str) -> object:
    """Return what the text says; yaml.YAMLError says where it does not."""
    if len(text) > LARGEST_YAML:
        message = f"it has {len(text)} characters, expected at most {LARGEST_YAML}"
        raise yaml.YAMLError(message)
    try:
        return yaml.load(text, Loader=_Yaml12)  # noqa: S506  # a SafeLoader
    except RecursionError as error:
        message = "it is nested too deeply"
        raise yaml.YAMLError(message) from error


class _Dumper(yaml.SafeDumper):
    """Quotes what `read_yaml` would not read back as the text it is."""

    yaml_implicit_resolvers = _Yaml12.yaml_implicit_resolvers

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


def write_yaml(content: object) -> str:
    """Return text that `read_yaml` reads back equal."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)
