"""Runs and rules for tests of what a hospital allows."""

from __future__ import annotations

from client.governance.policy import PolicyRules
from common.config.run_config import RunConfig, parse_config

COORDINATOR = "ab" * 32
RUN = """
name: breast
task: {kind: diagnosis, target: malignant}
cohort:
  images: {size: [16, 16]}
  table: {numbers: [{column: age}], categories: [{column: sex, values: [f, m]}]}
  split: {column: part}
  confounder: scanner
model: {network: small_cnn}
training: {rounds: 2}
privacy: {unit: patient, epsilon: 2.0, default_patients: 20}
"""


def run_of(**sections: object) -> RunConfig:
    """Return the run with other sections; a mapping changes what it names in a section."""
    content = parse_config(RUN).model_dump(mode="json")
    for name, given in sections.items():
        before = content[name]
        content[name] = before | given if isinstance(given, dict) and before else given
    return RunConfig.model_validate(content)


def rules_of(**rules: object) -> PolicyRules:
    """Return the default rules but for these."""
    return PolicyRules.model_validate(rules)
