"""HTML pages that stand alone."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping


def page(package: str, name: str, values: Mapping[str, object]) -> str:
    """Return a template of a package filled in; everything that comes from outside is escaped."""
    from jinja2 import Environment, StrictUndefined

    text = importlib.resources.files(package).joinpath(name).read_text("utf-8")
    style = importlib.resources.files("common.platform").joinpath("page.css").read_text("utf-8")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)
    return template.render({**values, "style": style})
