"""Process of one run.

    python -I -m common.platform.program_start server.processes.run_process FOLDER RUN

Started by the service with the token of the run's task; a run that was killed or stopped is started
again in the same way and goes on from its last saved round. Its exit status is one of
`common.platform.errors.ExitCode`; with TRY_AGAIN the service starts it again by itself.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from common.bundle.evidence import (
    calibration_json,
    calibration_of,
    confusion_json,
    confusion_of,
    survival_json,
    survival_of,
)
from common.config.run_config import RunConfig, load_config
from common.data.weight_files import take_weights_from
from common.messages.wire import StatisticsRequest
from common.platform.durable_files import is_for_want_of_room, replace_durably
from common.platform.errors import ExitCode, LinkDown, RunFailed, WardroundError
from common.platform.freed_memory import give_freed_memory_back, sort_out_what_stays
from server.aggregation.rules import aggregator_of
from server.enrolment.receipts import ReceiptStore
from server.enrolment.registry import Enrolment
from server.files.coordinator_yaml import load_settings
from server.files.folder import Folder, RunFolder
from server.files.status_writer import Board
from server.planning.measuring import measure_tests, measured
from server.rounds.cohort_asking import survey
from server.rounds.journal import Journal
from server.rounds.round_record import RoundRecord
from server.rounds.run_rounds import RunRecords, Sites, begin, run_rounds
from server.rounds.run_setting import RunSetting
from server.rounds.run_state import RunState, RunStore
from server.transport.flower_sites import FlowerSites
from server.transport.runtime import Runtime
from server.transport.turn import turn_of_this_process

#: The environment's name for the token of the run's task.
TASK_TOKEN = "WARDROUND_TASK_TOKEN"  # noqa: S105 - a name, not a token
#: The environment's name for the number of the service's process.
SERVICE = "WARDROUND_SERVICE"


@dataclass(frozen=True, kw_only=True)
class RunOrder:
    """What the service wants of this process: the file run.json."""

    run: str
    seed: int
    sites: tuple[str, ...]  # who may take part; empty: every accepted site
    waits: bool = False  # for every one of them, before the first round


class _Stopped(BaseException):
    """The service asks this process to stop."""


def main(folder: Folder, run: str) -> ExitCode:
    """Run to the end, or until it is stopped; the board says how it ended.

    What fails for want of room is tried again: somebody makes some, sooner or later.
    """
    try:
        return _main(folder, run)
    except Exception as error:
        if not is_for_want_of_room(error, folder.path):
            raise
        _log_line(f"{type(error).__name__}: {error}")
        return ExitCode.TRY_AGAIN


def _main(folder: Folder, run: str) -> ExitCode:
    place = folder.run(run)
    order, config = read_order(place), load_config(place.config)
    board = Board(
        path=place.status,
        run=run,
        rounds=config.training.rounds,
        quorum=config.aggregation.smallest_quorum,
        waits=order.waits,
        privacy=""
        if config.privacy == "none"
        else (f"Epsilon: of training, for each training patient. {measured(config)}"),
    )
    board.begin("starting", 0)
    runtime = connect(folder)
    succeeded, message = False, "stopped; resume goes on from the last saved round"
    try:
        runtime.begin()
        sort_out_what_stays()
        _rounds(folder, config, order, runtime, board)
        succeeded, message = True, f"all {config.training.rounds} rounds are done"
        board.end("done", message)
    except _Stopped:
        _tell_end(board, "stopped", message)
    except WardroundError as error:
        message = str(error)
        passes = isinstance(error, LinkDown) or is_for_want_of_room(error, folder.path)
        _tell_end(board, "failed", message)
        return ExitCode.TRY_AGAIN if passes else error.exit_code
    except OSError as error:
        passes = is_for_want_of_room(error, folder.path)
        where = f"{error.strerror}: {error.filename or place.path}."
        message = f"{where} Nothing saved before is lost{'.' if passes else '; resume it.'}"
        _tell_end(board, "failed", message)
        return ExitCode.TRY_AGAIN if passes else ExitCode.RUN_FAILED
    finally:
        runtime.finish(succeeded=succeeded, details=message[:500])
    return ExitCode.DONE if succeeded else ExitCode.INTERRUPTED


def _tell_end(board: Board, state: str, message: str) -> None:
    """Say how the run ended: on the board, and as the log's last line where the disk is full."""
    try:
        board.end(state, message)
    except OSError:
        _log_line(message)


