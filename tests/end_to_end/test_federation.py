"""Three hospitals and a coordinator, each a process with a home of its own, and who hears what."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from client.privacy.ledger import Ledger
from common.config.run_config import load_config, without_privacy
from common.messages.signed_envelope import read_envelope, unseal
from common.platform.hash_chain import verify
from common.privacy.accounting import epsilon_of
from server.enrolment.certificates import client_context, server_context
from server.files.coordinator_yaml import host_and_port, load_settings, write_settings
from simulations.synthetic.hospitals import demo_cohort, write_hospital
from tests.end_to_end.federation import Coordinator, Federation, RunAt, SiteAt
from tests.end_to_end.link import Link, Tap
from tests.end_to_end.namespaces import COORDINATOR, separated
from tests.end_to_end.processes import free_port, typed
from tests.end_to_end.simulation import simulated

pytestmark = [pytest.mark.slow, pytest.mark.needs_shared_data]

NAMES = ("east", "south", "west")
ROUNDS = 4
#: Enough to see that everything fits; the whole cohorts take minutes to read.
PATIENTS = 60
CONFIG = Path(__file__).parents[2] / "configs" / "simulations" / "breast-us-diagnosis.yaml"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "breast-us"
CANARY = "CANARY-WORD"


@dataclass(frozen=True)
class Setting:
    """What the tests of this module share."""

    federation: Federation
    link: Link  # everything between any site and the coordinator passes here, and is read
    separate: bool  # the sites are in network namespaces of their own

    def site(self, name: str) -> SiteAt:
        return self.federation.sites[name]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    path = tmp_path_factory.mktemp("federation")
    data = {name: hospital(path / "data" / name, name) for name in NAMES}
    with separated(NAMES) as runs_in:
        host = COORDINATOR if runs_in else "127.0.0.1"
        coordinator = Coordinator.made(path / "coordinator", host)
        link = listening(coordinator, host)
        federation = Federation(coordinator, {})
        try:
            coordinator.start()
            federation.enrol(
                path,
                data,
                before=runs_in,
                rules={
                    "approval": "automatic",
                    "private_only": False,
                    "metrics": "any",
                    # Four runs of epsilon 3 on the same patients.
                    "largest_epsilon_per_cohort": 30.0,
                },
            )
            federation.start()
            yield Setting(federation, link, separate=runs_in is not None)
        finally:
            federation.stop()
            link.close()


def listening(coordinator: Coordinator, host: str) -> Link:
    """Put a line with an ear between the sites and the coordinator."""
    behind = f"127.0.0.1:{free_port()}"
    tap = Tap(server_context(coordinator.folder), client_context(coordinator.folder), "127.0.0.1")
    port = host_and_port(coordinator.address)[1]
    settings = load_settings(coordinator.folder.settings).model_copy(update={"listen": behind})
    write_settings(coordinator.folder.settings, settings)
    return Link(host_and_port(behind), tap, host=host, port=port)


def hospital(folder: Path, name: str) -> Path:
    """Return a hospital's folder: a part of the public cohort, or invented, with planted words."""
    source = SHARED / name
    if not SHARED.is_dir():
        spec = demo_cohort("xray", 3 * PATIENTS)
        of_name = next(h for h in spec.hospitals if h.name == name)
        source = write_hospital(folder.parent / "invented", spec, of_name, 0)
    folder.mkdir(parents=True)
    with (source / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:PATIENTS]
    for place in {row["PatientID"] for row in rows}:
        for path in source.glob(f"{place}*.dcm"):
            shutil.copy(path, folder / path.name)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], "remark"])
        table.writeheader()
        table.writerows({**row, "remark": f"{CANARY} {row['PatientID']}"} for row in rows)
    return folder


def short(path: Path, **changes: object) -> Path:
    """Write the public configuration with fewer rounds."""
    config = load_config(CONFIG)
    assert config.privacy != "none"
    assert config.privacy.training is not None
    assert config.cohort.images is not None
    if not SHARED.is_dir():  # what is invented is no ultrasound
        images = config.cohort.images.model_copy(update={"modalities": ()})
        cohort = config.cohort.model_copy(update={"images": images})
        config = config.model_copy(update={"cohort": cohort})
    less = config.privacy.training.model_copy(update={"rounds": ROUNDS})
    config = config.model_copy(
        update={
            "training": config.training.model_copy(update={"rounds": ROUNDS}),
            "selection": config.selection.model_copy(update={"every": 2}),
            "privacy": config.privacy.model_copy(update={"training": less}),
            **changes,
        }
    )
    path.write_text(config.to_yaml())
    return path


def test_a_federation_ends_where_its_simulation_does(setting: Setting, tmp_path: Path) -> None:
    path = short(tmp_path / "plain.yaml")
    run = setting.federation.coordinator.run(path, "--without-privacy")
    assert run.end(120) == "done", run.message
    config = without_privacy(load_config(path))
    expected = simulated(config, setting.federation.sites, tmp_path / "cache")
    found = run.result()
    assert [sorted(record.updates) for record in found.history] == [list(NAMES)] * ROUNDS
    assert found.best_round == expected.best_round
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=0, atol=1e-6)
        assert value.abs().max() > 1e-3  # there was something to learn


