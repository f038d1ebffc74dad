"""The map of the code: which room may import which, and what must not be loaded early.

A room is a folder. Its `__init__` says what it is for, which of its modules others may import,
and which rooms it may import itself; here is checked that the code keeps to that.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "client", "server", "simulations", "wardround")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ROOMS = sorted({path.parent for path in FILES} - {ROOT / package for package in PACKAGES})

#: What each package may import of ours. `common` holds what both sides must agree on; a
#: simulation is both sides in one process, and `wardround` calls all of them for a notebook.
MAY_IMPORT = {
    "common": {"common"},
    "client": {"client", "common"},
    "server": {"server", "common"},
    "simulations": {"simulations", "client", "server", "common"},
    "wardround": {"wardround", "simulations", "client", "server", "common"},
}
#: The only files that know Flower.
MAY_IMPORT_FLOWER = {
    "common/messages/flower_messages.py",
    "common/messages/flower_records.py",
    "client/transport/fleet_client.py",
    "client/transport/headers.py",
    "server/transport/runtime.py",
    "server/service/calls/frequent_calls.py",
    "server/service/calls/object_files.py",
    "server/service/superlink.py",
    "server/service/task_leases.py",
    "server/aggregation/flower_strategy.py",
    "simulations/engines/flower_ray.py",
    "simulations/engines/flower_ray_site.py",
}
#: Loading these takes as long as small rounds do, so they load where they are used.
SLOW = {
    "dp_accounting",
    "flwr",
    "highdicom",
    "matplotlib",
    "monai",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "opacus",
    "pandas",
    "scipy",
    "sklearn",
    "sksurv",
}
#: A folder that holds more is a map that nobody reads.
MOST_MODULES = 20
#: Of rooms above rooms, from a site's files to its commands.
MOST_FLOORS = {"client": 8}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {dotted(path): path for path in FILES}


def imports(path: Path) -> Iterator[Path]:
    """Yield each file of ours that one imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (MODULES[alias.name] for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found = MODULES.get(f"{node.module}.{alias.name}") or MODULES.get(node.module)
                if found is not None:
                    yield found


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a room's `__init__` says of it."""

    purpose: str
    doors: frozenset[str]  # modules that other rooms import
    below: frozenset[str]  # rooms, or whole packages, that it may import


@functools.cache
def rules_of(room: Path) -> Rules:
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    lists = {
        head: re.search(rf"^{head}: (.+?)\.$", text, re.MULTILINE | re.DOTALL)
        for head in ("Imported from here", "May import")
    }
    doors, below = (
        frozenset() if found is None else frozenset(re.split(r",\s+", found.group(1)))
        for found in lists.values()
    )
    assert None not in lists.values(), f"{name_of(room)}/__init__.py names no lists"
    return Rules(purpose=text.partition("\n")[0], doors=doors, below=below)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_runs_upward(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported_packages(path) & set(PACKAGES) <= MAY_IMPORT[package]


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_a_room_imports_the_rooms_and_modules_that_are_said_and_no_others(room: Path) -> None:
    rules = rules_of(room)
    assert rules.purpose.endswith(".")
    used = set()
    for path in room.glob("*.py"):
        for other in imports(path):
            if other.parent in {room, *map(ROOT.joinpath, PACKAGES)}:
                continue
            where = dotted(other.parent)
            allowed = {where, where.partition(".")[0]} & rules.below
            assert allowed, f"{name_of(path)} imports {dotted(other)}"
            used |= allowed
            if other.name != "__init__.py":
                assert other.stem in rules_of(other.parent).doors, f"{name_of(path)}: {other.stem}"
    assert rules.below - {"nothing"} == used  # no permission that nobody needs


def test_the_python_api_imports_what_rooms_have_for_others() -> None:
    for path in (ROOT / "wardround").glob("*.py"):
        for other in imports(path):
            if other.parent in ROOMS and other.name != "__init__.py":
                assert other.stem in rules_of(other.parent).doors, f"{name_of(path)}: {other.stem}"


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_a_folder_holds_no_more_modules_than_a_reader_surveys(room: Path) -> None:
    assert len([path for path in room.glob("*.py") if path.stem != "__init__"]) <= MOST_MODULES


def floors(arrows: Mapping[Path, set[Path]]) -> dict[Path, int]:
    """Return each room's floor: one above the highest that it imports; AssertionError in a ring."""
    found: dict[Path, int] = {}

    def floor(room: Path, way: tuple[Path, ...]) -> int:
        assert room not in way, " -> ".join(map(name_of, (*way, room)))
        if room not in found:
            found[room] = 1 + max((floor(r, (*way, room)) for r in arrows[room]), default=0)
        return found[room]

    for room in arrows:
        floor(room, ())
    return found


def test_rooms_import_each_other_in_no_ring() -> None:
    arrows = {room: set[Path]() for room in ROOMS}
    for room in ROOMS:
        for path in room.glob("*.py"):
            arrows[room] |= {p.parent for p in imports(path)} & set(ROOMS) - {room}
    assert set(floors(arrows)) == set(ROOMS)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_rooms_of_a_package_stand_on_few_floors(package: str) -> None:
    top = {
        room: ROOT / package / room.relative_to(ROOT / package).parts[0]
        for room in ROOMS
        if room.is_relative_to(ROOT / package)
    }
    arrows = {room: set[Path]() for room in top.values()}
    for room, outer in top.items():
        for path in room.glob("*.py"):
            arrows[outer] |= {top[p.parent] for p in imports(path) if p.parent in top} - {outer}
    assert max(floors(arrows).values(), default=0) <= MOST_FLOORS.get(package, 8)


def test_a_ring_of_rooms_is_found() -> None:
    one, two, three = (ROOT / "client" / name for name in ("one", "two", "three"))
    assert floors({one: {two}, two: {three}, three: set()}) == {one: 3, two: 2, three: 1}
    with pytest.raises(AssertionError, match="one -> client/two -> client/one"):
        floors({one: {two}, two: {one}, three: set()})


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_flower_is_imported_by_the_named_files_only(path: Path) -> None:
    assert "flwr" not in imported_packages(path) or name_of(path) in MAY_IMPORT_FLOWER


@pytest.mark.processes
@pytest.mark.parametrize(
    "module",
    [
        "simulations.cli.app",
        "simulations.engines.in_process",
        "server.rounds.run_rounds",
        "client.cli.app",
        "wardround",
    ],
)
def test_a_command_starts_without_loading_a_slow_library(module: str) -> None:
    loaded = loaded_by(module)
    assert module.partition(".")[0] in loaded  # it did import something
    assert loaded & SLOW == set()


@pytest.mark.processes
@pytest.mark.parametrize("module", ["client.node.daemon", "server.service.serve"])
def test_what_only_passes_tensors_on_starts_without_torch(module: str) -> None:
    assert "torch" not in loaded_by(module)


@pytest.mark.processes
def test_a_sites_daemon_loads_no_library_of_a_server_and_none_that_computes() -> None:
    needless = {"fastapi", "pyarrow", "pydicom", "starlette", "torch", "torchvision", "uvicorn"}
    assert loaded_by("client.node.daemon") & (needless | SLOW - {"flwr"}) == set()


@pytest.mark.processes
def test_commands_that_only_read_and_decide_load_nothing_slow() -> None:
    commands = (
        *("approve", "budget", "disclosures", "doctor", "extensions", "init", "join", "pause"),
        *("records", "refuse", "report", "resume", "runs", "service", "status", "withdraw"),
        *("data.index", "models.listen"),
    )
    loaded = loaded_by(", ".join(f"client.cli.{command}" for command in commands))
    assert loaded & (SLOW | {"fastapi", "numpy", "pydicom", "torch"}) == set()


def loaded_by(modules: str) -> set[str]:
    """Return the packages that a process has loaded after it imported these modules."""
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_only_rooms_that_make_tasks_know_which_there_are() -> None:
    own = {ROOT / "common" / room for room in ("config", "config/tasks", "extensions", "tasks")}
    tasks = {
        *("DiagnosisTask", "PrognosisTask", "SegmentationTask", "RegressionTask", "ExtensionTask"),
        *("Diagnosis", "Survival", "FixedHorizon", "Segmentation", "Regression"),
        "ExtensionClasses",
    }
    naming = {
        name_of(path)
        for path in FILES
        if path.parent not in own
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and tasks & {alias.name for alias in node.names}
    }
    assert naming == set()


def test_no_file_is_named_after_nothing() -> None:
    names = {"utils", "helpers", "manager", "handler", "base", "misc"}
    assert [name_of(path) for path in FILES if path.stem in names] == []


def test_no_public_class_name_stands_for_two_things() -> None:
    names = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in names.items() if times > 1] == []
