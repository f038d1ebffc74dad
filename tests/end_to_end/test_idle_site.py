"""A site between runs: what its daemon loads, and a worker that ends when it has no job."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.site.site_config import load_site_config, write_site_config
from tests.end_to_end.cohorts import table_config, write_tables
from tests.end_to_end.federation import Federation, SiteAt, federation
from tests.end_to_end.processes import until

pytestmark = pytest.mark.slow

#: Large, and of no use to a process that passes requests and answers on.
NEEDLESS = {
    *("fastapi", "matplotlib", "monai", "onnx", "onnxruntime", "opacus", "pandas", "pyarrow"),
    *("pydicom", "scipy", "sqlalchemy", "starlette", "torch", "torchvision", "uvicorn"),
}
#: Runs a command of the site's, and leaves which modules it had loaded at its end.
TELLING = """
import atexit, json, pathlib, sys
place = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: place.write_text(json.dumps(sorted(sys.modules))))
from client.cli.app import main
main()
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Federation]:
    with federation(tmp_path, write_tables(tmp_path / "data", ("east", "west"))) as found:
        yield found


def idle_minutes(site: SiteAt, minutes: float) -> None:
    config = load_site_config(site.home.site_yaml)
    changed = config.model_copy(update={"worker_idle_minutes": minutes})
    write_site_config(site.home.site_yaml, changed)


def test_an_idle_site_is_a_light_daemon_alone_and_every_request_wakes_its_worker(
    running: Federation, tmp_path: Path
) -> None:
    east = running.sites["east"]
    east.program.stop()
    modules = tmp_path / "modules.json"
    east.program.argv = [
        *(sys.executable, "-c", TELLING, str(modules)),
        *("start", "--home", str(east.home.folder)),
    ]
    running.start()
    # It ends before each request: a request comes while it ends, starts or is not there.
    idle_minutes(east, 0.0001)
    until(lambda: east.status.get("worker", {}).get("rests"), "the worker ends")
    assert east.worker is None
    assert "the next request starts it" in east.type("status")
    config = table_config(tmp_path, "idle", rounds=2)
    run = running.coordinator.run(config)
    assert run.end() == "done", run.message
    assert [sorted(r.updates) for r in run.result().history] == [["east", "west"]] * 2
    until(lambda: east.status.get("worker", {}).get("rests"), "the worker ends again")
    assert east.status["worker"]["restarts"] == 0  # none died
    assert east.program.stop() == 0
    loaded = {name.partition(".")[0] for name in json.loads(modules.read_text())}
    assert {"client", "httpx", "flwr"} <= loaded
    assert loaded & NEEDLESS == set()
