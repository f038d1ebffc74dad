"""Tasks of others: classes of their own, measured and released as a diagnosis is, and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from client.dicom.reasons import Reason
from client.governance.extensions import check_task_allowed, judge_extensions
from client.governance.plain_words import described
from client.governance.policy import judge
from client.privacy import model_guard
from client.privacy.ledger import Ledger, Limit
from client.privacy.reachable_state import Reachable
from client.site.extensions_section import AllowedExtension
from client.site.policy_section import PolicyRules
from client.training.local_model import open_local_model
from client.training.local_round import train_round
from client.training.training_site import Guard, Site
from common.config.run_config import RunConfig, parse_config
from common.config.tasks.diagnosis import DiagnosisTask
from common.data.sample import Patients
from common.extensions.pinning import pinned
from common.extensions.tasks import class_remarks
from common.messages.cohort_statistics import layout_of
from common.messages.wire import RefusalReason, SiteUpdate, TrainRequest
from common.models.extension_network import check_extensions
from common.models.run_network import initial_weights
from common.platform.errors import ConfigurationError, ExtensionRefused
from common.privacy.noise import ChaChaNoise
from common.tasks import Scores, UnusableLabel, task_of
from common.tasks.extension_classes import encoding_task
from common.tasks.loss_choice import training_loss
from tests.client.dicom_files import load, write_labels
from tests.common.every_task import rules
from tests.extensions import on_path, written

CODE = """
import itertools
import torch
from pydantic import BaseModel, Field
from common.extensions.contract import *

CALLS = []
class Stop(BaseException): pass
class Cuts(BaseModel, extra="forbid"):
    edges: tuple[float, ...] = Field(min_length=1)

def stage_of(given, values):
    CALLS.append(1)
    grade = torch.bucketize(values[0], torch.tensor(given.edges, dtype=torch.float64))
    return torch.where(values[1] == 2, float("nan"), grade)

def ranked(given, output, target):
    return (output.softmax(0).cumsum(0) - target.cumsum(0)).square().sum()

stages = TaskExtension(
    arguments=Cuts,
    columns=lambda given: [0, 3],
    classes=lambda given: len(given.edges) + 1,
    place=stage_of,
    loss=ranked,
)
"""
TASK = (
    "{kind: extension, name: acme-tasks/stages, arguments: {edges: [10, 20]}, "
    "columns: [size, {column: side, values: [left, right, unclear]}], "
    "classes: [small, middle, large]}"
)
CONFIG = f"""
name: example
task: {TASK}
cohort: {{table: {{numbers: [{{column: age, center: 50, scale: 10}}]}}}}
model: {{network: table}}
training: {{rounds: 1}}
privacy: none
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    folder = written(tmp_path / "site-packages", "acme-tasks", CODE, {"tasks": ["stages"]})
    with on_path(folder):
        yield folder


def changed(place: Path, old: str, new: str) -> None:
    """Put another piece of code in."""
    assert old in CODE
    (place / "acme_tasks" / "__init__.py").write_text(CODE.replace(old, new))


def config(text: str = CONFIG) -> RunConfig:
    return pinned(parse_config(text))


def encoded(run: RunConfig, size: str, side: str = "left") -> list[float]:
    task = encoding_task(run, task_of(run.task))
    found: list[float] = task.encode({"size": size, "side": side}).tolist()
    return found


def test_a_row_has_the_class_that_the_extension_makes_of_its_columns(place: Path) -> None:
    assert place.is_dir()
    run = config()
    assert encoded(run, "4") == [1, 0, 0]
    assert encoded(run, "10.5", "right") == [0, 1, 0]
    assert encoded(run, "1e3") == [0, 0, 1]
    for size, side, words in (
        ("", "left", "column size holds ''"),
        ("large", "left", "expected a number"),
        ("4", "up", "column side holds 'up', expected one of left, right, unclear"),
        ("4", "unclear", "makes no class of size, side"),
    ):
        with pytest.raises(UnusableLabel, match=words):
            encoded(run, size, side)


