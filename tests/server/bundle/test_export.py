from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from client.privacy.ledger import Ledger, Limit
from client.training.training_site import Guard, Site
from common.bundle.evidence import calibration_from_json
from common.bundle.write import read_bundle
from common.config.run_config import RunConfig, parse_config
from common.messages.wire import Refusal, RefusalReason, SiteUpdate, TrainRequest
from common.metrics.intervals import Estimate
from common.platform.code_hash import bundle_hash
from common.platform.errors import ConfigurationError, RunFailed, StateDamaged
from common.platform.hash_chain import verify
from common.privacy.noise import ChaChaNoise
from server.aggregation.rules import aggregator_of
from server.bundle.export import export
from server.files.folder import RunFolder
from server.files.status_writer import Board, SiteLine
from server.processes import run_process as app
from server.rounds.journal import Journal
from server.rounds.run_rounds import RunRecords, begin, run_rounds
from server.rounds.run_state import RunStore
from simulations.engines.in_process import InProcessSites
from tests.privacy.made_up import patients_of

NAMES = ("east", "north", "south")


PRIVACY = "{unit: patient, epsilon: 2.0, default_patients: 20, delta: 0.005}"


def config_of(more: str = "", *, privacy: str = PRIVACY) -> RunConfig:
    return parse_config(f"""
name: line
task: {{kind: diagnosis, target: ill}}
cohort: {{table: {{numbers: [{{column: age}}, {{column: crp}}]}}}}
model: {{network: table}}
training: {{rounds: 3, optimizer: sgd, learning_rate: 0.1}}
selection: {{rule: best, by: metric}}
privacy: {privacy}
{more}
""")


class Sites(InProcessSites):
    """Three hospitals; south leaves after the first round, east says odd things in the last."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        patients = patients_of((1,) * 20, image=(0,))
        self.sites = {
            name: Site(
                name=name,
                train=patients,
                validation=patients,
                test=patients,
                guard=Guard(
                    ledger=Ledger(folder / f"{name}.db"),
                    limit=Limit(epsilon=50.0, delta=1e-3),
                    cohort="patients",
                    noise=ChaChaNoise(),
                ),
            )
            for name in NAMES
        }
        super().__init__(self.sites, config, 0)

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        for answer in super().train(request, sites):
            if answer.site == "south" and request.round > 1:
                yield Refusal(
                    run=request.run, round=request.round, site="south", reason=RefusalReason.PAUSED
                )
            elif answer.site == "east" and request.round == 3 and isinstance(answer, SiteUpdate):
                assert answer.spend is not None
                yield SiteUpdate(
                    run=request.run,
                    round=3,
                    site="east",
                    steps=1,
                    spend=answer.spend,
                    delta={"MUSTER^MAX /data/1.2.840.1.1": torch.zeros(1)},
                )
            else:
                yield answer


def finished(path: Path, config: RunConfig) -> RunFolder:
    """Leave a run on disk as the run's process leaves it."""
    place = RunFolder(path / "line-1")
    place.path.mkdir(parents=True)
    place.config.write_text(config.to_yaml(), encoding="utf-8")
    state_of_run(place, "done")
    sites, aggregator = Sites(config, path), aggregator_of(config.aggregation, 3)
    board = Board(path=place.status, run="line-1", rounds=3, quorum=1)
    board.sites = {
        "east": SiteLine(patients=20),
        "north": SiteLine(patients=4),
        "south": SiteLine(),
    }
    board.write()
    journal = Journal(place.journal)
    run_rounds(
        config,
        sites,
        aggregator,
        begin(config, "line-1", 7, aggregator),
        RunRecords(store=RunStore(place.state), journal=journal),
    )
    measure(place, journal)
    return place


def measure(place: RunFolder, journal: Journal) -> None:
    north = Estimate(value=0.8, low=0.7, high=0.9, patients=20).to_json()
    small = Estimate(value=0.8, low=0.7, high=0.9, patients=3).to_json()
    content = json.dumps(
        {
            "chosen_round": 3,
            "metrics": {"auroc": north},
            "by_site": {"north": {"auroc": north}, "south": {"auroc": small}},
            "calibration": [
                {
                    "label": "ill",
                    "intercept": 0.1,
                    "slope": None,
                    "bins": [{"patients": 20.0, "predicted": 0.25, "seen": 0.3}],
                }
            ],
            "confusion": [
                {
                    "classes": ["well", "ill"],
                    "counts": [[9.0, 2.5], [1.5, 7.0]],
                    "least": [[9.0, 0.0], [0.0, 7.0]],
                    "most": [[9.0, 5.0], [5.0, 7.0]],
                    "noise": 0.0,
                }
            ],
            "observed_survival": [{"time": 6.0, **north}],
        }
    ).encode()
    place.results.write_bytes(content)
    journal.write("measured", {"round": 3, "sha256": hashlib.sha256(content).hexdigest()})


