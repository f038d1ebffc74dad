"""Adds README and its like, the notebooks and the Python API to the site's pages.

MkDocs calls these functions (mkdocs.yml, `hooks`). Notebooks are shown as they ran; none is run.
"""

from __future__ import annotations

import ast
import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
API = ROOT / "wardround" / "__init__.py"
#: Pages that are files of the repository's root.
OF_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"\]\(([^)#\s]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put API and notebooks behind the guides, and pages that no section names at the end."""
    sections: list[dict[str, list[Any]]] = config.nav or []
    named = {page for part in sections if isinstance(part, dict) for page in _pages(part)}
    python: list[dict[str, str]] = [{"Python API": "api.md"}] if API.is_file() else []
    for notebook in notebooks():
        title = _title(json.loads(notebook.read_text(encoding="utf-8")), notebook.stem)
        python.append({title: f"notebooks/{notebook.stem}.md"})
    docs = ROOT / "docs"
    found = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    if python:
        sections.insert(2, {"Python": python})
    if more := sorted(found - named):
        sections.append({"More": more})
    config.nav = sections
    return config


def _pages(section: str | list[Any] | dict[str, Any]) -> Iterator[str]:
    """Yield the pages that a part of the navigation names."""
    if isinstance(section, str):
        yield section
        return
    for inner in section.values() if isinstance(section, dict) else section:
        yield from _pages(inner)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and take out the notebooks that they are made of."""
    for name, page in OF_THE_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_of_the_root(text)))
    if API.is_file():
        files.append(
            File.generated(config, "api.md", content=api_of(API.read_text(encoding="utf-8")))
        )
    for notebook in notebooks():
        page = f"notebooks/{notebook.stem}.md"
        found = files.get_file_from_path(f"notebooks/{notebook.name}")
        if found is not None:
            files.remove(found)
        text = markdown_of(json.loads(notebook.read_text(encoding="utf-8")))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to a notebook lead to its page."""
    return re.sub(r"(\]\([^)\s]*notebooks/[^)\s]*)\.ipynb", r"\1.md", markdown)


def notebooks() -> list[Path]:
    """Return the notebooks by name, the one to begin with first."""
    found = (ROOT / "docs" / "notebooks").glob("*.ipynb")
    return sorted(found, key=lambda path: (path.stem != "simulate", path.stem))


def markdown_of(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown: its text, its code, and what came of it."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(_fenced(source, "python"))
            parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def api_of(source: str) -> str:
    """Return the page of the Python API: functions in the order of its example, classes, errors."""
    module = ast.parse(source)
    example = ast.get_docstring(module) or ""
    own = [
        alias.name
        for part in ast.walk(module)
        if isinstance(part, ast.ImportFrom) and str(part.module).startswith("wardround.")
        for alias in part.names
    ]
    called = {name: example.find(f"wr.{name}(") % (len(example) + 1) for name in own}
    functions = sorted((name for name in own if name.islower()), key=lambda name: called[name])
    classes = sorted(name for name in own if not name.islower())
    parts = ["# Python API", _documented("wardround", "members: false", "show_root_heading: false")]
    parts += ["## Functions", *(_documented(f"wardround.{name}") for name in functions)]
    parts += ["## Classes", *(_documented(f"wardround.{name}") for name in classes)]
    parts += ["## Errors", _documented("common.platform.errors", "show_root_heading: false")]
    return "\n\n".join(parts) + "\n"


def _documented(name: str, *options: str) -> str:
    return "\n".join(
        [f"::: {name}", "    options:", "      heading_level: 3", *(f"      {o}" for o in options)]
    )


def _shown(output: dict[str, Any]) -> str:
    """Return one output; of its forms the richest that a page can show."""
    if output["output_type"] == "error":
        return _fenced("\n".join([output["ename"] + ": " + output["evalue"]]), "text")
    if output["output_type"] == "stream":
        return _fenced("".join(output["text"]).rstrip(), "text")
    data = output["data"]
    if "image/png" in data:
        picture = "".join("".join(data["image/png"]).split())
        return f'<img alt="" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        # Blank lines would end the block for Markdown.
        lines = "".join(data["text/html"]).splitlines()
        inner = "\n".join(line for line in lines if line.strip())
        return f'<div class="notebook-output">\n{inner}\n</div>'
    return _fenced("".join(data.get("text/plain", "")).rstrip(), "text")


def _fenced(text: str, language: str) -> str:
    if not text:
        return ""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}"


def _title(notebook: dict[str, Any], name: str) -> str:
    """Return the first heading."""
    found = re.search(r"(?m)^# (.+)$", markdown_of(notebook))
    return html.unescape(found[1]) if found else name


def _of_the_root(text: str) -> str:
    """Return a file of the root with its links as they are from docs/."""

    def relinked(link: re.Match[str]) -> str:
        target = link[1]
        if target in OF_THE_ROOT:
            return f"]({OF_THE_ROOT[target]}"
        return f"]({target.removeprefix('docs/')}"

    return _LINK.sub(relinked, text)


class ArgumentLists(griffe.Extension):
    """Shows lines of a docstring that begin with an argument's name as a list."""

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        """Make list items of the lines."""
        if func.docstring is not None:
            names = "|".join(re.escape(one.name) for one in func.parameters) or "$^"
            text = re.sub(rf"(?m)^({names}):(?= )", r"- `\1`:", func.docstring.value)
            func.docstring.value = text
