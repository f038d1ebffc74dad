"""A forecast on a screen.

Public: plan_frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from server.planning import Forecast, SiteForecast
from server.run_words import duration, size


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
        parts.append(Text("From the configuration alone: no site was asked.", style="yellow"))
    if plan.sites:
        parts += [Text(), _table(plan.sites)]
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
        time = f"about {duration(plan.seconds)} by the slowest site, and the way there and back"
    gets, sends = size(traffic.to_site_by_round), size(traffic.from_site_by_round)
    return [
        f"Each site, a round:  gets {gets}, sends {sends}, at most",
        f"Each site, in all:   gets {size(traffic.to_site)}, sends {size(traffic.from_site)}",
        f"Time of all rounds:  {time}",
    ]


def _table(sites: tuple[SiteForecast, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("site", overflow="ellipsis", max_width=32)
    columns: dict[str, Sequence[float | None]] = {
        "patients": [site.patients for site in sites],
        "epsilon": [site.epsilon for site in sites],
        "left before": [site.epsilon_left for site in sites],
        "delta": [site.delta for site in sites],
        "at 1e-5": [site.common_epsilon for site in sites],
    }
    known = {n: values for n, values in columns.items() if any(v is not None for v in values)}
    for name in known:
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("", overflow="fold")
    for place, site in enumerate(sites):
        values = [_known(column[place]) for column in known.values()]
        table.add_row(site.site, *values, _says(site))
    return table


def _says(site: SiteForecast) -> Text:
    return Text(site.refuses, style="yellow" if site.may_change else "red")


def _known(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
