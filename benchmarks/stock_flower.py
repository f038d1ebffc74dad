"""The same rounds on Flower as it comes: its own SuperLink, SuperNodes and processes.

Nodes answer a model with itself, so what is measured is the way there and back. Only the way is
compared: nothing here is encrypted, signed or kept on disk.
"""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

from federation_processes import BIN, ENVIRONMENT, Processes, free_port, waited, whole_lines

_PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "stock"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.client:app"

[tool.flwr.app.config]
rounds = {rounds}
nodes = {nodes}
parameters = {parameters}
marks = "{marks}"
"""
_SERVER = """
import json, time
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

class Timed(FedAvg):
    def aggregate_train(self, server_round, replies):
        found = super().aggregate_train(server_round, replies)
        with open(self.marks, "a") as file:
            file.write(json.dumps(time.time()) + "\\n")
        return found

@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = Timed(
        fraction_evaluate=0.0,
        min_train_nodes=config["nodes"],
        min_available_nodes=config["nodes"],
    )
    strategy.marks = config["marks"]
    weights = ArrayRecord([np.zeros(config["parameters"], np.float32)])
    strategy.start(grid=grid, initial_arrays=weights, num_rounds=context.run_config["rounds"])
"""
_CLIENT = """
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(msg: Message, context: Context) -> Message:
    content = RecordDict({
        "arrays": msg.content["arrays"], "metrics": MetricRecord({"num-examples": 1})
    })
    return Message(content=content, reply_to=msg)
"""


def round_seconds(
    folder: Path, rounds: int, *, nodes: int = 2, parameters: int = 1000
) -> list[float]:
    """Return the seconds between the ends of so many rounds."""
    marks = folder / "marks"
    config = _PYPROJECT.format(rounds=rounds + 1, nodes=nodes, parameters=parameters, marks=marks)
    _write_app(folder / "app", config)
    home = folder / "home"
    home.mkdir()
    port = free_port()
    more = {"FLWR_HOME": str(home), "FLWR_DISABLE_UPDATE_CHECK": "1"}
    with Processes(folder / "out") as processes:
        processes.start(
            "superlink",
            [
                BIN / "flower-superlink",
                "--insecure",
                "--host",
                "127.0.0.1",
                "--port",
                port,
                "--disable-runtime-dependency-installation",
            ],
            more,
        )
        for number in range(nodes):
            processes.start(
                f"node-{number}",
                [
                    BIN / "flower-supernode",
                    "--insecure",
                    "--superlink",
                    f"127.0.0.1:{port}",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    free_port(),
                ],
                more,
            )
        (home / "config.toml").write_text(
            f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        _run(folder / "app", more)
        times = waited("Flower's rounds", lambda: _times(marks, rounds + 1), 400.0)
    return [after - before for before, after in pairwise(times)]


def _times(marks: Path, wanted: int) -> list[float] | None:
    found = [json.loads(line) for line in whole_lines(marks)] if marks.exists() else []
    return found if len(found) >= wanted else None


def _run(app: Path, more: dict[str, str]) -> None:
    """Ask for the run until the SuperLink answers."""

    def begun() -> bool | None:
        asked = subprocess.run(
            [BIN / "flwr", "run", app, "here"],
            env={**ENVIRONMENT, **more},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return asked.returncode == 0 or None

    waited("flwr run", begun)


def _write_app(folder: Path, config: str) -> None:
    package = folder / "stock"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(config)
    (package / "__init__.py").write_text("")
    (package / "server.py").write_text(_SERVER)
    (package / "client.py").write_text(_CLIENT)
