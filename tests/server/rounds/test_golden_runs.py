from __future__ import annotations

import json

import numpy as np
import pytest

from tests.server.golden import FILE, RUNS, result_of


@pytest.mark.filterwarnings("ignore:.*will be removed in Click 9:DeprecationWarning")
@pytest.mark.parametrize("name", RUNS)
def test_a_fixed_run_of_each_rule_ends_where_it_did(name: str) -> None:
    expected, found = json.loads(FILE.read_text())[name], result_of(RUNS[name])
    for part, values in found.items():
        # Other processors round other last digits.
        np.testing.assert_allclose(values, expected[part], rtol=1e-4, atol=1e-6)
