"""A site that is killed at one statement after another; prints what it charged and released.

Each death is a forked copy of this process that sends itself SIGKILL when it comes to its
statement of ledger, round or release. One line of JSON a death.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import torch

from client.privacy import ledger
from client.privacy.ledger import Ledger, Limit
from client.training import local_round as training
from client.training import private_round
from client.training.local_model import LocalModel, open_local_model
from client.training.training_site import Guard, Site
from common.config.run_config import parse_config
from common.messages.wire import TrainRequest
from common.models.run_network import initial_weights
from common.privacy.noise import ChaChaNoise
from tests.privacy.made_up import patients_of

CONFIG = parse_config("""
name: dying
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}, {column: crp}]}}
model: {network: table}
training: {rounds: 2, optimizer: sgd, learning_rate: 0.1}
privacy: {unit: patient, epsilon: 2.0, default_patients: 20, delta: 0.001}
personalisation: {method: none}
""")
WATCHED = {module.__file__ for module in (ledger, private_round, training)} | {__file__}


def release(folder: Path) -> None:
    """Train one private round and write down what leaves the site."""
    local_model = _BENCH
    site = Site(
        name="here",
        train=_PATIENTS,
        validation=_PATIENTS,
        test=_PATIENTS,
        guard=Guard(
            ledger=Ledger(folder / "ledger.db"),
            limit=Limit(epsilon=1000.0, delta=0.001),
            cohort="patients",
            noise=ChaChaNoise(),
        ),
    )
    request = TrainRequest(
        run="run", round=1, seed=0, config=CONFIG, weights=initial_weights(CONFIG, 0)
    )
    update = training.train_round(site, local_model, request)
    (folder / "released").write_text(repr(update))
    sys.settrace(None)


def die_at(statement: int) -> None:
    """Kill this process when it comes to this statement of the watched files."""
    left = statement

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]  # the stubs know no recursive type


def one_death(folder: Path, statement: int) -> dict[str, int]:
    """Return how a copy of this process died at a statement, and what it left behind."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folder.with_name("empty"), folder)
    child = os.fork()
    if child == 0:
        die_at(statement)
        release(folder)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
        "charged": len(Ledger(folder / "ledger.db").history("patients")),
        "released": int((folder / "released").exists()),
    }


def main() -> None:
    """Die at every statement in turn until one copy lives to the end."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) / "site"
    Ledger(folder.with_name("empty") / "ledger.db")
    release(folder)  # what is slow is loaded once
    for statement in range(10_000):
        death = one_death(folder, statement)
        sys.stdout.write(json.dumps(death) + "\n")
        if death["signal"] == 0:
            return


_BENCH: LocalModel = open_local_model(CONFIG, 0)
_PATIENTS = patients_of((1,) * 12, image=(0,))

if __name__ == "__main__":
    main()
