"""The notebooks run from top to bottom, and stand in the repository as they ran."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"
NAMES = ("simulate", "own-cohort", "privacy-accuracy")
#: What a page in a repository should weigh.
LARGEST_BYTES = 100_000
#: A machine's folders, and what a clock decides.
OF_ONE_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|work|opt)/|\d\d:\d\d:\d\d|\d s\b")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def shape(book: nbformat.NotebookNode) -> list[list[tuple[str, ...]]]:
    """Return what kinds of outputs each cell has."""
    return [
        [(o.output_type, *sorted(o.get("data", {})), o.get("name", "")) for o in cell.outputs]
        for cell in code(book)
    ]


def test_every_notebook_is_under_test() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_executed_small_and_of_no_machine(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size <= LARGEST_BYTES
    book = read(name)
    nbformat.validate(book)
    counts = [cell.execution_count for cell in code(book)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code(book):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            data = output.get("data", {})
            texts = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
            assert OF_ONE_MACHINE.search("".join(texts)) is None, texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a copy of the notebooks' place; two of them read the same invented hospitals."""
    top = tmp_path_factory.mktemp("notebooks")
    (top / "docs" / "notebooks").mkdir(parents=True)
    (top / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
            patch.setenv(variable, str(top / variable))
        patch.setenv("PYTHONPATH", str(ROOT))
        yield top / "docs" / "notebooks"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom(name: str, folder: Path) -> None:
    book = read(name)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert shape(book) == shape(read(name))