def test_its_code_is_called_before_the_first_row_and_no_more(place: Path) -> None:
    assert place.is_dir()
    run = config()
    task = encoding_task(run, task_of(run.task))
    loss = training_loss(run, task)
    import acme_tasks  # type: ignore[import-not-found]  # written above

    calls = len(acme_tasks.CALLS)
    for size in ("1", "15", "99"):
        task.encode({"size": size, "side": "left"})
    assert len(acme_tasks.CALLS) == calls
    assert "acme_tasks" not in Reachable(loss).packages
    output, target = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    expected = (output.softmax(1).cumsum(1) - target.cumsum(1)).square().sum(1)
    assert torch.allclose(loss(output, target), expected, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_what_leaves_a_site_is_what_a_diagnosis_of_the_same_classes_releases(
    place: Path, noise: float
) -> None:
    assert place.is_dir()
    task = task_of(config().task)
    same = task_of(
        DiagnosisTask(
            kind="diagnosis",
            type="multiclass",
            target="stage",
            classes=("small", "middle", "large"),
        )
    )
    output = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    target = torch.eye(3)[torch.arange(40) % 3]
    found, expected = (
        one.statistics(
            Scores(
                prediction=one.predict(output), target=target, loss=one.item_loss(output, target)
            ),
            rules(count_noise=noise),
        )
        for one in (task, same)
    )
    for name in ("cells", "sums"):
        left, right = getattr(found, name), getattr(expected, name)
        assert left.keys() == right.keys()
        assert all(np.array_equal(value, right[key]) for key, value in left.items())
    assert config().task.noised_rows == same.outputs  # what the noise is charged for


def test_its_loss_is_tried_as_code_of_others_before_a_private_round(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.is_dir()
    private = "privacy: {unit: patient, epsilon: 2.0, delta: 0.001, default_patients: 20}"
    run = config(CONFIG.replace("privacy: none", private))
    target = torch.eye(3)[torch.arange(20) % 3]
    patients = Patients(
        image=torch.zeros(20, 0),
        table=torch.randn(20, 2, generator=torch.Generator().manual_seed(1)),
        target=target,
        patient=torch.arange(20),
        pseudonyms=tuple(f"P{n}" for n in range(20)),
    )
    ledger = Ledger(tmp_path / "ledger.db")
    guard = Guard(
        ledger=ledger,
        limit=Limit(epsilon=50.0, delta=0.001),
        cohort="patients",
        noise=ChaChaNoise(),
    )
    site = Site(name="here", train=patients, validation=patients, test=patients, guard=guard)
    tried: list[bool] = []
    check = model_guard.check_model

    def watched(*given: object, foreign: bool, **more: object) -> None:
        tried.append(foreign)
        check(*given, foreign=foreign, **more)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(model_guard, "check_model", watched)
    request = TrainRequest(run="r", round=1, seed=0, config=run, weights=initial_weights(run, 0))
    answer = train_round(site, open_local_model(run, 0), request)
    assert isinstance(answer, SiteUpdate)
    assert answer.spend is not None
    assert tried == [True]
    assert len(ledger.history("patients")) == 1


def test_a_class_of_few_patients_is_not_counted(place: Path) -> None:
    assert place.is_dir()
    task = task_of(config().task)
    target = torch.eye(3)[[0] * 20 + [1] * 20 + [2]]
    scores = Scores(prediction=target, target=target, loss=torch.zeros(41))
    told = task.statistics(scores, rules(smallest_cell=5))
    assert told.cells["positive"][2].sum() == 0


def test_a_cohort_loads_without_the_rows_of_which_no_class_is_made(
    place: Path, tmp_path: Path
) -> None:
    changed(place, "values[1] == 2", "values[0] == 4000")
    sizes = [4, 12, 25, 14, 4000, 3]
    write_labels(
        tmp_path / "s",
        [
            {"PatientID": f"P{n}", "age": 50, "size": size, "side": "left"}
            for n, size in enumerate(sizes)
        ],
    )
    cohort = load(tmp_path / "s", config(), tmp_path / "c")
    assert cohort.items.target.argmax(dim=1).tolist() == [0, 1, 2, 1, 0]
    (lost,) = cohort.unusable
    assert "makes no class" in lost.detail
    assert "4000" not in lost.detail


def test_a_number_of_no_class_that_no_made_up_row_gave_is_named(
    place: Path, tmp_path: Path
) -> None:
    changed(place, 'float("nan"), grade', 'float("nan"), torch.where(values[0] == 7777, 9, grade)')
    rows = [
        {"PatientID": f"P{n}", "age": 50, "size": size, "side": "left"}
        for n, size in enumerate([4, 12, 7777])
    ]
    write_labels(tmp_path / "s", rows)
    cohort = load(tmp_path / "s", config(), tmp_path / "c")
    (lost,) = cohort.unusable
    assert lost.reason is Reason.LABEL_UNUSABLE
    assert "makes class 9 of size, side, expected 0 to 2" in lost.detail


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("grade", ()),
        ("grade * 0 + 1", ("of 168 made-up rows every one that has a class is middle",)),
        ("grade * float('nan')", ("of 168 made-up rows none has a class: every one is left out",)),
        ("grade.clamp(max=1)", ("of 168 made-up rows none is large",)),
    ],
)
def test_classes_that_no_made_up_row_has_are_told(
    place: Path, made: str, said: tuple[str, ...]
) -> None:
    changed(place, 'float("nan"), grade)', f'float("nan"), {made})')
    assert class_remarks(config()) == said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("CALLS.append(1)", "if values[0] > 1: return values[0]", "cannot be recorded"),
        ("CALLS.append(1)", "CALLS.append(1); values = values * len(CALLS)", "is recorded"),
        ("CALLS.append(1)", "values = values * torch.rand(1)", "draws by chance"),
        ("CALLS.append(1)", "values = values + torch.empty(2)", "as it finds it"),
        ("CALLS.append(1)", "values[0] = 0", "in place"),
        ("CALLS.append(1)", "return torch.arange(3.0)[values[0].long()]", "pick by a mask"),
        ("CALLS.append(1)", "return values", r"gives \(2,\) as a row's class"),
        ("CALLS.append(1)", "return 1.0", "cannot be recorded|gives float"),
        ("CALLS.append(1)", "raise KeyError('side')", "cannot be recorded: KeyError"),
        ("[0, 3]", "[0, 2]", "3 classes of 2 columns .a number, one of 2 values. with"),
        ("[0, 3]", "[0]", "takes 3 classes of 1 column .a number. with"),
        ("len(given.edges) + 1", "2", "takes 2 classes"),
        ("len(given.edges) + 1", "given.colours", "fails: AttributeError"),
        ("return (output", "CALLS.append(1); return len(CALLS) * (output", "does otherwise"),
        ("float64))\n", "float64)) + 1\n", "class 3 of .*size=.*0 small, 1 middle, 2 large"),
        ("grade)\n", "grade / 2)\n", r"class 0.5 of a row with size=.*, side=(left|right)"),
        ("grade)\n", "grade + (55 < values[0]) * (values[0] < 65))\n", "class 3 of .*size=60"),
        ('float("nan"), grade', "-1, grade", "class -1 of a row with size=.*, side=unclear"),
        (".square().sum()", ".square().sum() / 0", "not finite"),
        ("stages = TaskExtension(", "stages = dict(", "expected a TaskExtension"),
        ("place=stage_of", "place=None", "place is None, expected a function"),
        ("loss=ranked", "loss=3", "loss is 3, expected a function"),
        ("arguments=Cuts", "arguments=dict", "expected a class of pydantic.BaseModel"),
        ("len(given.edges) + 1", "10**9", "classes gives 1000000000 with these .* 2 to 1000"),
        ("len(given.edges) + 1", "1", "classes gives 1 with these arguments, expected 2 to 1000"),
        ("len(given.edges) + 1", "3.0", "fails: TypeError"),
        ("[0, 3]", "[]", "columns gives 0 of them with these arguments, expected 1 to 1000"),
        ("[0, 3]", "[0, -1]", r"columns gives \[0, -1\] with these arguments, expected of each"),
        ("[0, 3]", "itertools.count()", "columns gives 1001 of them"),
        ("import torch\n", "import torch\nraise SystemExit(5)\n", "be imported: SystemExit: 5"),
        ("CALLS.append(1)", "raise SystemExit(5)", "cannot be recorded: SystemExit: 5"),
        ("return (output", "raise SystemExit(5); return (output", "SystemExit: 5"),
        ("len(given.edges) + 1", "exit(5)", "fails: SystemExit: 5"),
        ("len(given.edges) + 1", "(_ for _ in ()).throw(Stop)", "fails: Stop"),
    ],
)
def test_a_task_that_does_not_keep_its_contract_is_refused(
    place: Path, old: str, new: str, words: str
) -> None:
    changed(place, old, new)
    with pytest.raises(ExtensionRefused, match=words):
        check_extensions(config())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("edges: [10, 20]", "edges: []", "task.arguments of acme-tasks/stages"),
        ("acme-tasks/stages", "acme-tasks/ages", "offered by .* Did you mean acme-tasks/stages"),
        ("acme-tasks/stages", "Acme_Tasks.stages", "task.name is .*mean acme-tasks/stages"),
        ("classes: [small, middle, large]", "classes: [small]", "task.classes is"),
        ("network: table", "network: Acme_Nets/tiny", "Did you mean acme-nets/tiny"),
        ("rounds: 1", "rounds: 1, loss: acme-tasks/ranked", "is learned by its own loss"),
        ("[size,", "[side,", "columns names side twice"),
        ("middle, large", "large, large", "classes names large twice"),
        ("[left, right, unclear]", "[left, right, left]", "values of side names left twice"),
        ("column: age", "column: size", "cohort.table takes column size, which task is to predict"),
        ("network: table", "network: unet", "does not fit"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    place: Path, old: str, new: str, words: str
) -> None:
    assert place.is_dir()
    with pytest.raises(ConfigurationError, match=words):
        check_extensions(config(CONFIG.replace(old, new)))


