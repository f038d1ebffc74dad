"""The schema that is written beside a table of outcomes."""

from __future__ import annotations

from client.labels.schema import ColumnRules, LabelSchema
from client.outcomes.outcomes_yaml import Column, OutcomesPlan
from common.config.yaml import write_yaml

_YES_NO = ("0", "1")


def schema_text(plan: OutcomesPlan) -> str:
    """Return the schema of a plan's table as YAML."""
    columns = {name: _rules(column) for name, column in plan.columns.items()}
    outcome = plan.outcome
    columns[outcome.event] = ColumnRules(type="category", values=_YES_NO)
    columns[outcome.time] = ColumnRules(type="number", unit=outcome.unit)
    schema = LabelSchema(columns=columns)
    return write_yaml(schema.model_dump(mode="json", exclude_defaults=True))


def _rules(column: Column) -> ColumnRules:
    if column.patient == "sex":
        return ColumnRules(type="category", values=("M", "F", "O"))
    if column.patient == "age":
        return ColumnRules(type="number", unit="a", range=(0.0, 130.0))
    if column.condition:
        return ColumnRules(type="category", values=_YES_NO)
    if column.unit is not None:
        return ColumnRules(type="number", unit=column.unit)
    return ColumnRules(type="text")
