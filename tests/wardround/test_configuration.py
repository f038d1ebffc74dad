from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import wardround as wr
from tests.wardround.small_runs import SMALL


def test_a_file_a_mapping_and_a_run_are_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(dict(SMALL)), encoding="utf-8")
    runs = [wr.load(path), wr.load(str(path)), wr.load(SMALL), wr.load(wr.load(SMALL))]
    assert len({run.fingerprint() for run in runs}) == 1


def test_changes_are_set_by_dotted_name_and_the_first_run_stays_as_it_was() -> None:
    run = wr.load(SMALL)
    other = wr.load(run, {"training.rounds": 7, "aggregation": {"rule": "mean"}, "model.width": 16})
    assert (other.training.rounds, other.model.width, other.aggregation.rule) == (7, 16, "mean")
    assert run.training.rounds == 3
    assert wr.load(SMALL, {"exchange.round_minutes": 5.0}).exchange.round_minutes == 5.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training.round": 3}, "Did you mean rounds"),
        ({"trainings.rounds": 3}, "trainings"),
        ({"training.rounds": -1}, "rounds"),
        ({"privacy": "none", "privacy.epsilon": 3.0}, "privacy is 'none' and holds no keys"),
        ({"name": {1, 2}}, "name"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_with_its_name(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(wr.ConfigurationError, match=said):
        wr.load(SMALL, changes)


def test_epsilon_is_the_options_epsilon() -> None:
    run = wr.load(SMALL, epsilon=2.0)
    assert run.privacy != "none"
    assert run.privacy.epsilon == 2.0
    declared = wr.load(SMALL, {"privacy": "none"}, epsilon=3.0).privacy
    assert declared != "none"
    assert declared.default_patients == "declared"
    with pytest.raises(wr.ConfigurationError, match="above 0"):
        wr.load(SMALL, epsilon=-1.0)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("name: demo", encoding="utf-8")
    with pytest.raises(wr.ConfigurationError, match=r"Did you mean .*demo.yaml"):
        wr.load(tmp_path / "dem.yaml")
