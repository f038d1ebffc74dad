"""A region of hospitals as one site of a national run.

The national coordinator asks a region as it asks a hospital, with the same request. The region asks
its own hospitals, admits their answers by the same rules, and passes on one:

    update      the mean of the admitted updates by their public weights, and whose it is, so that
                the means of regions weigh as if all hospitals had been asked by one coordinator
    report      the sum of their counts, whose noise adds up, and whose it is
    fewer than two hospitals answered     a refusal: a sum of one is that hospital's answer
    spend       the largest epsilon and the largest delta among them

Guarantee on `spend`: each patient of a hospital that is in the answer is protected at the epsilons
and deltas that it states. Hospitals charge their own ledgers for what they release to the region,
and everything here is post-processing. A patient is in one hospital, so that hospitals compose in
parallel; one who is in two of them is protected by their sum, as in any run (docs/privacy.md).
The region itself sees each hospital's update, as any coordinator does.

Public: RegionalSite, RegionalSites, spend_of_all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.messages.refusals import RefusalReason
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from common.metrics.statistics import merge
from common.platform.logs import log
from common.privacy.plan import LedgerHead, Spend
from server.aggregation.rules import aggregator_of
from server.rounds.run_rounds import Sites
from server.rounds.update_admission import admit, admit_reports
from server.rounds.update_norm_bound import bounded

#: An answer of fewer would be one hospital's own.
FEWEST_SITES = 2


@dataclass
class RegionalSite:
    """A regional coordinator's hospitals; `heads` is where their ledgers stood last.

    By `heads` a hospital that has put an old ledger back is noticed and left out, so they must
    outlive the process, as the run's state does.
    """

    name: str
    sites: Sites
    heads: dict[str, LedgerHead] = field(default_factory=dict)

    def train(self, request: TrainRequest) -> SiteUpdate | Refusal:
        """Return the mean of the hospitals' updates; a refusal where fewer than two came."""
        asked = self._asked(request)
        rule = aggregator_of(request.config.aggregation, len(asked))
        gathering, spends, steps = rule.begin(request.weights), dict[str, Spend](), 0
        names: list[str] = []
        admitted = admit(self.sites.train(request, asked), request, asked, self.heads)
        for answer in bounded(admitted, request, asked, 0.0, _Log(self.name, request.round)):
            if isinstance(answer, SiteUpdate):
                rule.add(gathering, answer)
                names.append(answer.site)
                steps = max(steps, answer.steps)
                if answer.spend is not None:
                    spends[answer.site] = answer.spend
            del answer  # before the next is made: the sum and one update in memory
        if len(names) < FEWEST_SITES:
            return self._refusal(request)
        return SiteUpdate(
            run=request.run,
            round=request.round,
            site=self.name,
            delta={n: total.div_(gathering.weight) for n, total in gathering.total.items()},
            steps=steps,
            spend=self._spend(spends),
            sites=tuple(sorted(names)),
        )

    def evaluate(self, request: EvaluationRequest) -> SiteReport | Refusal:
        """Return the sum of the hospitals' reports; a refusal where fewer than two came."""
        asked = self._asked(request)
        found, _ = admit_reports(self.sites.evaluate(request, asked), request, asked, self.heads)
        if len(found) < FEWEST_SITES:
            return self._refusal(request)
        spends = {report.site: report.spend for report in found if report.spend is not None}
        return SiteReport(
            run=request.run,
            round=request.round,
            site=self.name,
            statistics=merge(report.statistics for report in found),
            spend=self._spend(spends),
            sites=tuple(report.site for report in found),
        )

    def _asked(self, request: TrainRequest | EvaluationRequest) -> tuple[str, ...]:
        """Return who is asked: the hospitals that the run names for this region, if they are here.

        By name: the order of addition is the same in every run.
        """
        named = request.config.aggregation.regions.get(self.name, ())
        return tuple(sorted(set(self.sites.available()) & set(named)))

    def _spend(self, spends: Mapping[str, Spend]) -> Spend | None:
        if not spends:
            return None
        self.heads.update({site: spend.ledger for site, spend in spends.items()})
        return replace(spend_of_all(tuple(spends.values())), ledger=_head_of(self.heads))

    def _refusal(self, request: TrainRequest | EvaluationRequest) -> Refusal:
        return Refusal(
            run=request.run, round=request.round, site=self.name, reason=RefusalReason.TOO_FEW_SITES
        )


@dataclass(frozen=True)
class _Log:
    """Hears which updates counted for less than they came."""

    region: str
    round: int

    def shortened(self, site: str, how: str) -> None:
        """Tell of one."""
        log(__name__).warning(
            "update shortened", region=self.region, round=self.round, site=site, how=how
        )

    def usual(self, length: float) -> None:
        """Tell the median norm."""
        log(__name__).info("usual norm", region=self.region, round=self.round, norm=length)


class RegionalSites:
    """The `Sites` of a national run: regions, each asked as one site."""

    def __init__(self, regions: Sequence[RegionalSite]) -> None:
        self._regions = {region.name: region for region in regions}

    def available(self) -> tuple[str, ...]:
        """Return the regions."""
        return tuple(self._regions)

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        """Yield each region's update: one in memory at a time."""
        for name in sites:
            yield self._regions[name].train(request)

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        """Yield each region's report."""
        for name in sites:
            yield self._regions[name].evaluate(request)


def spend_of_all(spends: Sequence[Spend]) -> Spend:
    """Return what holds for every patient of several hospitals, none of whom is in two of them.

    With (e1, d1) for some and (e2, d2) for the others, (max e, max d) holds for all. The mechanism
    is that of the hospital that has spent most in this run.
    """
    most = max(spends, key=lambda spend: spend.run_epsilon)
    common = [spend.run_common_epsilon for spend in spends]
    known = [epsilon for epsilon in common if epsilon is not None]
    return replace(
        most,
        run_delta=max(spend.run_delta for spend in spends),
        cohort_epsilon=max(spend.cohort_epsilon for spend in spends),
        cohort_delta=max(spend.cohort_delta for spend in spends),
        simulated_noise=any(spend.simulated_noise for spend in spends),
        run_common_epsilon=max(known) if len(known) == len(common) else None,
    )


def _head_of(heads: Mapping[str, LedgerHead]) -> LedgerHead:
    """Return one head that grows whenever a hospital's does."""
    text = "\n".join(f"{site} {head.charges} {head.hash}" for site, head in sorted(heads.items()))
    charges = sum(head.charges for head in heads.values())
    return LedgerHead(charges=charges, hash=hashlib.sha256(text.encode()).hexdigest())
