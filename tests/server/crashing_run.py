"""Run, be killed with SIGKILL at every touch of the disk and every call of a site, resume.

    python tests/server/crashing_run.py FOLDER STRIDE CONFIGURATION

Each run is a process of its own, forked so that libraries load once. An audit hook counts
what the interpreter reports (open, rename, remove in the run's folder, calls of sites) and
kills the process before the n-th. Prints one JSON line: how many runs were killed, and what
differed after they were resumed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.config.run_config import RunConfig
from common.data.weights import fingerprint
from server.rounds.journal import Journal
from server.rounds.run_rounds import RunRecords, run_rounds
from server.rounds.run_state import RunState, RunStore
from tests.server.hospitals import FakeSites, config_of, start

EVENTS = {"open", "os.rename", "os.remove", "os.truncate", "wardround.train", "wardround.evaluate"}


def main(folder: Path, stride: int, configuration: str) -> None:
    """Kill a run before each event (or each `stride`-th), resume it, compare."""
    torch.set_num_threads(1)
    config = config_of(configuration, rounds=3, training=", average: 0.5")
    start(config)  # loads what the rule needs, once for all children
    expected = _in_child(config, folder / "whole", None)
    killed, wrong = 0, []
    for event in itertools.count(0, stride):
        place = folder / f"killed-{event}"
        if _in_child(config, place, event) is not None:
            break  # it has fewer events than that: it ended
        killed += 1
        found = _in_child(config, place, None)
        if found != expected:
            wrong.append({"event": event, "found": found})
    print(json.dumps({"killed": killed, "wrong": wrong[:3], "expected": expected}))  # noqa: T201


def _in_child(config: RunConfig, folder: Path, die_at: int | None) -> object:
    """Begin or resume the run in a process of its own; None when it was killed."""
    child = os.fork()
    if child == 0:
        if die_at is not None:
            _die_before(folder, die_at)
        try:
            result = _run(config, folder)
            folder.with_suffix(".json").write_text(json.dumps(result))
        except BaseException as error:  # noqa: BLE001 - a child must never return into the parent
            folder.with_suffix(".json").write_text(json.dumps(repr(error)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    found: object = json.loads(folder.with_suffix(".json").read_text())
    return found


def _die_before(folder: Path, number: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in EVENTS:
            return
        if event.startswith("wardround.") or str(arguments[0]).startswith(f"{folder}/"):
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)


def _run(config: RunConfig, folder: Path) -> dict[str, object]:
    store = RunStore(folder / "state")
    journal = Journal(folder / "journal.jsonl", clock=lambda: "now")
    aggregator, first = start(config)
    records = RunRecords(store=store, journal=journal)
    state = run_rounds(
        config, FakeSites(folder / "sites"), aggregator, store.load() or first, records
    )
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    return {
        "bits": _digest(state),
        "read back": _digest(RunStore(folder / "state").load() or first),
        "lines": dict(Counter(str(x["round"]) for x in lines if x["event"] == "round")),
        "files": sorted(path.name for path in (folder / "state").iterdir()),
    }


def _digest(state: RunState) -> str:
    parts = (state.weights, state.server, state.average, state.best)
    history = [record.to_json() for record in state.history]
    text = json.dumps([state.round, state.best_round, state.best_score, history], sort_keys=True)
    return hashlib.sha256(("".join(map(fingerprint, parts)) + text).encode()).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
