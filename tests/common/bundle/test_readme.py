"""A bundle's README shows names that a configuration gave, and follows none of them."""

from __future__ import annotations

import re

from common.bundle.card import Card
from common.bundle.evidence import CalibrationEvidence, Evidence, Subgroup
from common.bundle.readme import readme
from common.config.run_config import parse_config

CONFIG = """
name: example
description: "of p < 0.05 <img src=x>"
task:
  kind: diagnosis
  type: multiclass
  target: kind
  classes: ["<script>x</script>", "a|b", "tick ` tick", "**c**"]
cohort: {table: {numbers: [{column: "<b>age"}]}}
model: {network: table}
training: {rounds: 1}
privacy: none
"""


def test_no_name_of_a_configuration_acts_in_the_readme() -> None:
    evidence = Evidence(
        subgroups=(Subgroup(column="sex", value="<i>", patients=9, metrics={}),),
        calibration=(
            CalibrationEvidence(label="<script>x</script>", intercept=0.0, slope=1.0, bins=()),
        ),
    )
    text = readme(
        parse_config(CONFIG), Card(metrics={}, privacy="", seed=0, round=1, evidence=evidence), {}
    )
    assert "Labels: `<script>x</script>`, `a|b`, `` tick ` tick ``, `**c**`." in text
    assert "It takes: a table of `<b>age`, `<b>age is missing`." in text
    assert "of p &lt; 0.05 &lt;img" in text
    assert "## Calibration\n" in text
    assert "`<script>x</script>`: intercept 0.00" in text
    assert "| sex | &lt;i> | 9 |" in text
    prose = re.sub(r"```.*?```|``.*?``|`[^`\n]*`", "", text, flags=re.DOTALL)
    assert "<" not in prose
