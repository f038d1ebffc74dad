"""The worker process: keeps torch, network and cohort loaded between rounds.

    python -I -m common.platform.program_start client.node.worker HOME [FEDERATION]

Reads one JSON line a job from standard input and writes one a result to standard output; what
anything else prints goes to standard error. Nothing but answers in files leaves this process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TextIO

from client.cohort_statistics.description import Telling
from client.governance.records_check import SiteRecords
from client.node.failure_place import failure_place
from client.node.progress import WorkProgress
from client.node.request_handler import RequestHandler, SiteContext, refusal
from client.site.home import Home
from client.site.site_config import SiteConfig
from client.training.device import device_of
from client.transport.coordinator import known_as
from client.transport.outbox import Outbox
from common.data.weight_files import take_weights_from
from common.messages.packing import Encoding
from common.messages.signed_envelope import Envelope, read_envelope, seal, unseal
from common.messages.signing_key import load_private, sign
from common.messages.wire import (
    Answer,
    Proposal,
    Refusal,
    RefusalReason,
    Request,
    SiteUpdate,
    TrainRequest,
)
from common.platform.durable_files import is_for_want_of_room, room_left
from common.platform.errors import AnswerNotAdmitted, StateDamaged

_GIB = 1 << 30
#: For the ledger, its journal, records and logs.
_SPARE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request to be answered."""

    request: Path  # an envelope
    question: str  # SHA-256 of the request, in hex: the answer's name in the outbox


def main(home: Home, jobs: TextIO, results: TextIO) -> None:
    """Answer jobs until the daemon closes the pipe."""
    config = known_as(home)
    take_weights_from(home.weights)
    limit_memory(config.memory_gib)
    tell = _teller(sys.stderr)
    handler = RequestHandler(site_context(home, config), tell)
    outbox, key = Outbox(home.outbox), load_private(home.key)
    say = _sayer(results)
    WorkProgress().watch(lambda count: say({"progress": count}))
    say({"ready": os.getpid()})
    for line in jobs:
        facts = json.loads(line)
        job = Job(request=Path(facts["request"]), question=facts["question"])
        start = time.monotonic()
        try:
            request = read_request(job.request)
        except (AnswerNotAdmitted, StateDamaged) as error:
            say({"unreadable": job.question, "why": str(error)})
            continue
        say({"working": job.question})
        answer = without_room(request, config.name, home, tell) or answered(
            handler, request, config.name, tell, tell_failures=config.policy.tell_failures
        )
        envelope = seal(answer, _encoding(request, answer))
        try:
            outbox.keep(job.question, envelope.signed(sign(key, envelope.digest)))
        except OSError as error:
            # A full disk is no fault of the request, which may be asked again.
            tell(f"Run {request.run}, round {request.round}: its answer cannot be kept: {error!r}")
            full = is_for_want_of_room(error, home.outbox)
            say({"unkept": job.question, "why": str(error), "full": full})
            continue
        say({"done": job.question, "seconds": time.monotonic() - start})


def _sayer(results: TextIO) -> Callable[[Mapping[str, object]], None]:
    """Return what writes one line at a time, from whichever thread."""
    turn = threading.Lock()

    def say(facts: Mapping[str, object]) -> None:
        with turn:
            results.write(json.dumps(facts) + "\n")
            results.flush()

    return say


def read_request(path: Path) -> Request:
    """Read a request from its file; AnswerNotAdmitted when it is something else."""
    envelope: Envelope = read_envelope(path)
    message = unseal(envelope.header, envelope.frames)
    if not isinstance(message, Request):
        text = f"The coordinator sent a {type(message).__name__}, expected a request."
        raise AnswerNotAdmitted(text)
    return message


def answered(
    handler: RequestHandler,
    request: Request,
    site: str,
    tell: Callable[[str], None],
    *,
    tell_failures: bool | Literal["without_privacy"] = "without_privacy",
) -> Answer:
    """Return the answer; what goes wrong is told here, and leaves as far as the policy allows."""
    try:
        return handler.answer(request)
    except Exception as error:  # noqa: BLE001 - a bad request must not end the worker
        place = failure_place(error)
        tell(f"Run {request.run}, round {request.round} failed here: {error!r} ({place})")
        if is_for_want_of_room(error):
            return refusal(request, site, RefusalReason.NO_ROOM)
        no = refusal(request, site, RefusalReason.FAILED)
        public = request.config.privacy == "none"
        tells = public if tell_failures == "without_privacy" else tell_failures
        return replace(no, place=place) if tells else no


def without_room(
    request: Request, site: str, home: Home, tell: Callable[[str], None]
) -> Refusal | None:
    """Refuse before anything is charged where there is no room to keep what would be charged for.

    An answer is no larger than its request, and stays until its round is over.
    """
    weights = request.weights if isinstance(request, TrainRequest) else {}
    needed = _SPARE_BYTES + 2 * sum(value.nbytes for value in weights.values())
    left = min(room_left(place) for place in (home.folder, home.outbox, home.ledger))
    if left >= needed:
        return None
    tell(
        f"Run {request.run}, round {request.round}: {left / 1e6:.1f} MB are free below "
        f"{home.folder}, expected {needed / 1e6:.1f} MB. Free some space; it goes on by itself."
    )
    return refusal(request, site, RefusalReason.NO_ROOM)


def _encoding(request: Request, answer: Answer) -> Encoding:
    """Return how the answer is packed; SCAFFOLD's control variates add up, so they stay exact."""
    lossy = isinstance(answer, SiteUpdate) and answer.control_delta is None
    if isinstance(request, Proposal) or not lossy:
        return "lossless"
    return request.config.exchange.encoding


def site_context(home: Home, config: SiteConfig) -> SiteContext:
    """Return where everything is, as the site's configuration says."""
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    policy = config.policy
    return SiteContext(
        name=config.name,
        data=config.data,
        labels=config.labels_csv,
        cache=home.cache,
        memory=home.memory,
        ledger=home.ledger,
        answers=home.answers,
        withdrawals=home.withdrawals,
        index=home.index,
        quality=config.quality,
        aliases=config.series_aliases,
        telling=Telling(
            smallest_cell=policy.smallest_cell,
            noise=policy.statistics_noise if policy.statistics else 0.0,
        ),
        largest_epsilon=policy.largest_epsilon_per_cohort,
        cohort_delta=policy.cohort_delta,
        tell_patients=policy.tell_patients,
        device=device_of(config.device),
        identity_key=home.identity_key,
        trained=home.trained,
        records=SiteRecords(home),
        runs_at_once=config.runs_at_once,
    )


def limit_memory(gib: float | None) -> None:
    """Let the system refuse this process more memory than that."""
    if gib is not None:
        size = int(gib * _GIB)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _teller(stream: TextIO) -> Callable[[str], None]:
    def tell(text: str) -> None:
        print(text, file=stream, flush=True)

    return tell


def run(arguments: Sequence[str]) -> int:
    """Run the program."""
    # Whatever prints shall not be taken for a result.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(Home(Path(arguments[0]), *arguments[1:]), sys.stdin, channel)
    return 0
