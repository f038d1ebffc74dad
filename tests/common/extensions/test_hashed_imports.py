"""Of an extension nothing is run but the bytes that were hashed, whenever it is imported."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import py_compile
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from common.config.parts.extension import Extension
from common.config.run_config import parse_config
from common.extensions.content import Installed, installed, offered
from common.extensions.contract import LossExtension
from common.extensions.loading import load
from common.extensions.pinning import doubts, pinned
from common.platform.errors import ExtensionRefused
from tests.extensions import on_path, written

CODE = """
from pydantic import BaseModel

from common.extensions.contract import LossExtension


def loss(arguments, output, target):
    {later}
    return K * output.sum()


{first}
l = LossExtension(arguments=BaseModel, loss=loss, tasks={{"diagnosis"}})
"""
BY_HAND = (
    "import os, importlib.util as u; "
    "s = u.spec_from_file_location('h', os.path.dirname(__file__) + '/helper.py'); "
    "m = u.module_from_spec(s); s.loader.exec_module(m); K = m.K"
)
CONFIG = """
name: example
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 1, loss: acme-l/l}
privacy: none
"""


class Arguments(BaseModel):
    """None."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    folder = write(tmp_path / "site-packages")
    with on_path(folder):
        yield folder


def write(folder: Path, first: str = "", later: str = "from .helper import K") -> Path:
    written(folder, "acme-l", CODE.format(first=first, later=later), {"losses": ["l"]})
    (folder / "acme_l" / "helper.py").write_text("K = 1.0\n")
    return folder


def here() -> Installed:
    found = installed("acme-l")
    assert found is not None
    return found


def loaded(*pins: Extension) -> Callable[[], float]:
    """Load the loss; returns what calls it, as recording does."""
    found: LossExtension[BaseModel] = load(
        pins or (here().extension,), "losses", "acme-l/l", LossExtension
    )
    return lambda: float(found.loss(Arguments(), torch.ones(1), torch.ones(1)))


def forge(source: Path, text: str, place: str | None = None) -> None:
    """Put a compiled file beside a source, which Python would take for the source's."""
    evil = source.with_name("evil")
    evil.write_text(text)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    cached = place or importlib.util.cache_from_source(str(source))
    py_compile.compile(str(evil), cached, invalidation_mode=unchecked)
    evil.unlink()


