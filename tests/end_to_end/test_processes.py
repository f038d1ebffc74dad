"""What each process of a federation loads, and from where; a worker that ends when idle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.site.site_config import load_site_config, write_site_config
from tests.end_to_end.cohorts import table_config, write_tables
from tests.end_to_end.federation import Coordinator, Federation, SiteAt
from tests.end_to_end.processes import BIN, Program, python_with, until

pytestmark = pytest.mark.slow

NAMES = ("east", "west")
COMMANDS = ("wardround-coordinator", "wardround-simulate", "wardround-site")
#: Large, and of no use to a process that passes requests and answers on.
NEEDLESS = {
    *("fastapi", "matplotlib", "monai", "onnx", "onnxruntime", "opacus", "pandas", "pyarrow"),
    *("pydicom", "scipy", "sqlalchemy", "starlette", "torch", "torchvision", "uvicorn"),
}
#: Whoever starts a program has a folder of these in PYTHONPATH, and stands in it.
SHADOWS = (
    *("client", "common", "server", "simulations", "wardround"),  # ours
    *("flwr", "httpx", "numpy", "pydantic", "torch", "typer", "yaml"),  # others'
    *("json", "random", "statistics", "tempfile"),  # Python's own
)
#: Leaves, at the end of a program, which modules it had loaded.
TELLING = """
import atexit, os, sys
def tell():
    import json, pathlib
    pathlib.Path(os.environ["TELL_MODULES"]).write_text(json.dumps(sorted(sys.modules)))
if "TELL_MODULES" in os.environ and "start" in sys.orig_argv:
    atexit.register(tell)
"""


@dataclass(frozen=True)
class Setting:
    """A federation whose programs stand in a folder that is full of shadows."""

    federation: Federation
    folder: Path
    shadowed: dict[str, str]  # the environment
    hits: Path  # what was taken from there


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    path = tmp_path_factory.mktemp("processes")
    hits, shadows = path / "hits", path / "shadows"
    shadows.mkdir()
    for name in SHADOWS:
        told = f"open({str(hits)!r}, 'a').write({name!r} + chr(10))\n"
        (shadows / f"{name}.py").write_text(f"{told}raise ImportError('a shadow')\n")
    shadowed = {"PYTHONPATH": str(shadows)}
    federation = Federation(Coordinator.made(path / "coordinator"), {})
    program = federation.coordinator.program
    program.more, program.folder = shadowed, shadows
    try:
        federation.coordinator.start()
        federation.enrol(path, write_tables(path / "data", NAMES))
        for site in federation.sites.values():
            site.program.more, site.program.folder = dict(shadowed), shadows
        yield Setting(federation, shadows, shadowed, hits)
    finally:
        federation.stop()


def idle_minutes(site: SiteAt, minutes: float) -> None:
    config = load_site_config(site.home.site_yaml)
    changed = config.model_copy(update={"worker_idle_minutes": minutes})
    write_site_config(site.home.site_yaml, changed)


def test_an_idle_site_is_a_light_daemon_alone_and_every_request_wakes_its_worker(
    setting: Setting, tmp_path: Path
) -> None:
    running, east = setting.federation, setting.federation.sites["east"]
    own = setting.folder.parent
    modules = own / "modules.json"
    (own / "telling").mkdir()
    (own / "telling" / "telling.pth").write_text("import telling\n")
    (own / "telling" / "telling.py").write_text(TELLING)
    east.program.more["TELL_MODULES"] = str(modules)
    east.program.argv = [str(python_with(own / "environment", own / "telling")), *east.program.argv]
    running.start()
    # It ends after each answer: a request comes while it ends, starts or is not there.
    idle_minutes(east, 0.0001)
    until(lambda: east.status.get("worker", {}).get("rests"), "the worker ends")
    assert east.worker is None
    assert "the next request starts it" in east.type("status")
    run = running.coordinator.run(table_config(tmp_path, "idle", rounds=2))
    assert run.end() == "done", run.message
    assert [sorted(r.updates) for r in run.result().history] == [[*NAMES]] * 2
    until(lambda: east.status.get("worker", {}).get("rests"), "the worker ends again")
    assert east.status["worker"]["restarts"] == 0  # none died
    assert east.program.stop() == 0
    loaded = {name.partition(".")[0] for name in json.loads(modules.read_text())}
    assert {"client", "httpx", "flwr"} <= loaded
    assert loaded & NEEDLESS == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_nothing_from_where_its_user_stands(setting: Setting, command: str) -> None:
    shown = Program([str(BIN / command), "--help"], setting.folder.parent / command)
    shown.more, shown.folder = setting.shadowed, setting.folder
    shown.start()
    assert shown.process.wait(60) == 0, shown.text()
    assert "Usage" in shown.text()


def test_no_process_of_a_run_takes_anything_from_where_its_user_stood(
    setting: Setting, tmp_path: Path
) -> None:
    """Service, daemons, workers, what asks for descriptions, and the run."""
    setting.federation.start()
    config = table_config(tmp_path, "elsewhere", rounds=1)
    setting.federation.coordinator.type("cohorts", str(config))
    run = setting.federation.coordinator.run(config)
    assert run.end() == "done", run.message
    assert not setting.hits.exists(), setting.hits.read_text()
