"""Tables as text, HTML and pandas, for results that show themselves."""

from __future__ import annotations

import copy
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from common.platform.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

_WIDTH = 200  # of text; tables are as narrow as they can be


def table_of_rows(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table as the command prints them: the first column to the left, others right."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def as_text(table: Table) -> str:
    """Return the table as plain text; title and notes stay whole, however narrow it is."""
    to = io.StringIO()
    # In a notebook rich would show the table at once, and write nothing.
    console = Console(file=to, width=_WIDTH, color_system=None, force_jupyter=False)
    body = copy.copy(table)
    body.title = body.caption = None
    console.print(body)
    lines = [str(table.title or ""), *to.getvalue().splitlines(), str(table.caption or "")]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def as_html(table: Table) -> str:
    """Return the table as HTML that takes the notebook's own style; all content is escaped."""
    head = "".join(_cell("th", column.header, column.justify) for column in table.columns)
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    rows = "".join(
        "<tr>"
        + "".join(_cell("td", c, k.justify) for c, k in zip(row, table.columns, strict=True))
        + "</tr>"
        for row in zip(*cells, strict=True)
    )
    title = f"<p>{html.escape(str(table.title))}</p>" if table.title else ""
    notes = html.escape(str(table.caption or "")).replace("\n", "<br>")
    return (
        f"{title}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"{f'<p><small>{notes}</small></p>' if notes else ''}"
    )


def _cell(tag: str, content: object, justify: str) -> str:
    side = "left" if justify in {"default", "left"} else "right"
    return f'<{tag} style="text-align:{side}">{html.escape(str(content))}</{tag}>'


def number(value: float) -> str:
    """Return a metric with three digits; - where there is no value."""
    return f"{value:.3f}" if math.isfinite(value) else "-"


def frame(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Return a data frame of these columns; ConfigurationError where pandas is not installed."""
    try:
        # Imported here: it takes a while to load, and not everybody has it.
        import pandas as pd
    except ImportError as error:
        message = "Data frames need pandas: pip install pandas (lock simulation.txt has it)."
        raise ConfigurationError(message) from error
    return pd.DataFrame([dict(row) for row in rows], columns=list(columns))
