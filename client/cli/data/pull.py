"""`pull`: the cohort's images from the PACS into the data folder."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import typer

from client.labels.csv_text import KEYS
from client.labels.pacs_masks import RowMask
from client.pacs.arrival_batch import ArrivalNotes
from client.pacs.fsync import Flusher
from client.pacs.mask_links import link_masks
from client.pacs.pull import AtWork, Pulled, PullOrder, cannot_write, pull
from client.pacs.pull_queue import Counted, Queue
from client.pacs.pull_selection import wanted
from client.pacs.rate_limit import Pace
from client.site.home import Home
from client.site.pacs_section import PacsConfig
from client.site.plain_text import size
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say, table
from client.site.withdrawals import withdrawn
from common.platform.errors import CohortError, ConfigurationError, ExitCode, WardroundError

_TELL_SECONDS = 5.0
_MOST_NAMED = 20


def run(home: Home, *, as_json: bool) -> None:
    """Pull, and say what came, what is missing, and why; status 3 when something is missing."""
    site = load_site_config(home.site_yaml)
    if site.pacs is None:
        message = (
            f"{home.site_yaml} has no pacs, so there is nothing to pull from. Fill it in (docs/"
            "pacs.md says with what), or put the files in the data folder yourself."
        )
        raise ConfigurationError(message)
    if not site.data.is_dir():
        # Not made here: where a share should be mounted, it would fill the disk below.
        message = f"There is no folder {site.data}. Mount it, or make it: mkdir -p {site.data}"
        raise CohortError(message)
    order = PullOrder(
        pacs=site.pacs,
        data=site.data,
        wanted=wanted(site.pacs.select, site.labels_csv),
        withdrawn=withdrawn(home),
    )
    with Queue(home.pulls) as queue:
        watch = _Watch(queue, quiet=as_json)
        watch.say(f"Asking {_place(site.pacs)} for {len(order.wanted)} entries of the selection.")
        try:
            with watch, Flusher(queue) as flusher:
                notes = ArrivalNotes(queue=queue, flusher=flusher)
                done = pull(order, notes, Pace(site.pacs), watch.say)
        except KeyboardInterrupt:
            _stopped(queue, as_json=as_json)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except AtWork:
            raise
        except WardroundError:
            _stopped(queue, as_json=as_json)
            raise
        except OSError as error:  # flushing failed
            raise cannot_write(site.data, error) from error
    masks = link_masks(site.data, site.labels_csv, order.withdrawn)
    _say(done, masks, as_json=as_json)
    missing = done.counted.incomplete or done.counted.waiting
    raise typer.Exit(ExitCode.WRONG_DATA if missing else ExitCode.DONE)


@dataclass
class _Watch:
    """Says now and then how far it is, while inside a with statement."""

    queue: Queue
    quiet: bool
    over: threading.Event = field(default_factory=threading.Event)

    def say(self, text: str) -> None:
        typer.echo(as_text(text), err=True)

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        self._thread.join()

    def _tell(self) -> None:
        before, last = self.queue.counted().instances, time.monotonic()
        while not self.over.wait(_TELL_SECONDS):
            counted, now = self.queue.counted(), time.monotonic()
            rate = (counted.instances - before) / (now - last)
            before, last = counted.instances, now
            if counted.series and not self.quiet:
                self.say(f"  {_far(counted)}, {rate:.0f} images/s")


def _far(counted: Counted) -> str:
    of = f" of {counted.stated}" if counted.stated else ""
    return (
        f"{counted.complete} of {counted.series} series, {counted.instances}{of} images, "
        f"{size(counted.size)}"
    )


def _stopped(queue: Queue, *, as_json: bool) -> None:
    if not as_json:
        say(f"Stopped at {_far(queue.counted())}. `wardround-site pull` goes on from here.")


def _say(done: Pulled, masks: Sequence[RowMask], *, as_json: bool) -> None:
    counted = done.counted
    if as_json:
        say(json.dumps(_json(done, masks)))
        return
    say(f"Here: {_far(counted)}.")
    if counted.stated and counted.stated != counted.instances:
        say(f"The PACS states {counted.stated} images for these series.")
    if counted.incomplete:
        say("Incomplete (INCOMPLETE_SERIES), asked for again by the next pull:")
        table(
            [
                (f"  {s.modality}", as_text(s.series), as_text(told))
                for s, told in counted.incomplete
            ]
        )
    if done.unanswered:
        say(f"The PACS has nothing that fits {len(done.unanswered)} entries of the selection:")
        for one in done.unanswered[:_MOST_NAMED]:
            question = one.question
            why = f"   (not asked: {question.why_not_asked})" if question.why_not_asked else ""
            say(f"  {question.key or question.modality} {as_text(question.value)}{why}".rstrip())
        if len(done.unanswered) > _MOST_NAMED:
            say(f"  and {len(done.unanswered) - _MOST_NAMED} more (--json lists all)")
    _say_masks(masks)
    if not counted.series:
        say("Compare the table's keys, pacs.select, and `wardround-site doctor pacs`.")
    elif not counted.incomplete and not counted.waiting:
        say("Complete. Next: wardround-site index")


def _say_masks(masks: Sequence[RowMask]) -> None:
    if not masks:
        return
    lacking = [one for one in masks if one.why]
    say(f"Masks from the PACS: {len(masks) - len(lacking)} of {len(masks)} rows have one.")
    for one in lacking[:_MOST_NAMED]:
        say(as_text(f"  {' '.join(key for key in one.keys if key)}, {one.column}: {one.why}"))
    if len(lacking) > _MOST_NAMED:
        say(f"  and {len(lacking) - _MOST_NAMED} more (--json lists all)")


def _json(done: Pulled, masks: Sequence[RowMask]) -> dict[str, object]:
    counted = done.counted
    return {
        "series": counted.series,
        "complete": counted.complete,
        "waiting": counted.waiting,
        "images": counted.instances,
        "images_stated_by_pacs": counted.stated,
        "bytes": counted.size,
        "incomplete": [
            {"study": s.study, "series": s.series, "why": told} for s, told in counted.incomplete
        ],
        "masks": [
            {
                **dict(zip(KEYS, one.keys, strict=True)),
                "column": one.column,
                "file": one.file,
                "why": one.why,
            }
            for one in masks
        ],
        "nothing_found": [
            {
                "key": one.question.key,
                "value": one.question.value or one.question.modality,
                "not_asked": one.question.why_not_asked,
            }
            for one in done.unanswered
        ],
    }


def _place(pacs: PacsConfig) -> str:
    match pacs.route:
        case "dicomweb":
            return str(pacs.url)
        case "folder":
            return str(pacs.folder)
        case "c-get" | "c-move":
            return f"{pacs.called_title} at {pacs.host}:{pacs.port} ({pacs.route})"