@pytest.mark.parametrize(
    "how",
    [
        "from .helper import K",
        "import importlib; K = importlib.import_module('acme_l.helper').K",
        "import os, sys; sys.path.insert(0, os.path.dirname(__file__)); from helper import K",
        "import importlib; from . import helper; K = importlib.reload(helper).K",
        "import runpy; K = runpy.run_module('acme_l.helper')['K']",
        BY_HAND,
    ],
)
@pytest.mark.parametrize("when", ["at the import", "when the loss is called"])
def test_a_compiled_file_is_not_run_however_and_whenever_its_module_is_imported(
    site: Path, how: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    late = when == "when the loss is called"
    write(site, first="" if late else how, later=how if late else "pass")
    before = here()
    forge(site / "acme_l" / "helper.py", "K = 2.0\n")
    assert here() == before
    assert loaded()() == 1.0


def test_a_module_of_one_file_is_compiled_from_its_source(tmp_path: Path) -> None:
    folder = write(tmp_path / "site-packages", first="K = 1.0", later="pass")
    (folder / "acme_l" / "__init__.py").rename(folder / "acme_l.py")
    (folder / "acme_l" / "helper.py").unlink()
    (folder / "acme_l").rmdir()
    record = folder / "acme_l-1.0.0.dist-info" / "RECORD"
    record.write_text(record.read_text().replace("acme_l/__init__.py", "acme_l.py"))
    forge(folder / "acme_l.py", "raise SystemExit('was run')")
    with on_path(folder):
        assert loaded()() == 1.0


def changed(site: Path) -> None:
    (site / "acme_l" / "helper.py").write_text("K = 2.0\n")


def compiled_part(site: Path) -> None:  # Python takes it before the source
    (site / "acme_l" / f"helper{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"")


def package(site: Path) -> None:
    (site / "acme_l" / "helper").mkdir()
    (site / "acme_l" / "helper" / "__init__.py").write_text("K = 2.0\n")


def link(site: Path) -> None:
    module = site / "acme_l" / "helper.py"
    module.rename(site / "other.py")
    module.symlink_to(site / "other.py")


@pytest.mark.parametrize("change", [changed, compiled_part, package])
def test_what_came_or_was_changed_after_the_hash_is_not_imported_later(
    site: Path, change: Callable[[Path], None]
) -> None:
    loss = loaded()
    change(site)
    with pytest.raises(ExtensionRefused, match=r"no file of acme-l|after acme-l was hashed"):
        loss()


def test_a_link_is_not_imported_even_where_its_content_was_named(site: Path) -> None:
    link(site)
    with pytest.raises(ExtensionRefused, match="or is a link"):
        loaded()()


@pytest.mark.parametrize("name", ["more.py", "deeper/more.py", "more.txt"])
def test_every_file_in_pycache_counts_but_compiled_ones(site: Path, name: str) -> None:
    before = here().extension.content
    path = site / "acme_l" / "__pycache__" / name
    path.parent.mkdir(parents=True)
    path.write_text("K = 1.0\n")
    assert here().extension.content != before
    for compiled in ("more.pyc", "more.cpython-311.pyc.140213"):  # written, and being written
        path = path.rename(path.with_name(compiled))
        assert here().extension.content == before


def test_a_source_in_pycache_runs_as_it_was_hashed_and_a_compiled_file_does_not(site: Path) -> None:
    write(site, later="from acme_l.__pycache__.more import K")
    folder = site / "acme_l" / "__pycache__"
    folder.mkdir()
    (folder / "more.py").write_text("K = 3.0\n")
    loss, before = loaded(), here()
    assert loss() == 3.0
    write(site, later="from acme_l.__pycache__.sole import K")
    (folder / "more.py").unlink()
    forge(folder / "sole.py", "K = 2.0\n", str(folder / "sole.pyc"))
    assert here() != before
    with on_path(site):  # which forgets at its end
        pass
    with pytest.raises(ExtensionRefused, match="no file of acme-l"):
        loaded()()


@pytest.mark.parametrize("name", ["acme_beside.py", "acme_beside/__init__.py", "acme_beside/k.py"])
def test_a_module_beside_it_that_nobody_installed_is_not_imported(site: Path, name: str) -> None:
    module = "acme_beside.k" if name.endswith("k.py") else "acme_beside"
    write(site, later=f"from {module} import K")
    (site / name).parent.mkdir(exist_ok=True)
    (site / name).write_text("K = 2.0\n")
    loss = loaded()
    with pytest.raises(ExtensionRefused, match=r"acme-l imports acme_beside.*no installed dist"):
        loss()
    importlib.import_module(module)  # of others' business it is none
    del sys.modules[module]


def test_a_module_of_another_distribution_is_imported_as_ever(site: Path) -> None:
    write(site, later="from acme_other import K")
    written(site, "acme-other", "K = 4.0\n", {})
    assert loaded()() == 4.0


def test_a_module_of_another_distribution_of_the_run_is_hashed_too(site: Path) -> None:
    write(site, first="from acme_other import K", later="pass")
    written(site, "acme-other", "K = 4.0\n", {"losses": ["K"]})
    forge(site / "acme_other" / "__init__.py", "K = 2.0\n")
    other = installed("acme-other")
    assert other is not None
    assert loaded(here().extension, other.extension)() == 4.0
    with pytest.raises(ExtensionRefused, match="is float, expected"):
        load([other.extension], "losses", "acme-other/K", LossExtension)


def test_what_was_imported_before_it_was_hashed_is_refused(site: Path) -> None:
    importlib.import_module("acme_l.helper")
    assert site.is_dir()
    with pytest.raises(ExtensionRefused, match="before the files of acme-l were hashed"):
        loaded()


# --- installations that are not whole ------------------------------------------------------


def info(site: Path, name: str) -> Path:
    return site / "acme_l-1.0.0.dist-info" / name


def no_metadata(site: Path) -> None:
    info(site, "METADATA").unlink()


def empty_metadata(site: Path) -> None:
    info(site, "METADATA").write_text("")


def no_version(site: Path) -> None:
    info(site, "METADATA").write_text("Metadata-Version: 2.1\nName: acme-l\n")


def no_record(site: Path) -> None:
    info(site, "RECORD").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_metadata, "METADATA does not give name and version"),
        (empty_metadata, "METADATA does not give name and version"),
        (no_version, "METADATA does not give name and version"),
        (no_record, "has no RECORD"),
    ],
)
def test_an_installation_that_is_not_whole_is_told_and_taken_in_simulations_alone(
    site: Path, change: Callable[[Path], None], words: str
) -> None:
    change(site)
    with pytest.raises(ExtensionRefused, match=f"acme-l cannot be vouched for.*{words}"):
        pinned(parse_config(CONFIG))
    run = pinned(parse_config(CONFIG), simulated=True)
    assert words in doubts(run)[0]
    assert loaded(*run.extensions)() == 1.0
    offered()  # does not fail


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "leads to ''.*expected module:attribute"),
        (":l", "leads to ':l'.*expected module:attribute"),
        ("json:loads", "no file of acme-l"),
        ("acme_l.gone:l", "cannot be imported: ModuleNotFoundError"),
        ("acme_l:gone", "which is not there"),
    ],
)
def test_an_entry_point_that_leads_to_nothing_of_its_own_is_refused(
    site: Path, value: str, words: str
) -> None:
    info(site, "entry_points.txt").write_text(f"[wardround.losses]\nl = {value}\n")
    assert "acme-l/l" in here().names
    with pytest.raises(ExtensionRefused, match=words):
        loaded()


def test_a_package_that_others_may_share_is_refused_in_plain_words(site: Path) -> None:
    (site / "acme_l" / "__init__.py").rename(site / "acme_l" / "inner.py")
    points, record = info(site, "entry_points.txt"), info(site, "RECORD")
    points.write_text(points.read_text().replace("acme_l:", "acme_l.inner:"))
    record.write_text(record.read_text().replace("__init__", "inner"))
    with pytest.raises(ExtensionRefused, match=r"acme_l has no __init__\.py"):
        loaded()


@pytest.mark.processes
def test_a_program_ends_in_order_after_it_loaded_one(site: Path) -> None:
    code = (
        "from common.extensions.content import installed; from common.extensions.loading import *\n"
        "from common.extensions.contract import LossExtension\n"
        "pin = installed('acme-l').extension\n"
        "load([pin], 'losses', 'acme-l/l', LossExtension); import statistics, this\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
