"""Forecast of a run: epsilon and bytes by site, time, and what would stop it.

Public: forecast, Forecast, SiteForecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from common.bundle.backbone_check import check_backbone
from common.config.measured_rounds import is_validated
from common.config.privacy import COMMON_DELTA, Known
from common.config.run_config import RunConfig
from common.data.weights import Weights
from common.messages.packing import FRAME_VALUES, Encoding
from common.messages.refusals import PASSING
from common.messages.signed_envelope import seal
from common.messages.wire import (
    EvaluationRequest,
    Refusal,
    Request,
    SiteUpdate,
    Standing,
    TrainRequest,
)
from common.models.extension_network import check_extensions
from common.models.run_network import initial_weights
from common.platform.errors import ConfigurationError
from common.privacy.noise_calibration import make_plan
from common.privacy.signal import prospect
from server.aggregation.rules import aggregator_of
from server.planning.measuring import measured
from server.rounds.checkpoint_choice import check_selection

#: What a value takes at most; random mantissas, as noise makes them, compress by a sixth.
_BYTES_A_VALUE: dict[Encoding, float] = {
    "raw": 4.0,
    "lossless": 4.0,
    "float16": 2.0,
    "int8": 1.0 + 4 / 256,
}
#: Why a site cannot take part in a private run that agreed on no number for it.
_NOT_AGREED = "the run agreed on no number of patients for it (privacy.public_patients)"
#: Counts of one label's predictions, and what an update says beside its tensors.
_REPORT_BYTES = 25_000
_SPEND_BYTES = 1_000
#: The site's sealed receipt, which goes both ways: 4 KiB in base64
#: (client/governance/records_statement.py).
_RECEIPT_BYTES = 5_600
#: What an exchange of messages takes beside the work, at least and on a busy machine: delivery,
#: the ledger, saving. Measured on loopback, two cores (DECISIONS.md).
EXCHANGE_SECONDS = (1.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class SiteForecast:
    """One site's part; what neither it nor the configuration tells is None."""

    site: str
    patients: int | None = None  # training patients
    patients_are: Known = "exact"
    epsilon: float | None = None  # of the whole run
    delta: float | None = None
    common_epsilon: float | None = None  # of the whole run, at delta 1e-5
    epsilon_left: float | None = None  # of the cohort's limit after the run
    seconds: float | None = None  # of one round
    refuses: str = ""  # why it does not take part, or not yet
    may_change: bool = False  # it refuses for now


