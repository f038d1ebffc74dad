"""YAML as people mean it: version 1.2's core types, and no key twice.

PyYAML reads version 1.1, in which `no` is false, `012` is ten, `1:30` is ninety, `2024-01-01` is
a date and `1e-3` is text. A hospital or a class called `no` must stay what it is.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

import yaml
from typing_extensions import override


class _Yaml12(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2 (section 10.3), decimal numbers only."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own name; filled below, then constant

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
for _name, (_pattern, _first) in _CORE.items():
    _tag = f"tag:yaml.org,2002:{_name}"
    _Yaml12.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


def read_yaml(text: str) -> object:
    """Return what the text says; yaml.YAMLError says where it does not."""
    try:
        return yaml.load(text, Loader=_Yaml12)  # noqa: S506  # a SafeLoader
    except RecursionError as error:
        message = "it is nested too deeply"
        raise yaml.YAMLError(message) from error


class _Dumper(yaml.SafeDumper):
    """Quotes what `read_yaml` would not read back as the text it is."""

    yaml_implicit_resolvers = _Yaml12.yaml_implicit_resolvers


def write_yaml(content: object) -> str:
    """Return text that `read_yaml` reads back equal."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)
