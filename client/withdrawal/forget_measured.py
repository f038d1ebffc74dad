"""What a site keeps of measurements forgets a patient who was withdrawn."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from client.labels.table_files import read_table
from client.site.home import MEASURED_PAGE, MEASURED_TABLE
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError


def forget_measured(folder: Path, patient: str) -> None:
    """Take a patient's rows out of the table of a folder, and the page away.

    A table that does not say whose its rows are goes as a whole: it can be made again.
    """
    (folder / MEASURED_PAGE).unlink(missing_ok=True)
    path = folder / MEASURED_TABLE
    if not path.is_file():
        return
    try:
        found = read_table(path)
    except CohortError:
        path.unlink()
        return
    header, *rows = (cells for _, cells in found.lines)
    if "PatientID" not in header:
        path.unlink()
        return
    place = header.index("PatientID")
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=found.sign or ",", lineterminator="\n")
    writer.writerows([header, *(row for row in rows if row[place].strip() != patient)])
    replace_durably(path, text.getvalue().encode(), mode=0o600)
