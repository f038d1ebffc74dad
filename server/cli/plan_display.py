"""A forecast on a terminal.

Public: plan_frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from server.cli.run_words import duration, size
from server.planning.forecast import EXCHANGE_SECONDS, Forecast, SiteForecast


def plan_frame(plan: Forecast) -> RenderableType:
    """Return everything that is forecast of a run."""
    parts: list[RenderableType] = [
        Text.assemble((plan.name, "bold"), f"  configuration {plan.fingerprint[:12]}"),
        Text(_shape(plan)),
        Text(plan.privacy),
        Text(plan.measuring),
    ]
    if plan.noise:
        parts.append(Text(plan.noise, style="red" if plan.noise.startswith("Noise ex") else ""))
    if not plan.asked:
        told = f"From the configuration alone: {plan.not_asked}."
        parts.append(Text(told, style="yellow"))
    if plan.sites:
        parts += [Text(), _table(plan.sites, asked=plan.asked)]
        parts += [Text(line, style="dim") for line in _legend(plan.sites)]
    parts += [Text(), *(Text(line) for line in _costs(plan))]
    if plan.stops:
        parts += [Text(), Text("What would stop it:", style="bold red")]
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in plan.stops]
    return Group(*parts)


def _shape(plan: Forecast) -> str:
    sites = _count(plan.expected_sites, "site") if plan.expected_sites else "the accepted sites"
    return (
        f"{_count(plan.rounds, 'round')} with {sites}, at least {plan.quorum} in each; "
        f"{plan.parameters:,} trained values travel, updates {plan.encoding}."
    )


def _costs(plan: Forecast) -> list[str]:
    traffic = plan.traffic
    time = "not known: not every site told how long a round takes there"
    if plan.seconds is not None:
        least, most = (plan.seconds + plan.exchanges * each for each in EXCHANGE_SECONDS)
        work = f"about {duration(plan.seconds)}" if plan.seconds >= 1 else "less than 1 s"
        time = (
            f"{duration(least)} to {duration(most)}, of which {work} of work at the "
            f"slowest site and {EXCHANGE_SECONDS[0]:g} to {EXCHANGE_SECONDS[1]:g} s for each of "
            f"{_count(plan.exchanges, 'exchange')}; more over a slow network"
        )
    gets, sends = size(traffic.to_site_by_round), size(traffic.from_site_by_round)
    return [
        f"Each site, a round:  gets {gets}, sends {sends}, at most",
        f"Each site, in all:   gets {size(traffic.to_site)}, sends {size(traffic.from_site)}",
        f"Time of all rounds:  {time}",
    ]


def _table(sites: tuple[SiteForecast, ...], *, asked: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("site", overflow="ellipsis", max_width=32)
    columns: dict[str, Sequence[float | None]] = {
        "epsilon": [site.epsilon for site in sites],
        "delta": [site.delta for site in sites],
        "at 1e-5": [site.common_epsilon for site in sites],
        "left after": [site.epsilon_left for site in sites],
    }
    known = {n: values for n, values in columns.items() if any(v is not None for v in values)}
    counted = any(site.patients is not None for site in sites)
    if counted:
        table.add_column("patients", justify="right", no_wrap=True, min_width=len("patients"))
    for name in known:
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("answer", overflow="fold")
    for place, site in enumerate(sites):
        values = [_patients(site)] if counted else []
        values += [_known(column[place]) for column in known.values()]
        table.add_row(site.site, *values, _says(site, asked=asked))
    return table


def _legend(sites: Sequence[SiteForecast]) -> list[str]:
    """Return what the table's columns mean, as far as they are there."""
    told = []
    if any(site.epsilon is not None for site in sites):
        told.append("Epsilon: of the whole run, at its own delta and at 1e-5.")
    if any(site.epsilon_left is not None for site in sites):
        told.append("Left after: what this run leaves of the site's limit for these patients.")
    return told


def _patients(site: SiteForecast) -> str:
    return "-" if site.patients is None else f"{site.patients:,} {site.patients_are}"


def _says(site: SiteForecast, *, asked: bool) -> Text:
    if not site.refuses:
        return Text("takes part" if asked else "not asked", style="green" if asked else "")
    return Text(site.refuses, style="yellow" if site.may_change else "red")


def _known(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