def _log_line(text: str) -> None:
    """Write the log's last line past buffers: one that stays full changes the exit status."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def read_order(place: RunFolder) -> RunOrder:
    """Read run.json; RunFailed when it is not what the service writes."""
    try:
        facts = json.loads(place.run.read_bytes())
        return RunOrder(
            run=str(facts["run"]),
            seed=int(facts["seed"]),
            sites=tuple(facts.get("sites", ())),
            waits=bool(facts.get("waits", False)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{place.run} cannot be read: {error!r}. Start the run anew."
        raise RunFailed(message) from error


def connect(folder: Folder) -> Runtime:
    """Return the calls of the run whose token is in the environment."""
    settings = load_settings(folder.settings)
    return Runtime(
        settings.operator,
        folder.ca.read_text(encoding="ascii"),
        folder.token.read_text(encoding="ascii").strip(),
        os.environ[TASK_TOKEN],
    )


def _rounds(
    folder: Folder, config: RunConfig, order: RunOrder, runtime: Runtime, board: Board
) -> None:
    """Run the rounds and measure what came of them."""
    place, members = folder.run(order.run), members_of(folder, order.sites)

    def observe(record: RoundRecord) -> None:
        board.metrics = {n: dict(e.to_json()) for n, e in record.metrics.items()}
        for name, epsilon in record.epsilon.items():
            board.sites[name].epsilon = epsilon
            board.sites[name].common_epsilon = record.common_epsilon.get(name)
        for name, how in record.shortened.items():
            board.site(name, board.sites[name].state, how)
        board.begin("saving", record.round)

    setting = RunSetting(
        run=order.run,
        seed=order.seed,
        config=config,
        members=members,
        arriving=place.path / "arriving",
        receipts=ReceiptStore(folder.receipts),
        waits=order.waits,
    )
    sites = FlowerSites(runtime, setting, board, turn_of_this_process())
    aggregator = aggregator_of(config.aggregation, max(len(members()), 1), config.extensions)
    store, journal = RunStore(place.state), Journal(place.journal)

    def start() -> RunState:
        state = store.load() or begin(config, order.run, order.seed, aggregator)
        board.round = state.round
        return state

    if not place.cohort.exists():  # a run that is resumed asks for nothing that it has
        request = StatisticsRequest(run=order.run, round=0, seed=order.seed, config=config)
        survey(sites, request, place, journal)
    records = RunRecords(store=store, journal=journal, observe=observe)
    # No name here holds the first state: its weights would stay in memory through all rounds.
    state = run_rounds(config, sites, aggregator, start(), records)
    results = measure(config, sites, state)
    shutil.rmtree(setting.arriving, ignore_errors=True)
    content = json.dumps(results, allow_nan=False, indent=1).encode()
    replace_durably(place.results, content)
    sha256 = hashlib.sha256(content).hexdigest()
    journal.write("measured", {"round": state.best_round or state.round, "sha256": sha256})


def members_of(folder: Folder, wanted: Sequence[str]) -> Callable[[], dict[str, str]]:
    """Return what gives the public keys of accepted sites: all of them, or those wanted."""
    enrolment, names = Enrolment(folder.enrolment), set(wanted)

    def members() -> dict[str, str]:
        return {
            site.name: site.public_key
            for site in enrolment.sites()
            if site.state == "accepted" and (not names or site.name in names)
        }

    return members


def measure(config: RunConfig, sites: Sites, state: RunState) -> dict[str, object]:
    """Return the chosen weights' metrics on the sites' test patients, merged and by site."""
    told = measure_tests(config, sites, state)
    calibration, beside = [], {}
    if told.merged is not None:
        calibration = [calibration_json(c) for c in calibration_of(told.merged, config.task)]
        beside = confusion_json(confusion_of(told.merged, config))
        beside |= survival_json(survival_of(told.merged, config))
    last = state.history[-1] if state.history else None
    return {
        "schema": 1,
        "run": state.run,
        "configuration": state.fingerprint,
        "rounds": state.round,
        "chosen_round": state.best_round or state.round,
        "measuring": measured(config),
        "metrics": {n: dict(e.to_json()) for n, e in told.metrics.items()},
        "by_site": {
            site: {n: dict(e.to_json()) for n, e in found.items()}
            for site, found in told.by_site.items()
        },
        "calibration": calibration,
        **beside,
        "left_out": {r.site: r.fault.value for r in told.left_out},
        "epsilon": dict(last.epsilon) if last else {},
        "delta": dict(last.delta) if last else {},
        "common_epsilon": dict(last.common_epsilon) if last else {},
    }


def _on_stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


def end_with_the_service() -> None:
    """Have this process ended with the service, without which nobody answers it, also by now.

    It may have ended before this process could say so (Linux: prctl PR_SET_PDEATHSIG).
    """
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.environ.get(SERVICE, str(os.getppid())) != str(os.getppid()):
        raise SystemExit(ExitCode.INTERRUPTED)


def run(arguments: Sequence[str]) -> int:
    """Run the program."""
    give_freed_memory_back()
    signal.signal(signal.SIGTERM, _on_stop)
    signal.signal(signal.SIGINT, _on_stop)
    end_with_the_service()
    folder, name = Folder(Path(arguments[0])), arguments[1]
    take_weights_from(folder.weights)
    ended = main(folder, name)
    try:
        sys.stderr.flush()
    except OSError:  # the log's disk is full, and Python would end with a status of its own
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - it is the process's to its end
    return ended
