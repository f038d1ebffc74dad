"""A site's letters with a worker in this process: the same steps, nothing forked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

from client.cohort.split import site_key
from client.cohort_statistics.description import Telling
from client.cohort_statistics.run_costs import told_of_everybody
from client.governance.approvals import Approvals
from client.governance.disclosures import Disclosures
from client.governance.records_check import SiteRecords
from client.governance.request_admission import AdmissionContext
from client.node.message_loop import MessageLoop, TransportContext
from client.node.prometheus_metrics import SiteMeters
from client.node.request_handler import COHORT, Loaded, RequestHandler, SiteContext
from client.node.worker import answered, read_request
from client.node.worker_process import Finished, WorkerProcess
from client.privacy.ledger import Ledger, Limit
from client.site.home import Home
from client.site.policy_section import PolicyRules
from client.site.quality_section import QualityRules
from client.site.site_config import SiteConfig
from client.training.kept_between_rounds import MemoryInFolder
from client.training.local_model import open_local_model
from client.training.training_site import Guard, Site
from client.transport.inbox import Inbox
from client.transport.outbox import Outbox
from client.transport.quarantine import Quarantine
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from common.messages.signed_envelope import seal
from common.messages.signing_key import load_private, new_private_key, private_text, sign
from common.messages.wire import Answer, TrainRequest
from common.models.run_network import initial_weights
from common.privacy.noise import ChaChaNoise
from tests.privacy.made_up import patients_of

CONFIG = parse_config("""
name: letters
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}, {column: crp}]}}
model: {network: table}
training: {rounds: 4, optimizer: sgd, learning_rate: 0.1}
privacy: {unit: patient, epsilon: 2.0, default_patients: 20, delta: 0.001}
personalisation: {method: none}
""").in_force()


class MadeUpDesk(RequestHandler):
    """A transport whose patients are made up in memory."""

    def __init__(self, context: SiteContext, patients: Patients) -> None:
        super().__init__(context, lambda _text: None)
        self._patients = patients

    @property
    def name(self) -> str:
        """The site's name."""
        return self._context.name

    def _load(self, config: RunConfig, seed: int) -> Loaded:
        gone = self._withdrawn()  # none of them is among the made-up patients
        if self._loaded is None or not gone <= self._loaded.withdrawn:
            guard = Guard(
                ledger=Ledger(self._context.ledger),
                limit=Limit(epsilon=1000.0, delta=0.001),
                cohort=COHORT,
                noise=ChaChaNoise(),
                beside=told_of_everybody(config, self._context.telling),
                split=site_key(self._context.identity_key).fingerprint(),
            )
            site = Site(
                name=self._context.name,
                train=self._patients,
                validation=self._patients,
                test=self._patients,
                guard=guard,
                memory=MemoryInFolder(self._context.memory),
            )
            local_model = open_local_model(config, seed)
            self._loaded = Loaded(site=site, local_model=local_model, withdrawn=gone)
        return self._loaded


class InlineWorker(WorkerProcess):
    """Does a job when it is given one, in this process."""

    def __init__(
        self, home: Path, transport: MadeUpDesk, outbox: Outbox, lie: Callable[[Answer], Answer]
    ) -> None:
        super().__init__(home, -1)
        self._lie = lie
        self._transport, self._outbox, self._key = transport, outbox, load_private(home / "key")
        self._over: list[Finished] = []
        self.jobs: list[str] = []

    def start(self) -> None:
        """Be there already."""

    @property
    def can_take(self) -> bool:
        """Be free."""
        return True

    def give(self, request: Path, question: str) -> bool:
        """Do the job."""
        self.jobs.append(question)
        answer = answered(
            self._transport, read_request(request), self._transport.name, lambda _text: None
        )
        envelope = seal(self._lie(answer))
        self._outbox.keep(question, envelope.signed(sign(self._key, envelope.digest)))
        self._over.append(Finished(question=question, seconds=0.0, failed=False))
        return True

    def look(self) -> Finished | None:
        """Return a job that was done."""
        return self._over.pop() if self._over else None


@dataclass
class Letters:
    """One site's letters; `told` is what its log would say."""

    home: Path
    name: str = "here"
    patients: Patients = field(default_factory=lambda: patients_of((1,) * 16, (0,)))
    approval: str = "automatic"
    private_only: bool = True
    metrics: str = "any"
    statistics_noise: float = 0.0
    lie: Callable[[Answer], Answer] = lambda answer: answer
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    hours: str | None = None

    def open(self) -> MessageLoop:
        """Return the correspondence of a process that just began."""
        key = self.home / "key"
        if not key.exists():
            key.parent.mkdir(parents=True, exist_ok=True)
            key.write_text(private_text(new_private_key()))
        outbox = Outbox(self.home / "outbox")
        context = SiteContext(
            name=self.name,
            data=self.home,
            labels=self.home,
            cache=self.home / "cache",
            memory=self.home / "memory",
            ledger=self.home / "ledger.db",
            index=self.home / "index.db",
            quality=QualityRules(),
            telling=Telling(noise=self.statistics_noise),
            withdrawals=self.home / "withdrawals.jsonl",
            largest_epsilon=1000.0,
            cohort_delta=0.001,
            tell_patients=True,
            device=torch.device("cpu"),
            identity_key=self.home / "identity.key",
            records=SiteRecords(Home(self.home)),
        )
        worker = InlineWorker(self.home, MadeUpDesk(context, self.patients), outbox, self.lie)
        transport = TransportContext(
            name=self.name,
            to="coordinator",
            key=load_private(key),
            inbox=Inbox(self.home / "inbox"),
            outbox=outbox,
            quarantine=Quarantine(self.home / "quarantine"),
            disclosures=Disclosures(self.home / "disclosures.jsonl"),
            records=SiteRecords(Home(self.home)),
            worker=worker,
            tell=lambda event, facts: self.told.append((event, dict(facts))),
            meters=SiteMeters(CollectorRegistry()),
        )
        return MessageLoop(transport, self.admission())

    def admission(self) -> AdmissionContext:
        """Return what the site's decision depends on."""
        rules = PolicyRules.model_validate(
            {
                "approval": self.approval,
                "private_only": self.private_only,
                "metrics": self.metrics,
                "statistics_noise": self.statistics_noise,
            }
        )
        config = SiteConfig(name=self.name, data=self.home, policy=rules, hours=self.hours)
        return AdmissionContext(
            config=config,
            coordinator="ca",
            paused=self.home / "paused",
            approvals=Approvals(self.home / "approvals.db"),
        )


def question(number: int = 1, run: str = "run") -> TrainRequest:
    """Return the request of a round."""
    return TrainRequest(
        run=run, round=number, seed=0, config=CONFIG, weights=initial_weights(CONFIG, 0)
    )