def test_a_persons_interruption_is_no_refusal(place: Path) -> None:
    changed(place, "CALLS.append(1)", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        check_extensions(config())


def test_a_site_that_does_not_allow_it_refuses_before_anything_is_imported(place: Path) -> None:
    changed(place, "import torch\n", "import torch\nraise SystemExit\n")
    run = config()
    denied = judge_extensions(run, ())
    assert denied is not None
    assert denied.reason is RefusalReason.EXTENSION_NOT_ALLOWED
    with pytest.raises(ExtensionRefused, match="not in this site's list of extensions"):
        check_task_allowed(run, ())
    (pin,) = run.extensions
    rule = AllowedExtension(distribution="acme-tasks", content=(pin.content,))
    assert judge_extensions(run, (rule,)) is None
    check_task_allowed(run, (rule,))
    (place / "acme_tasks" / "__init__.py").write_text(CODE)  # another content than the approved
    denied = judge_extensions(run, (rule,))
    assert denied is not None
    assert denied.reason is RefusalReason.EXTENSION_OTHER_CONTENT


def test_a_policy_sees_it_as_a_task_of_others_and_its_columns_as_targets(place: Path) -> None:
    assert place.is_dir()
    run = config()

    def reason(rules: PolicyRules) -> RefusalReason | None:
        denied = judge(run, rules, "", site="east")
        return None if denied is None else denied.reason

    open_to_all: dict[str, object] = {"private_only": False}
    assert reason(PolicyRules.model_validate(open_to_all)) is None
    for more, expected in (
        ({"tasks": ["diagnosis"]}, RefusalReason.TASK),
        ({"tasks": ["extension"], "targets": ["size"]}, RefusalReason.TARGET),
        ({"tasks": ["extension"], "targets": ["size", "side"]}, None),
    ):
        assert reason(PolicyRules.model_validate(open_to_all | more)) is expected


def test_what_people_approve_names_it_with_its_content(place: Path) -> None:
    assert place.is_dir()
    run = config()
    text = json.dumps(described(run))
    (pin,) = run.extensions
    assert "acme-tasks/stages (task, with its loss" in text
    assert pin.content in text
    assert "of size, side" in text
    assert layout_of(run)["class of acme-tasks/stages"] == ("small", "middle", "large")