def state_of_run(place: RunFolder, state: str) -> None:
    place.run.write_text(json.dumps({"run": "line-1", "state": state}), encoding="utf-8")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return finished(tmp_path_factory.mktemp("run"), config_of().in_force())


@pytest.fixture
def run(original: RunFolder, tmp_path: Path) -> RunFolder:
    """Return a copy that a test may damage."""
    return RunFolder(shutil.copytree(original.path, tmp_path / "line-1"))


@pytest.fixture(scope="module")
def exported(original: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    export(original.path, out)
    return out


# --- what a bundle holds -------------------------------------------------------------------


@pytest.mark.slow
def test_a_bundle_holds_the_weights_that_the_run_chose(original: RunFolder, exported: Path) -> None:
    bundle, state = read_bundle(exported), RunStore(original.state).load()
    assert state is not None
    assert bundle.weights.keys() == state.chosen.keys()
    assert all(torch.equal(bundle.weights[n], v) for n, v in state.chosen.items())
    assert bundle.config == config_of().in_force()


@pytest.mark.slow
def test_the_card_tells_where_the_model_comes_from(original: RunFolder, exported: Path) -> None:
    card = read_bundle(exported).card
    origin = card["origin"]
    assert isinstance(origin, dict)
    assert (origin["run"], origin["finished"], origin["code"]) == ("line-1", True, bundle_hash())
    assert origin["journal"] == verify(original.journal)
    assert [r["round"] for r in origin["rounds"]] == [1, 2, 3]
    assert origin["rounds"][1]["left_out"] == {"south": RefusalReason.PAUSED.value}
    readme = (exported / "README.md").read_text(encoding="utf-8")
    assert origin["journal"] in readme
    assert "| north | 3 |" in readme


@pytest.mark.slow
def test_privacy_counts_what_sites_spent_that_left_before_the_end(exported: Path) -> None:
    privacy = str(read_bundle(exported).card["privacy"])
    assert "Differential privacy by patient" in privacy
    assert all(f"{name} epsilon" in privacy for name in NAMES)
    assert "at delta 0.005, which is " in privacy
    assert "at delta 1e-05" in privacy
    assert "exact number" not in privacy
    assert "Simulated" not in privacy


@pytest.mark.slow
def test_of_sites_only_what_they_told_is_in_it_and_no_small_cell(exported: Path) -> None:
    origin = read_bundle(exported).card["origin"]
    assert isinstance(origin, dict)
    told = {n: (s["training_patients"], s["test_patients"]) for n, s in origin["sites"].items()}
    assert told == {"east": (20, None), "north": (None, 20), "south": (None, None)}
    assert {n: s["rounds"] for n, s in origin["sites"].items()} == {
        "east": 2,
        "north": 3,
        "south": 1,
    }


@pytest.mark.slow
def test_metrics_have_intervals_and_say_on_whom_they_were_measured(exported: Path) -> None:
    metrics = read_bundle(exported).card["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["test"]["all"]["auroc"]["low"] == 0.7
    assert metrics["test"]["north"]["auroc"]["patients"] == 20


@pytest.mark.slow
def test_the_card_has_patients_by_site_and_the_calibration_that_was_measured(
    exported: Path,
) -> None:
    card = read_bundle(exported).card
    assert card["data"] == {
        "east": {"training_patients": 20, "test_patients": None},
        "north": {"training_patients": None, "test_patients": 20},
        "south": {"training_patients": None, "test_patients": None},
    }
    are = {"training_patients": "agreed", "test_patients": "exact"}
    assert card["data_are"] == dict.fromkeys(("east", "north", "south"), are)
    assert isinstance(card["calibration"], list)
    assert card["calibration"][0]["bins"] == [{"patients": 20.0, "predicted": 0.25, "seen": 0.3}]
    assert isinstance(card["confusion"], list)
    assert card["confusion"][0]["most"] == [[9.0, 5.0], [5.0, 7.0]]
    assert card["observed_survival"] == [
        {"time": 6.0, "value": 0.8, "low": 0.7, "high": 0.9, "patients": 20, "bound": 0.0}
    ]
    assert "not recorded" in str(card["no_subgroups"])
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert "| east | 20 agreed | - |" in text
    assert "| `well` | 9 | 2.5 (0 to 5) |" in text
    assert "| 6 | 0.80 | 0.70 to 0.90 |" in text
    assert "`ill`: intercept 0.10, slope not to be had" in text
    assert "| north | - | 20 exact |" in text
    assert "| 20 | 0.250 | 0.300 |" in text


@pytest.mark.slow
def test_no_text_that_a_site_sent_is_in_any_file(original: RunFolder, exported: Path) -> None:
    assert b"MUSTER" in original.journal.read_bytes()  # it was noted, at the coordinator
    for path in exported.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"MUSTER" not in content
        assert b"1.2.840" not in content


@pytest.mark.slow
def test_a_stopped_run_gives_its_last_round_and_says_so(run: RunFolder, tmp_path: Path) -> None:
    for path in run.state.glob("round-00003.*"):
        path.unlink()
    lines = run.journal.read_bytes().splitlines(keepends=True)
    run.journal.write_bytes(b"".join(lines[:-1]))  # it was not measured
    lines = [x for x in lines[:-1] if b'"round": 3' not in x]
    run.journal.write_bytes(b"".join(lines))
    state_of_run(run, "stopped")
    export(run.path, tmp_path / "out")
    card = read_bundle(tmp_path / "out").card
    assert isinstance(card["origin"], dict)
    assert isinstance(card["metrics"], dict)
    assert card["origin"]["finished"] is False
    assert "test" not in card["metrics"]


def test_measuring_a_run_gives_the_calibration_of_what_sites_told(
    original: RunFolder, tmp_path: Path
) -> None:
    config, state = config_of(privacy="none").in_force(), RunStore(original.state).load()
    assert state is not None
    found = app.measure(config, Sites(config, tmp_path), state)  # type: ignore[arg-type]
    (told,) = calibration_from_json(found["calibration"])  # type: ignore[arg-type]
    assert told.label == "ill"
    assert sum(part.patients for part in told.bins) <= 60
    assert all(part.patients >= config.evaluation.smallest_cell for part in told.bins)
    assert json.dumps(found, allow_nan=False)


# --- what is refused -----------------------------------------------------------------------


def other_weights(run: RunFolder) -> None:
    path = run.state / "round-00003.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_facts(run: RunFolder) -> None:
    path = run.state / "round-00003.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))


def other_line(run: RunFolder) -> None:
    run.journal.write_bytes(run.journal.read_bytes().replace(b'"north"', b'"nomad"', 1))


def fewer_lines(run: RunFolder) -> None:
    lines = run.journal.read_bytes().splitlines(keepends=True)
    run.journal.write_bytes(b"".join(lines[:2]))


def other_journal(run: RunFolder) -> None:
    """Replace the journal by one whose chain holds, of a run that never was."""
    run.journal.unlink()
    Journal(run.journal).write("begun", {"run": "other"})


def other_rounds(run: RunFolder) -> None:
    """Replace the journal by one whose chain holds, of other rounds."""
    lines = [json.loads(line) for line in run.journal.read_text().splitlines()]
    run.journal.unlink()
    journal = Journal(run.journal)
    for line in lines:
        if line["event"] == "round":
            line["updates"] = ["somebody"]
        journal.write(line["event"], {n: v for n, v in line.items() if n != "event"})


def no_journal(run: RunFolder) -> None:
    run.journal.unlink()


def other_results(run: RunFolder) -> None:
    run.results.write_bytes(run.results.read_bytes().replace(b"0.8", b"0.9"))


def other_configuration(run: RunFolder) -> None:
    text = config_of("description: better").in_force().to_yaml()
    run.config.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        other_weights,
        other_facts,
        other_line,
        fewer_lines,
        other_journal,
        other_rounds,
        no_journal,
        other_results,
        other_configuration,
    ],
)
def test_whatever_was_changed_since_the_run_is_refused(
    run: RunFolder, tmp_path: Path, damage: Callable[[RunFolder], None]
) -> None:
    damage(run)
    with pytest.raises(StateDamaged, match=r"[Rr]estore|evidence|resume"):
        export(run.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_at_work_is_not_exported(run: RunFolder, tmp_path: Path) -> None:
    state_of_run(run, "running")
    with pytest.raises(RunFailed, match="wardround-coordinator stop line-1"):
        export(run.path, tmp_path / "out")


def test_a_run_without_a_round_or_no_run_at_all_has_no_model(
    run: RunFolder, tmp_path: Path
) -> None:
    shutil.rmtree(run.state)
    with pytest.raises(RunFailed, match="no round yet"):
        export(run.path, tmp_path / "out")
    with pytest.raises(ConfigurationError, match="There is no run"):
        export(tmp_path / "nowhere", tmp_path / "out")


def test_a_folder_with_other_files_is_left_alone(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    with pytest.raises(ConfigurationError, match="Take another folder"):
        export(run.path, tmp_path / "out")


def test_a_model_whose_parts_stay_at_the_sites_is_no_whole_one(tmp_path: Path) -> None:
    config = parse_config("""
name: pictures
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [16, 16]}}
model: {network: small_cnn}
training: {rounds: 1}
personalisation: {method: personal_head}
privacy: none
""")
    place = RunFolder(tmp_path / "pictures-1")
    place.path.mkdir()
    place.config.write_text(config.to_yaml(), encoding="utf-8")
    state = begin(config, "pictures-1", 7, aggregator_of(config.aggregation, 2))
    RunStore(place.state).save(state)
    Journal(place.journal).write(
        "begun", {"run": "pictures-1", "configuration": config.fingerprint(), "seed": 7}
    )
    with pytest.raises(ConfigurationError, match="there is no whole one to export"):
        export(place.path, tmp_path / "out")
