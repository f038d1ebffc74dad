"""What sites say to a proposal, asked without beginning a run, as a process of its own.

    python -m server.asking FOLDER NAME SECONDS < CONFIGURATION

Started by the service as a run is; writes one line of JSON: the headers of the answers that came
within so many seconds, or as soon as all connected sites have answered, and who was silent.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from common.config import RunConfig, parse_config
from common.message_headers import parts_of
from common.wire import Refusal, Standing
from server.app import connect, members_of
from server.board import Board
from server.flower_sites import FlowerSites
from server.folder import Folder
from server.setting import Setting


def ask(
    folder: Folder, name: str, config: RunConfig, seconds: float
) -> tuple[list[Standing | Refusal], list[str]]:
    """Return the answers, and the sites that are connected and have not answered; by name."""
    runtime = connect(folder)
    with tempfile.TemporaryDirectory(prefix="wardround-") as place:
        board = Board(path=Path(place) / "status.json", run=name, rounds=0, quorum=1)
        setting = Setting(
            run=name, seed=0, config=config, members=members_of(folder, ()),
            arriving=Path(place) / "arriving",
        )  # fmt: skip
        runtime.begin()
        sites = FlowerSites(runtime, setting, board)
        ends = time.monotonic() + seconds
        answers: dict[str, Standing | Refusal] = {}
        online: set[str] = set()
        while time.monotonic() < ends:
            online = set(sites.propose())
            answers = {**sites.approval.refusals, **sites.approval.standings}
            if online and online <= answers.keys():
                break
        runtime.finish(succeeded=True, details="")
    return [answers[site] for site in sorted(answers)], sorted(online - answers.keys())


if __name__ == "__main__":
    chosen, run, patience = Folder(Path(sys.argv[1])), sys.argv[2], float(sys.argv[3])
    said, silent = ask(chosen, run, parse_config(sys.stdin.read()).in_force(), patience)
    content = {"answers": [parts_of(answer)[0] for answer in said], "silent": silent}
    sys.stdout.write(json.dumps(content) + "\n")
