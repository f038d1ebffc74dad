from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.cohort.split import simulated_key
from client.inference.calibration.site_calibration import hashed
from client.inference.calibration.trained_on import note_trained, trained_on
from client.inference.fit_calibration import CalibrationOptions, fit
from client.node.request_handler import RequestHandler, load
from client.node.worker import site_context
from common.messages.wire import Proposal, TrainRequest
from common.models.run_network import initial_weights
from common.platform.errors import StateDamaged
from tests.client.cli.models.test_predict import fill
from tests.client.dicom_files import config_of
from tests.client.inference.calibration.test_site_calibration import (
    FirstColumn,
    cohort_of,
    drawn,
    run,
)
from tests.client.small_models import model_of
from tests.client.terminals import Site


def test_who_was_trained_on_once_stays_noted(tmp_path: Path) -> None:
    note_trained(tmp_path, "f" * 8, 3, ["P1", "P2"])
    note_trained(tmp_path, "f" * 8, 3, ["P2", "P3"])
    assert trained_on(tmp_path, "f" * 8, 3) == hashed(["P1", "P2", "P3"])
    assert trained_on(tmp_path, "f" * 8, 4) == frozenset()
    assert trained_on(tmp_path / "none", "f" * 8, 3) == frozenset()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    assert "P1" not in path.read_text()


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', "[", ""])
def test_a_note_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    note_trained(tmp_path, "f" * 8, 3, ["P1"])
    (path,) = tmp_path.iterdir()
    path.write_text(content)
    with pytest.raises(StateDamaged, match="not known whom the run trained on"):
        trained_on(tmp_path, "f" * 8, 3)


def test_who_was_trained_on_never_calibrates_though_the_split_has_moved() -> None:
    """The site's key was lost: another puts some who were trained on into the test part."""
    model = model_of(run("binary", ", selection: {rule: last}"), FirstColumn())
    rules = model.config.cohort.split
    grown = cohort_of(*drawn(400, 3))
    lost, key = simulated_key(1), simulated_key(model.seed)
    before = {p for p, part in grown.parts(rules, lost).items() if part == "train"}
    after = grown.parts(rules, key)
    moved = {name for name in before if after[name] != "train"}
    assert moved, "the fault that is guarded against"
    wrong = [name in moved for name in grown.items.pseudonyms]
    target = np.where(np.array(wrong)[:, None], 1 - grown.items.target, grown.items.target)
    poisoned = replace(
        grown, items=replace(grown.items, target=grown.items.target.new_tensor(target))
    )
    noted = hashed(before)
    ours, theirs = (fit(cohort, model, CalibrationOptions(), noted) for cohort in (grown, poisoned))
    careless, misled = (fit(cohort, model, CalibrationOptions()) for cohort in (grown, poisoned))
    assert ours.patients == theirs.patients == careless.patients - len(moved)
    assert np.array_equal(ours.line, theirs.line)
    assert ours.thresholds == theirs.thresholds
    assert not np.array_equal(careless.line, misled.line), "without the note they would count"


def test_a_site_notes_whom_it_trains_on_with_the_first_training(tmp_path: Path) -> None:
    site = Site(tmp_path)
    fill(site.data, 20)
    config = config_of()
    context = site_context(site.home, site.set_up())
    handler = RequestHandler(context, lambda _: None)
    handler.answer(Proposal(run="run", round=0, seed=3, config=config))
    assert trained_on(site.home.trained, config.fingerprint(), 3) == frozenset()
    weights = initial_weights(config, 3)
    handler.answer(TrainRequest(run="run", round=1, seed=3, config=config, weights=weights))
    train = load(context, config, 3).site.train.pseudonyms
    assert len(train) > 5
    noted = trained_on(site.home.trained, config.fingerprint(), 3)
    assert noted == hashed(train)
