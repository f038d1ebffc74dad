"""What is installed is what was locked, and what is locked is what pyproject.toml asks for."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
sys.path.insert(0, str(LOCKS))
import lock  # noqa: E402 - a script beside the locks
import release  # noqa: E402 - the same

NAMES = (
    "torch",
    "torch-cpu",
    "torch-cuda",
    "site",
    "site-slim",
    "ocr",
    "omop",
    "pathology",
    "coordinator",
    "simulation",
    "dev",
)
PINNED = re.compile(r"(?m)^([A-Za-z0-9._-]+)==(\S+)")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(path: Path) -> dict[str, str]:
    return {plain(n): v for n, v in PINNED.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", NAMES)
def test_every_package_of_a_lock_has_a_version_and_hashes(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text(encoding="utf-8")
    blocks = [b for b in re.split(r"(?m)^(?=[a-z0-9])", text) if not b.startswith("#")]
    assert blocks
    assert all("==" in b and "--hash=sha256:" in b for b in blocks)
    assert "://" not in text


def test_the_locks_hold_what_is_asked_for_at_the_constraints_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints, torch = pinned(ROOT / "constraints.txt"), pinned(LOCKS / "torch.txt")
    extras = project["optional-dependencies"]
    for name in ("site", "ocr", "omop", "pathology", "coordinator", "simulation", "dev"):
        found = pinned(LOCKS / f"{name}.txt") | torch
        asked = [re.split(r"[\[<>=!; ]", line)[0] for line in project["dependencies"]]
        asked += [re.split(r"[\[<>=!; ]", line)[0] for line in extras[name]]
        missing = {plain(a) for a in asked} - set(found) - {"wardround"}
        assert not missing, f"type `make lock`: {name}.txt lacks {missing}"
        other = {n for n, v in found.items() if constraints.get(n, v) != v}
        assert not other, f"type `make lock`: {name}.txt has other versions of {other}"


def test_the_release_is_hashed_and_its_bill_names_every_package(tmp_path: Path) -> None:
    (tmp_path / "wardround-0.1.0-py3-none-any.whl").write_bytes(b"a wheel")
    release.main(tmp_path)
    for line in (tmp_path / "SHA256SUMS").read_text(encoding="ascii").splitlines():
        digest, name = line.split("  ")
        assert release.sha256(tmp_path / name) == digest
    bill = json.loads((tmp_path / "wardround-0.1.0.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    named = {(plain(c["name"]), c["version"]) for c in bill["components"]}
    for name in release.SHIPPED:
        assert set(pinned(LOCKS / f"{name}.txt").items()) <= named
    assert all(c["externalReferences"] for c in bill["components"])
    refs = [c["bom-ref"] for c in bill["components"]]
    assert len(refs) == len(set(refs))


#: Where a site imports what a slim installation lacks, by what is done there.
NEEDS_MORE = (
    *("client/inference", "client/outcomes", "client/pacs/receivers", "client/results"),
    "common/bundle",
)
#: Their modules, where the name is another.
MODULES = {"fhir-resources": "fhir", "python-dateutil": "dateutil", "pyjpegls": "jpeg_ls"}


def test_a_slim_site_lacks_nothing_by_which_it_takes_part_in_runs() -> None:
    left_out = {package for packages in lock.LEFT_OUT.values() for package in packages}
    whole, slim = pinned(LOCKS / "site.txt"), pinned(LOCKS / "site-slim.txt")
    assert left_out == set(whole) - set(slim)  # else: type `make lock`
    assert slim.items() <= whole.items()
    names = {MODULES.get(package, package).replace("-", "_") for package in left_out}
    needing = {
        path.relative_to(ROOT).as_posix()
        for room in ("client", "common")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported(node)
        if name in names
    }
    needing -= {"client/labels/table_files.py"}  # Parquet
    assert {path for path in needing if not path.startswith(NEEDS_MORE)} == set()


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [(node.module or "").partition(".")[0]] if isinstance(node, ast.ImportFrom) else []
