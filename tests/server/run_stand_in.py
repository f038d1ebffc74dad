"""Stands in for a run's process: does what the configuration's description says.

done | fail | hang | deaf (hangs and ignores SIGTERM) | die-N (kills itself N times) |
end-N (ends N times as if it had been told to) | lost-N (N times: the service lost it) |
save-N (kills itself N times, each time after it saved a round more) |
away (gives way until there is a file "come", then takes its turn and is done)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from common.config.run_config import load_config
from common.platform.durable_files import replace_durably
from common.platform.errors import ExitCode
from server.files.folder import Folder
from server.transport.turn import turn_of_this_process


def main(folder: Folder, run: str) -> int:
    place = folder.run(run)
    task = load_config(place.config).description
    tokens = place.path / "tokens"
    with tokens.open("a", encoding="ascii") as file:
        file.write(f"{os.environ['WARDROUND_TASK_TOKEN']} {os.environ['FLWR_TELEMETRY_ENABLED']}\n")
    starts = len(tokens.read_text(encoding="ascii").splitlines())
    status = {"state": "running", "round": 3, "message": "", "sentence": f"does {task}"}
    if task == "fail":
        status |= {"state": "failed", "message": "quorum not reached in round 3"}
    replace_durably(place.status, json.dumps(status).encode())
    print(f"{task} as {os.getpid()}", flush=True)  # noqa: T201 - into the run's log
    if task.startswith("die-") and starts <= int(task.removeprefix("die-")):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.startswith("save-") and starts <= int(task.removeprefix("save-")):
        place.state.mkdir(exist_ok=True)
        (place.state / f"round-{starts:05d}.json").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task.startswith("end-") and starts <= int(task.removeprefix("end-")):
        return ExitCode.INTERRUPTED
    if task.startswith("lost-") and starts <= int(task.removeprefix("lost-")):
        return ExitCode.TRY_AGAIN
    if task == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if task in {"hang", "deaf"}:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        (place.path / "ready").touch()
        time.sleep(60)
    if task == "away":
        be_away(place.path)
    if task == "crash":
        raise RuntimeError("a defect of ours")
    return ExitCode.RUN_FAILED if task == "fail" else ExitCode.DONE


def be_away(place: Path) -> None:
    turn = turn_of_this_process()
    turn.give_way()
    (place / "ready").touch()
    while not ((place / "come").exists() and turn.take({"north": 1}, 1)):
        time.sleep(0.02)


def _stop(*_: object) -> None:
    sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(Folder(Path(sys.argv[1])), sys.argv[2]))
