"""Process that asks sites about a proposal without beginning a run.

    python -I -m common.platform.program_start server.processes.ask_process \
        FOLDER NAME SECONDS SEED [cohorts] < CONFIGURATION

Started by the service as a run is; writes one line of JSON: the headers of the answers that came
within so many seconds, or as soon as all connected sites have answered, and who was silent. With
`cohorts`, sites that would take part are asked to describe theirs, too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.config.run_config import RunConfig, parse_config
from common.messages.message_header import parts_of
from common.messages.wire import Refusal, Standing, StatisticsRequest
from server.enrolment.receipts import ReceiptStore
from server.files.folder import Folder
from server.files.status_writer import Board
from server.processes.run_process import connect, end_with_the_service, members_of
from server.rounds.cohort_asking import gathered
from server.rounds.cohort_survey import Survey
from server.rounds.run_setting import RunSetting
from server.transport.flower_sites import FlowerSites


def ask(
    folder: Folder,
    name: str,
    config: RunConfig,
    seconds: float,
    *,
    seed: int = 0,
    cohorts: bool = False,
) -> tuple[list[Standing | Refusal], list[str], Survey | None]:
    """Return the answers, the sites that are connected and have not answered, and the cohorts."""
    runtime = connect(folder)
    with tempfile.TemporaryDirectory(prefix="wardround-") as place:
        board = Board(path=Path(place) / "status.json", run=name, rounds=0, quorum=1)
        setting = RunSetting(
            run=name,
            seed=seed,
            config=config,
            members=members_of(folder, ()),
            arriving=Path(place) / "arriving",
            receipts=ReceiptStore(folder.receipts),
        )
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
        silent = sorted(online - answers.keys())
        found = _described(sites, setting, answers, silent) if cohorts else None
        runtime.finish(succeeded=True, details="")
    return [answers[site] for site in sorted(answers)], silent, found


def _described(
    sites: FlowerSites,
    setting: RunSetting,
    answers: Mapping[str, Standing | Refusal],
    silent: Sequence[str],
) -> Survey:
    """Return what the sites that would take part say of their cohorts, and why others do not."""
    request = StatisticsRequest(run=setting.run, round=0, seed=setting.seed, config=setting.config)
    ready = sorted(site for site, answer in answers.items() if isinstance(answer, Standing))
    found = gathered(sites.describe(request, ready), request, ready)
    others = {s: a.told for s, a in answers.items() if isinstance(a, Refusal)}
    others |= dict.fromkeys(silent, "no answer yet: it may be reading its images")
    return replace(found, not_told={**found.not_told, **others})


def run(arguments: Sequence[str]) -> int:
    """Run the program."""
    end_with_the_service()
    folder, name, patience, seed, *more = arguments
    wanted = parse_config(sys.stdin.read()).in_force()
    said, quiet, survey = ask(
        Folder(Path(folder)),
        name,
        wanted,
        float(patience),
        seed=int(seed),
        cohorts="cohorts" in more,
    )
    content = {"answers": [parts_of(answer)[0] for answer in said], "silent": quiet}
    if survey is not None:
        content["cohorts"] = [json.dumps(survey.to_json(), allow_nan=False)]
    sys.stdout.write(json.dumps(content) + "\n")
    return 0