@dataclass(frozen=True, kw_only=True)
class SiteTraffic:
    """Bytes of one site, at most, when nothing has to be sent twice."""

    to_site_by_round: int  # training and, where it is validated, evaluation
    from_site_by_round: int
    to_site: int  # in the whole run, the last measurement included
    from_site: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The whole run."""

    name: str
    fingerprint: str  # of the configuration in force, as sites approve it
    rounds: int
    quorum: int
    parameters: int  # trained values that travel
    encoding: str  # of updates
    privacy: str  # what each site's patients are promised
    measuring: str  # how the model is measured between hospitals, and what that costs
    noise: str  # how it compares with the largest signal; empty where nothing is known of it
    expected_sites: int  # that were accepted; 0: not known
    sites: tuple[SiteForecast, ...]
    traffic: SiteTraffic
    exchanges: int  # of messages with each site: rounds, validations and the last measurement
    seconds: float | None  # of all rounds' work, by the slowest site; None: not every site told
    asked: bool  # False: from the configuration alone
    not_asked: str  # why no site was asked; empty where they were
    stops: tuple[str, ...]  # what would keep the run from starting or from ending well

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return asdict(self)


def forecast(config: RunConfig, standings: Sequence[Standing | Refusal], sites: int) -> Forecast:
    """Return what a run on so many sites would cost, with what they answered to its proposal.

    Without answers it is made from the configuration alone; `sites` 0 is a number that nobody
    knows yet. ConfigurationError when the
    configuration asks for what does not fit together.
    """
    config = config.in_force()
    check_selection(config)
    aggregator_of(config.aggregation, max(sites, 1), config.extensions)
    check_extensions(config)
    check_backbone(config)
    weights = initial_weights(config, 0)
    parts = _sites(config, standings)
    told = [part.seconds for part in parts if not part.refuses and part.seconds is not None]
    working = [part for part in parts if not part.refuses]
    whole = standings and len(told) == len(working) and told
    return Forecast(
        name=config.name,
        fingerprint=config.fingerprint(),
        rounds=config.training.rounds,
        quorum=config.aggregation.smallest_quorum,
        encoding=config.exchange.encoding,
        parameters=sum(value.numel() for value in weights.values()),
        expected_sites=sites,
        sites=parts,
        traffic=_traffic(config, weights),
        asked=bool(standings),
        privacy=_promise(config),
        measuring=measured(config),
        noise=_noise(config, parts, weights),
        exchanges=config.training.rounds + _validated(config) + 1,
        seconds=max(told) * config.training.rounds if whole else None,
        not_asked="" if standings else "no site was asked",
        stops=tuple(_stops(config, parts, sites)),
    )


def _promise(config: RunConfig) -> str:
    privacy = config.privacy
    if privacy == "none":
        return "No privacy: updates leave without noise, and can tell of single patients."
    delta = "1 / (10 x its training patients)"
    also = ""
    if privacy.delta != "per_site":
        delta = f"{privacy.delta:.2g}"
        if privacy.delta != COMMON_DELTA:
            plan = make_plan(privacy, config.training, 1, 1.0, simulated=False)
            also = f" ({plan.common_epsilon:.3g} at delta {COMMON_DELTA:.0e})"
    return (
        f"Each site, for the whole run: epsilon {privacy.epsilon:g} by patient at delta "
        f"{delta}{also}."
    )


def _noise(config: RunConfig, parts: Sequence[SiteForecast], weights: Weights) -> str:
    """Say what noise leaves of what could be learnt, from figures that are public."""
    privacy = config.privacy
    if privacy == "none":
        return ""
    counts = [part.patients for part in parts if part.patients and not part.refuses]
    if not counts and isinstance(privacy.default_patients, int):
        counts = [privacy.default_patients]
    plans = [
        make_plan(privacy, config.training, count, count * privacy.sampling_rate, simulated=False)
        for count in counts
    ]
    values = sum(value.numel() for value in weights.values())
    found = prospect([plan.mechanism for plan in plans], values)
    return "" if found is None else found.words


# --- sites ---------------------------------------------------------------------------------


def _sites(config: RunConfig, standings: Sequence[Standing | Refusal]) -> tuple[SiteForecast, ...]:
    if standings:
        parts = [_told(config, answer) for answer in standings]
        return tuple(sorted(parts, key=lambda part: part.site))
    named = {} if config.privacy == "none" else config.privacy.public_patients
    names = sorted({*named, *config.aggregation.weights})
    return tuple(_agreed(config, name) for name in names)


def _told(config: RunConfig, answer: Standing | Refusal) -> SiteForecast:
    if isinstance(answer, Refusal):
        return SiteForecast(
            site=answer.site, refuses=answer.told, may_change=answer.reason in PASSING
        )
    agreed = _agreed(config, answer.site, answer.patients)
    return SiteForecast(
        site=answer.site,
        patients=agreed.patients,
        patients_are=agreed.patients_are,
        delta=agreed.delta,
        epsilon=agreed.epsilon if answer.epsilon is None else answer.epsilon,
        common_epsilon=agreed.common_epsilon,
        epsilon_left=answer.epsilon_left,
        seconds=answer.seconds,
        refuses=agreed.refuses,
    )


def _agreed(config: RunConfig, site: str, patients: int | None = None) -> SiteForecast:
    """Return what the configuration, with a count that the site may have told, says of a site."""
    privacy = config.privacy
    if privacy == "none":
        return SiteForecast(site=site, patients=patients)
    try:
        agreed = privacy.agreed(site)
    except ConfigurationError:
        return SiteForecast(site=site, refuses=_NOT_AGREED)
    known = patients or (None if agreed == "declared" else agreed)
    if known is None and privacy.delta == "per_site":
        # Its noise is made for the run's epsilon, whatever its patients are.
        return SiteForecast(site=site, epsilon=privacy.epsilon)
    # With a number for delta nothing but the divisor depends on the patients.
    divisor = float(known or 1)
    plan = make_plan(privacy, config.training, known or 1, divisor, simulated=False)
    return SiteForecast(
        site=site,
        patients=known,
        patients_are=privacy.training_patients_are(site),
        epsilon=plan.epsilon,
        delta=plan.delta,
        common_epsilon=plan.common_epsilon,
    )


# --- bytes ---------------------------------------------------------------------------------


def _traffic(config: RunConfig, weights: Weights) -> SiteTraffic:
    rounds = config.training.rounds
    validated = _validated(config)
    controlled = config.aggregation.rule == "scaffold"
    values = sum(value.numel() for value in weights.values()) * (1 + controlled)
    # Requests keep every bit; the encoding is that of updates.
    tiny = {name: torch.zeros(1) for name in weights}
    train_out = _size(_request(config, tiny, train=True), values, "lossless") + _RECEIPT_BYTES
    values_out = sum(value.numel() for value in weights.values())
    measure_out = _RECEIPT_BYTES + _size(
        _request(config, tiny, train=False), values_out, "lossless"
    )
    update = SiteUpdate(run=config.name, round=rounds, site="", delta=tiny, steps=0)
    train_in = _size(update, values, config.exchange.encoding) + _SPEND_BYTES + _RECEIPT_BYTES
    measure_in = _REPORT_BYTES * len(config.task.labels) + _SPEND_BYTES + _RECEIPT_BYTES
    each = bool(validated)
    return SiteTraffic(
        to_site_by_round=train_out + each * measure_out,
        from_site_by_round=train_in + each * measure_in,
        to_site=rounds * train_out + (validated + 1) * measure_out,
        from_site=rounds * train_in + (validated + 1) * measure_in,
    )


def _validated(config: RunConfig) -> int:
    return sum(is_validated(config, number) for number in range(1, config.training.rounds + 1))


def _request(config: RunConfig, weights: Weights, *, train: bool) -> Request:
    if train:
        control = weights if config.aggregation.rule == "scaffold" else None
        return TrainRequest(
            run=config.name,
            round=config.training.rounds,
            seed=0,
            config=config,
            weights=weights,
            control=control,
        )
    return EvaluationRequest(
        run=config.name,
        round=config.training.rounds,
        seed=0,
        config=config,
        weights=weights,
        split="validation",
    )


def _size(message: Request | SiteUpdate, values: int, encoding: Encoding) -> int:
    """Return the bytes of a message whose tensors hold so many values."""
    header = len(seal(message).header.encode())
    tensors = 2 if isinstance(message, TrainRequest | SiteUpdate) else 1
    frame_heads = 64 * tensors * (1 + values // FRAME_VALUES)
    # int8 fills its last block of 256.
    return int(header * 1.1 + values * _BYTES_A_VALUE[encoding] * 1.001) + frame_heads + 520


# --- what would stop it --------------------------------------------------------------------


def _stops(config: RunConfig, parts: Sequence[SiteForecast], sites: int) -> list[str]:
    lost = [part for part in parts if part.refuses and not part.may_change]
    found: list[str] = []
    possible, quorum = sites - len(lost), config.aggregation.smallest_quorum
    if not sites:
        return found
    if possible < quorum:
        found.append(
            f"{possible} of {sites} sites can take part, expected at least {quorum} "
            "(aggregation.smallest_quorum): accept more sites, or change what they refuse."
        )
    rule, faulty = config.aggregation.rule, config.aggregation.faulty_sites
    if rule in {"krum", "multi_krum"} and possible < faulty + 3:
        found.append(
            f"aggregation.rule={rule} with faulty_sites={faulty} needs {faulty + 3} sites, "
            f"{possible} can take part."
        )
    return found
