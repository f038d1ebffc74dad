"""Who may import whom, what loads late, and how long files and functions may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "client", "server", "simulations")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

#: What each package may import of ours. `common` holds what both sides must agree on; a
#: simulation is both sides in one process.
MAY_IMPORT = {
    "common": {"common"},
    "client": {"client", "common"},
    "server": {"server", "common"},
    "simulations": {"simulations", "client", "server", "common"},
}
#: The only files that know Flower.
MAY_IMPORT_FLOWER = {
    "common/messages/flower_messages.py", "common/messages/flower_records.py", "client/transport/fleet_client.py",
    "client/transport/headers.py", "server/transport/runtime.py",
    "server/service/superlink.py", "server/aggregation/flower_strategy.py", "simulations/engines/flower_ray.py",
    "simulations/engines/flower_ray_site.py",
}  # fmt: skip
#: Loading these takes as long as small rounds do, so they load where they are used.
SLOW = {
    "dp_accounting", "flwr", "highdicom", "matplotlib", "monai", "onnx", "onnxruntime",
    "onnxscript", "opacus", "pandas", "scipy", "sklearn", "sksurv",
}  # fmt: skip
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 300, 50, 6


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level package of every import, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_runs_upward(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = set(imported(ast.parse(path.read_text(encoding="utf-8")))) & set(PACKAGES)
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_flower_is_imported_by_the_named_files_only(path: Path) -> None:
    knows = "flwr" in set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    assert not knows or name_of(path) in MAY_IMPORT_FLOWER


@pytest.mark.parametrize(
    "module", ["simulations.cli.app", "simulations.engines.in_process", "server.rounds.run_rounds", "client.cli.app"]
)
def test_a_command_starts_without_loading_a_slow_library(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert module.partition(".")[0] in loaded  # it did import something
    assert loaded & SLOW == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            taken = [a.arg for a in given if a.arg not in {"self", "cls"}]
            # A command's parameters are its options on the command line.
            command = any("command" in ast.unparse(d) for d in node.decorator_list)
            assert command or len(taken) <= MOST_PARAMETERS, f"{node.name} takes {taken}"


def test_no_file_is_named_after_nothing() -> None:
    names = {"utils", "helpers", "manager", "handler", "base", "misc"}
    assert [name_of(path) for path in FILES if path.stem in names] == []
