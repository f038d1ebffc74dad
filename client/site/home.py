"""The daemon's folder: each of its files is named here once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

#: Names the folder for commands that are given none.
VARIABLE = "WARDROUND_SITE"
#: Files of a folder of measurements: the table, and the page to read, which names patients.
MEASURED_TABLE, MEASURED_PAGE = "labels.csv", "measurements.html"


@dataclass(frozen=True)
class Home:
    """A site's own folder; its images and labels lie elsewhere and are only read."""

    folder: Path

    @classmethod
    def chosen(cls, given: Path | None) -> Home:
        """Return the home that was given, else the one of the environment, else ~'s."""
        if given is not None:
            return cls(given.expanduser().absolute())
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else Path.home() / ".wardround" / "site")

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
        return self.folder / "key"

    @property
    def public_key(self) -> Path:
        """The public half, which the coordinator knows the site by."""
        return self.folder / "key.pub"

    @property
    def next_key(self) -> Path:
        """A new key that the coordinator has perhaps not accepted yet."""
        return self.folder / "key.next"

    @property
    def rotations(self) -> Path:
        """The last changes of the key, as the old keys signed them."""
        return self.folder / "rotations.jsonl"

    @property
    def coordinator_json(self) -> Path:
        """Which coordinator the site joined, and as what."""
        return self.folder / "coordinator.json"

    @property
    def coordinator_pem(self) -> Path:
        """The certificate of the coordinator's authority, the only one that is trusted."""
        return self.folder / "coordinator.pem"

    @property
    def notice(self) -> Path:
        """The coordinator's last notice of a move, as its authority signed it."""
        return self.folder / "notice.json"

    @property
    def approvals(self) -> Path:
        """Which runs were proposed, and what the admin said."""
        return self.folder / "approvals.db"

    @property
    def decided(self) -> Path:
        """One line for each change of what was decided: policy, pause, approvals."""
        return self.folder / "decided.jsonl"

    @property
    def ledger(self) -> Path:
        """The privacy that was spent."""
        return self.folder / "ledger.db"

    @property
    def answers(self) -> Path:
        """What was told of patients by counts: each thing once."""
        return self.folder / "answers.db"

    @property
    def records(self) -> Path:
        """Where ledger, withdrawals, decisions and disclosures stood, to notice old copies."""
        return self.folder / "records.json"

    @property
    def disclosures(self) -> Path:
        """One line for each message that left."""
        return self.folder / "disclosures.jsonl"

    @property
    def inbox(self) -> Path:
        """Requests that came and are not answered yet."""
        return self.folder / "inbox"

    @property
    def quarantine(self) -> Path:
        """Requests that ended the worker, counted and set aside."""
        return self.folder / "quarantine"

    @property
    def outbox(self) -> Path:
        """Answers that the coordinator has not confirmed yet."""
        return self.folder / "outbox"

    @property
    def memory(self) -> Path:
        """What the site keeps of a run from round to round."""
        return self.folder / "memory"

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
        return self.folder / "status.json"

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
