"""The daemon's folder: each of its files is named here once."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from common.platform.errors import ConfigurationError

#: Names the folder for commands that are given none.
VARIABLE = "WARDROUND_SITE"
#: The federation that a home without others serves, and where the others lie.
FIRST = "first"
_OTHERS = "federations"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
#: Files of a folder of measurements: the table, and the page to read, which names patients.
MEASURED_TABLE, MEASURED_PAGE = "labels.csv", "measurements.html"


@dataclass(frozen=True)
class Home:
    """A site's own folder; its images and labels lie elsewhere and are only read.

    It may serve several federations, whose coordinators know nothing of each other. Each but the
    first has a folder of its own below, for whom it is in touch with, what was approved and told
    there, and what it remembers of runs. The patients are the same: ledger, withdrawals, the key
    that splits patients, policy, pause, index and cache are one for all.
    """

    folder: Path
    federation: str = FIRST  # which of them is meant

    @classmethod
    def chosen(cls, given: Path | None) -> Home:
        """Return the home that was given, else the one of the environment, else ~'s."""
        if given is not None:
            return cls(given.expanduser().absolute())
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else Path.home() / ".wardround" / "site")

    @property
    def own(self) -> Path:
        """The folder of what one federation has for itself."""
        return self.folder if self.federation == FIRST else self.folder / _OTHERS / self.federation

    def of(self, federation: str) -> Home:
        """Return this home as another federation sees it; ConfigurationError for no name."""
        if not _NAME.fullmatch(federation):
            message = (
                f"{federation!r} is no name of a federation: lower-case letters, digits and "
                "hyphens, at most 63, e.g. lung-study."
            )
            raise ConfigurationError(message)
        return replace(self, federation=federation)

    def federations(self) -> tuple[Home, ...]:
        """Return the home of each federation that there is or was, the first one first."""
        others = self.folder / _OTHERS
        names = sorted(p.name for p in others.iterdir()) if others.is_dir() else []
        return tuple(replace(self, federation=n) for n in (FIRST, *filter(_NAME.fullmatch, names)))

    def joined(self) -> tuple[Home, ...]:
        """Return the home of each federation that the site belongs to now."""
        return tuple(one for one in self.federations() if one.coordinator_json.exists())

    def one(self, federation: str | None) -> Home:
        """Return the home of the federation that is named, or of the only one.

        ConfigurationError where several could be meant, or none is called so.
        """
        joined = self.joined()
        known = ", ".join(one.federation for one in joined)
        if federation is None and len(joined) > 1:
            message = f"This home serves several federations. Name one with --federation: {known}"
            raise ConfigurationError(message)
        if federation is None:
            return joined[0] if joined else self
        if federation not in {one.federation for one in joined}:
            message = f"This home serves no federation {federation!r}; it serves {known or 'none'}."
            raise ConfigurationError(message)
        return self.of(federation)

    @property
    def site_yaml(self) -> Path:
        """What the site's admin has decided: data, device, hours, policy."""
        return self.folder / "site.yaml"

    @property
    def weights(self) -> Path:
        """Files of public weights that runs begin from, named by their SHA-256."""
        return self.folder / "weights"

    @property
    def key(self) -> Path:
        """The site's private key, which never leaves."""
        return self.own / "key"

    @property
    def public_key(self) -> Path:
        """The public half, which the coordinator knows the site by."""
        return self.own / "key.pub"

    @property
    def next_key(self) -> Path:
        """A new key that the coordinator has perhaps not accepted yet."""
        return self.own / "key.next"

    @property
    def rotations(self) -> Path:
        """The last changes of the key, as the old keys signed them."""
        return self.own / "rotations.jsonl"

    @property
    def coordinator_json(self) -> Path:
        """Which coordinator the site joined, and as what."""
        return self.own / "coordinator.json"

    @property
    def coordinator_pem(self) -> Path:
        """The certificate of the coordinator's authority, the only one that is trusted."""
        return self.own / "coordinator.pem"

    @property
    def notice(self) -> Path:
        """The coordinator's last notice of a move, as its authority signed it."""
        return self.own / "notice.json"

    @property
    def approvals(self) -> Path:
        """Which runs were proposed, and what the admin said."""
        return self.own / "approvals.db"

    @property
    def decided(self) -> Path:
        """One line for each change of what was decided: policy, pause, approvals."""
        return self.own / "decided.jsonl"

    @property
    def ledger(self) -> Path:
        """The privacy that was spent."""
        return self.folder / "ledger.db"

    @property
    def answers(self) -> Path:
        """What was told of patients by counts: each thing once."""
        return self.own / "answers.db"

    @property
    def records(self) -> Path:
        """Where ledger, withdrawals, decisions and disclosures stood, to notice old copies."""
        return self.own / "records.json"

    @property
    def disclosures(self) -> Path:
        """One line for each message that left."""
        return self.own / "disclosures.jsonl"

    @property
    def inbox(self) -> Path:
        """Requests that came and are not answered yet."""
        return self.own / "inbox"

    @property
    def kept(self) -> Path:
        """Objects of the last large requests, beside the inbox."""
        return self.own / "kept"

    @property
    def quarantine(self) -> Path:
        """Requests that ended the worker, counted and set aside."""
        return self.own / "quarantine"

    @property
    def outbox(self) -> Path:
        """Answers that the coordinator has not confirmed yet."""
        return self.own / "outbox"

    @property
    def memory(self) -> Path:
        """What the site keeps of a run from round to round."""
        return self.own / "memory"

    @property
    def cache(self) -> Path:
        """Prepared images; it may be deleted while the daemon is stopped."""
        return self.folder / "cache"

    @property
    def index(self) -> Path:
        """Patients, studies, series and instances that were found, and what is quarantined."""
        return self.folder / "index.db"

    @property
    def pulls(self) -> Path:
        """Which series are to be fetched from the PACS, and how far that is."""
        return self.folder / "pulls.db"

    @property
    def arrivals(self) -> Path:
        """Which studies arrived to be scored, and what became of them."""
        return self.folder / "arrivals.db"

    @property
    def arrived(self) -> Path:
        """Images that were sent here to be scored; they go some time after that."""
        return self.folder / "arrived"

    @property
    def withdrawals(self) -> Path:
        """Patients who were withdrawn, for good."""
        return self.folder / "withdrawals.jsonl"

    @property
    def identity_key(self) -> Path:
        """The key that replaces identifiers in what leaves and splits patients; it never does."""
        return self.folder / "identity.key"

    @property
    def trained(self) -> Path:
        """Whom each run trained on, by hash, so that nobody of them calibrates its model."""
        return self.folder / "trained"

    @property
    def calibration(self) -> Path:
        """What `calibrate` fitted for each model."""
        return self.folder / "calibration"

    @property
    def report(self) -> Path:
        """The readiness report."""
        return self.folder / "report"

    @property
    def results(self) -> Path:
        """What models said of studies, as it was written and sent."""
        return self.folder / "results"

    @property
    def measurements(self) -> Path:
        """What was measured in outlines: a table, and a page to read; it may be made again."""
        return self.folder / "measurements"

    @property
    def status(self) -> Path:
        """What the daemon is doing now."""
        return self.own / "status.json"

    @property
    def paused(self) -> Path:
        """There while the site takes no requests."""
        return self.folder / "paused"

    @property
    def lock(self) -> Path:
        """Held by the one daemon that runs."""
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        """The daemon's logs."""
        return self.folder / "log"
