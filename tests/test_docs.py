"""The pages show commands that exist, and the site shows files and notebooks as they are."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer

import client.cli.app
import server.cli.app
import simulations.cli.app

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
COMMANDS = {
    "wardround-simulate": simulations.cli.app.app,
    "wardround-site": client.cli.app.app,
    "wardround-coordinator": server.cli.app.app,
}


def shown(page: Path) -> Iterator[list[str]]:
    """Yield the words of each of our commands that a page shows, in a block or in a sentence."""
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"(?m)^(?:\.venv/bin/)?(wardround-\w+ .*)$", text):
        yield shlex.split(line, comments=True)
    for line in re.findall(r"`(wardround-\w+(?: [^`]+)?)`", text):
        yield shlex.split(line)


def unknown(words: list[str]) -> str | None:
    """Return the first command or option that there is not."""
    if words[0] not in COMMANDS:
        return words[0]
    command = typer.main.get_command(COMMANDS[words[0]])
    rest = words[1:]
    while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
        found = command.commands.get(rest[0])
        if found is None:
            return rest[0]
        command, rest = found, rest[1:]
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return next((word for word in rest if word.startswith("-") and word not in options), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    for words in shown(page):
        assert unknown(words) is None, f"{shlex.join(words)}: there is no {unknown(words)}"


@pytest.mark.parametrize(
    ("program", "page"),
    [("wardround-site", "site-admin.md"), ("wardround-coordinator", "coordinator.md")],
)
def test_the_guides_list_every_command(program: str, page: str) -> None:
    table = (ROOT / "docs" / page).read_text(encoding="utf-8").partition("## Commands")[2]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    command = typer.main.get_command(COMMANDS[program])
    assert isinstance(command, click.Group)
    listed = {name for cell in first for name in re.findall(r"`(?:wardround-\w+ )?([\w-]+)", cell)}
    assert set(command.commands) - listed == set()


def test_a_command_or_option_that_is_not_there_is_found() -> None:
    assert unknown(["wardround-site", "fetch"]) == "fetch"
    assert unknown(["wardround-site", "pull", "--every"]) == "--every"
    assert unknown(["wardround-sites", "pull"]) == "wardround-sites"
    assert unknown(["wardround-coordinator", "sites", "invite"]) == "invite"


def hooks() -> ModuleType:
    """Return docs/hooks.py."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_notebook_is_shown_with_what_came_of_it() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# A title\n", "Text."]},
        {
            "cell_type": "code",
            "source": ["1 + 1"],
            "outputs": [
                {"output_type": "stream", "text": ["said\n"]},
                {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
                {
                    "output_type": "display_data",
                    "data": {"text/plain": ["a table"], "text/html": ["<b>1</b>\n", "\n", "2"]},
                },
                {"output_type": "display_data", "data": {"image/png": "aGk=\n"}},
                {"output_type": "error", "ename": "ValueError", "evalue": "no"},
            ],
        },
    ]
    assert hooks().markdown_of({"cells": cells}).split("\n\n") == [
        "# A title\nText.",
        "```python\n1 + 1\n```",
        "```text\nsaid\n```",
        "```text\n2\n```",
        '<div class="notebook-output">\n<b>1</b>\n2\n</div>',
        '<img alt="" src="data:image/png;base64,aGk=">',
        "```text\nValueError: no\n```\n",
    ]


def test_links_of_the_readme_lead_to_pages_of_the_site() -> None:
    relinked = hooks()._of_the_root("[a](docs/privacy.md#x) [b](CONTRIBUTING.md) [c](#try-it)")
    assert relinked == "[a](privacy.md#x) [b](contributing.md) [c](#try-it)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_lists_and_tables_have_a_blank_line_before_them(page: Path) -> None:
    # Without one the site shows a single paragraph, though other readers of Markdown show a list.
    lines = page.read_text(encoding="utf-8").splitlines()
    for before, line in itertools.pairwise(lines):
        for mark in ("- ", "| "):
            glued = line.startswith(mark) and before and not before.startswith((mark, " ", "|"))
            assert not glued, f"{page.name}: put a blank line before: {line[:60]}"


def test_the_page_of_the_api_has_functions_in_the_order_of_the_example_and_no_foreign_names() -> (
    None
):
    source = '"""Says.\n\n    wr.load(1)\n    wr.train(2)\n"""\n'
    source += "from common.platform.errors import CohortError\n"
    source += "from wardround.a import Results, partition, train\nfrom wardround.b import load\n"
    page = hooks().api_of(source)
    shown = re.findall(r"(?m)^(?:::: (\S+)|## (\w+))$", page)
    assert [name or heading for name, heading in shown] == [
        "wardround",
        "Functions",
        "wardround.load",
        "wardround.train",
        "wardround.partition",
        "Classes",
        "wardround.Results",
        "Errors",
        "common.platform.errors",
    ]


@pytest.mark.processes
def test_no_page_of_the_site_loads_anything_from_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    loads = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?(?:https?:)?//")
    for page in pages:
        assert loads.search(page.read_text(encoding="utf-8")) is None, page.name
    for sheet in tmp_path.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", text) is None, sheet.name