@pytest.fixture(scope="module")
def private_run(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> RunAt:
    path = short(tmp_path_factory.mktemp("private") / "private.yaml")
    run = setting.federation.coordinator.run(path)
    assert run.end(120) == "done", run.message
    return run


def test_a_private_run_costs_what_everybody_says_it_costs(
    setting: Setting, private_run: RunAt
) -> None:
    coordinator, name = setting.federation.coordinator, private_run.place.path.name
    (view,) = json.loads(coordinator.type("status", name, "--json"))
    record = private_run.result().history[-1]
    for site in setting.federation.sites.values():
        mechanisms = Ledger(site.home.ledger).accounts()["patients"][name]
        epsilon = epsilon_of(mechanisms, record.delta[site.name])
        assert 0 < epsilon <= 3.0 + 1e-6
        assert len(mechanisms) == ROUNDS
        assert record.epsilon[site.name] == pytest.approx(epsilon, rel=1e-9)
        assert view["status"]["sites"][site.name]["epsilon"] == pytest.approx(epsilon, rel=1e-9)
        ledger = Ledger(site.home.ledger)
        assert ledger.knows(record.ledgers[site.name])
        tested = ledger.accounts()["patients"][f"{name}/test"]  # once, when training was over
        assert 0 < epsilon_of(tested, record.delta[site.name]) <= 3.0
        assert ledger.head().charges == record.ledgers[site.name].charges + len(tested)
        assert len(tested) == 1
        said = json.loads(site.type("budget", "--json"))
        last = [line.disclosure for line in site.sent() if line.disclosure.run == name][-1]
        assert said["cohorts"]["patients"]["spent"] == pytest.approx(last.epsilon)


def test_what_left_is_on_record_at_both_sides(setting: Setting, private_run: RunAt) -> None:
    verify(private_run.place.journal)
    name = private_run.place.path.name
    for site in setting.federation.sites.values():
        assert "the chain holds" in site.type("disclosures", "verify")
        lines = [line.disclosure for line in site.sent() if line.disclosure.run == name]
        assert [line.round for line in lines] == list(range(1, ROUNDS + 1))
        reports = [x for x in site.sent("report") if x.disclosure.run == name]
        assert len(reports) == 1  # a private run is measured at its end
        # The bytes on the line are those of the record: each answer's header passed by.
        answers = [read_envelope(path) for path in site.home.outbox.rglob("*.answer")]
        kinds = ("update", "report", "cohort")
        digests = {line.disclosure.sha256 for kind in kinds for line in site.sent(kind)}
        assert answers
        assert {answer.digest.hex() for answer in answers} <= digests
        assert all(answer.header.encode() in setting.link.said for answer in answers)


def test_nothing_of_a_patient_leaves_a_hospital(setting: Setting, private_run: RunAt) -> None:
    assert private_run.state == "done"
    words = canaries(setting)
    places = {
        "the line": bytes(setting.link.said),
        **contents(setting.federation.coordinator.folder.path),
    }
    for site in setting.federation.sites.values():
        places |= contents(site.home.outbox) | contents(site.home.log)
        places[f"{site.name}: disclosures"] = site.home.disclosures.read_bytes()
        for path in site.home.outbox.rglob("*.answer"):
            answer = read_envelope(path)  # frames are compressed: look at what they say
            places[f"{path}: opened"] = repr(unseal(answer.header, answer.frames)).encode()
    found = [(p, w) for p, content in places.items() for w in words if w.encode() in content]
    assert found == []
    assert len(setting.link.said) > 20_000
    assert b"breast-us-diagnosis" in setting.link.said  # it is heard what they say


def canaries(setting: Setting) -> set[str]:
    """Return identifiers of patients, of images, names of files and folders, and words."""
    words = {CANARY}
    for site in setting.federation.sites.values():
        words |= {str(site.data), site.data.parent.name + "/" + site.data.name}
        words |= {path.name for path in site.data.glob("*.dcm")}
        with (site.data / "labels.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                words |= {row["PatientID"], row["StudyInstanceUID"]}
    return words


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_site_above_whose_limit_a_run_is_refuses_and_the_others_go_on(
    setting: Setting, tmp_path: Path
) -> None:
    coordinator, west = setting.federation.coordinator, setting.site("west")
    charges = west.charges
    west.allow(largest_epsilon_per_run=1.0)
    try:
        two = {"smallest_quorum": 2}
        config = load_config(CONFIG).aggregation
        path = short(tmp_path / "two.yaml", aggregation=config.model_copy(update=two))
        run = coordinator.run(path)
        assert run.end(120) == "done", run.message
        assert [sorted(r.updates) for r in run.result().history] == [["east", "south"]] * ROUNDS
        assert run.board["sites"]["west"]["state"] == "refused"
        assert "epsilon" in run.board["sites"]["west"]["why"]
        assert west.charges == charges
        three = {"smallest_quorum": 3}
        path = short(tmp_path / "three.yaml", aggregation=config.model_copy(update=three))
        said = coordinator.type("run", str(path), status=1)
        assert "of 3 sites take part, expected at least 3" in " ".join(said.split())
        assert "west:" in said
        assert "epsilon" in said
    finally:
        west.allow(largest_epsilon_per_run=3.0)


def test_a_sites_network_reaches_the_sites_listener_alone(setting: Setting) -> None:
    if not setting.separate:
        pytest.skip("this machine gives no network namespaces")
    coordinator, east = setting.federation.coordinator, setting.site("east")
    settings = load_settings(coordinator.folder.settings)
    program = (
        "import socket, sys\n"
        "for address in sys.argv[1:]:\n"
        "    host, _, port = address.rpartition(':')\n"
        "    try: socket.create_connection((host, int(port)), 3); print('open')\n"
        "    except OSError: print('closed')\n"
    )
    operator_port = settings.operator.rpartition(":")[2]
    asked = (settings.address, settings.operator, f"{COORDINATOR}:{operator_port}")
    done = typed(*east.before, "python3", "-c", program, *asked)
    assert done.stdout.split() == ["open", "closed", "closed"]
