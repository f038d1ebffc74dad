"""An extension between hospitals: used where it is allowed, refused by a site that lacks it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from client.inference.trained_model import open_model, score_study
from client.site.extensions_section import AllowedExtension
from client.site.site_config import allowed_extensions, load_site_config, write_site_config
from common.config.run_config import RunConfig, load_config
from common.extensions.content import installed
from common.messages.refusals import RefusalReason
from common.platform.errors import ExtensionRefused
from server.bundle.export import export
from server.rounds.run_state import RunState
from tests.client.dicom_files import image, noise, save
from tests.end_to_end.cohorts import table_config, write_tables
from tests.end_to_end.command import compare
from tests.end_to_end.federation import OPEN, Coordinator, Federation, SiteAt
from tests.end_to_end.processes import python_with
from tests.end_to_end.simulation import simulated
from tests.extensions import built, install, on_path

pytestmark = pytest.mark.slow

#: west has not installed it.
USERS = ("east", "north")
MERGED = {
    "aggregation": "{smallest_quorum: 2, rule: example-nets/clipped_mean, "
    "arguments: {longest: 0.05}}",
    "evaluation": "{bootstrap: 20, metrics: [example-nets/balanced_accuracy]}",
}
GRADES = {
    "task": "{kind: extension, name: example-nets/grades, arguments: {edges: [55, 65]}, "
    "columns: [{column: age}], classes: [young, middle, old]}",
    "cohort": "{table: {numbers: [{column: crp, center: 3, scale: 1}, "
    "{column: ill, center: 0.5, scale: 0.5}]}}",
}
MODEL = {"model": "{network: example-nets/tiny, arguments: {width: 4}}", **MERGED}
BACKBONE = {
    "model": "{network: frozen_features, backbone: example-nets/filters, arguments: {width: 8}}",
    "cohort": "{images: {size: [16, 16]}}",
}


@dataclass(frozen=True)
class Setting:
    """What the tests of this module share."""

    federation: Federation
    content: str
    folder: Path


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    path = tmp_path_factory.mktemp("extensions")
    place = install(built(path / "wheel"), path / "site-packages")
    with on_path(place):
        found = installed("example-nets")
        assert found is not None
        python = [str(python_with(path / "environment", place))]
        coordinator = Coordinator.made(path / "coordinator", before=python)
        federation = Federation(coordinator, {})
        try:
            federation.coordinator.start()
            data = write_tables(path / "data")
            write_images({name: data[name] for name in USERS})
            federation.enrol(path, data, before=dict.fromkeys(USERS, python), rules=OPEN)
            for site in federation.sites.values():
                allow(site, found.extension.content)
            federation.start()
            yield Setting(federation, found.extension.content, path)
        finally:
            federation.stop()


def write_images(data: Mapping[str, Path], patients: int = 60) -> None:
    """Write an image of each patient."""
    for name, folder in data.items():
        for number in range(patients):
            pixels = noise(20, 20, seed=number)
            save(folder / f"{number}.dcm", image(pixels, f"{name}-{number}", study=f"S{number}"))


def allow(site: SiteAt, content: str) -> None:
    config = load_site_config(site.home.site_yaml)
    rule = AllowedExtension(distribution="example-nets", content=(content,))
    write_site_config(site.home.site_yaml, config.model_copy(update={"extensions": (rule,)}))


def expected_of(config: RunConfig, setting: Setting, names: tuple[str, ...] = USERS) -> RunState:
    sites = {name: setting.federation.sites[name] for name in names}
    return simulated(config, sites, setting.folder / "cache")


def test_a_federation_with_an_extension_ends_where_its_simulation_does(setting: Setting) -> None:
    run = setting.federation.coordinator.run(table_config(setting.folder, more=MODEL))
    assert run.end(180) == "done", run.message
    config = load_config(run.place.config)
    assert [e.content for e in config.extensions] == [setting.content]
    expected, found = expected_of(config, setting), run.result()
    assert [sorted(record.updates) for record in found.history] == [list(USERS)] * 3
    check_same(found, expected)
    said = run.board["sites"]["west"]
    assert said["why"] == RefusalReason.EXTENSION_NOT_INSTALLED.value
    text = setting.federation.sites["east"].type("runs", run.place.path.name)
    assert "example-nets/tiny" in text
    assert setting.content in text


def test_a_task_of_others_trains_as_in_its_simulation_without_who_lacks_it(
    setting: Setting,
) -> None:
    run = setting.federation.coordinator.run(table_config(setting.folder, "graded", more=GRADES))
    assert run.end(180) == "done", run.message
    config, found = load_config(run.place.config), run.result()
    assert [sorted(record.updates) for record in found.history] == [list(USERS)] * 3
    expected = expected_of(config, setting)
    for name, value in expected.weights.items():
        assert torch.equal(found.weights[name], value), name
    told, meant = (  # as text, in which two values that are not known are the same
        [sorted(map(str, record.metrics.items())) for record in state.history]
        for state in (found, expected)
    )
    assert told == meant
    assert {"macro_auroc", "auroc_young", "auroc_old"} <= found.history[-1].metrics.keys()
    said = run.board["sites"]["west"]
    assert said["why"] == RefusalReason.EXTENSION_NOT_INSTALLED.value
    text = setting.federation.sites["east"].type("runs", run.place.path.name)
    assert "example-nets/grades (task, with its loss" in text
    assert setting.content in text


def test_a_site_looks_at_its_cohort_by_a_task_of_others_once_it_allows_it(setting: Setting) -> None:
    path, east = table_config(setting.folder, "seen", more=GRADES), setting.federation.sites["east"]
    assert "60 patients with 60 items can be used" in east.type("index", str(path))
    allow(east, "sha256:" + "0" * 64)
    try:
        for command in ("index", "report"):
            assert "not in this site's list" in east.type(command, str(path), status=2)
    finally:
        allow(east, setting.content)


def check_same(found: RunState, expected: RunState) -> None:
    for name, value in expected.weights.items():
        assert torch.equal(found.weights[name], value), name
    metrics = [dict(record.metrics) for record in found.history]
    assert metrics == [dict(record.metrics) for record in expected.history]
    assert 0 < metrics[-1]["example-nets/balanced_accuracy"].value < 1


def test_a_frozen_backbone_trains_alike_everywhere_and_its_bundle_scores(setting: Setting) -> None:
    run = setting.federation.coordinator.run(
        table_config(setting.folder, "frozen", rounds=1, more=BACKBONE)
    )
    assert run.end(180) == "done", run.message
    config, found = load_config(run.place.config), run.result()
    assert [e.content for e in config.extensions] == [setting.content]
    expected = expected_of(config, setting)
    for name, value in expected.weights.items():
        assert torch.equal(found.weights[name], value), name
        assert value.shape in {(1, 8), (1,)}
    said = run.board["sites"]["west"]
    assert said["why"] == RefusalReason.EXTENSION_NOT_INSTALLED.value
    east = setting.federation.sites["east"]
    text = east.type("runs", run.place.path.name)
    assert "example-nets/filters (frozen backbone, with {'width': 8})" in text
    bundle = setting.folder / "frozen-bundle"
    export(run.place.path, bundle)
    with pytest.raises(ExtensionRefused, match="takes its network, backbone or task from"):
        open_model(bundle)
    opened = open_model(bundle, allowed_extensions(east.home.site_yaml))
    (score,) = score_study([east.data / "1.dcm"], opened)
    assert 0 < score.quantities[0].value < 1


def test_a_private_simulation_takes_a_frozen_backbone(setting: Setting) -> None:
    path = table_config(setting.folder, "quiet", rounds=1, more=BACKBONE)
    data = setting.folder / "quiet-data"
    write_images(write_tables(data, USERS))
    arms = ("--arms", "federated_dp", "--seeds", "1", "--epsilon", "3")
    done = compare(path.read_text(), data, *arms, out=setting.folder / "quiet")
    assert done.status == 0, done.text
    assert done.results["arms"]["federated_dp"]["epsilon"] == pytest.approx(3, rel=0.01)
    card = json.loads((setting.folder / "quiet" / "bundle" / "card.json").read_text())
    assert card["backbone"] == {"name": "example-nets/filters", "content": setting.content}


def test_a_site_needs_nothing_of_what_merges_released_updates_and_counts(setting: Setting) -> None:
    run = setting.federation.coordinator.run(table_config(setting.folder, "merged", more=MERGED))
    assert run.end(180) == "done", run.message
    found = run.result()
    assert [sorted(record.updates) for record in found.history] == [["east", "north", "west"]] * 3
    check_same(found, expected_of(load_config(run.place.config), setting, (*USERS, "west")))
    text = setting.federation.sites["west"].type("runs", run.place.path.name)
    assert "It runs at the coordinator alone" in text


def test_a_site_that_did_not_allow_it_says_so_and_how_it_could(setting: Setting) -> None:
    east = setting.federation.sites["east"]
    allow(east, "sha256:" + "0" * 64)
    try:
        text = east.type("extensions")
        assert "example-nets 1.0.0" in text
        assert f"content: '{setting.content}'" in text
        path = table_config(setting.folder, "other", more=MODEL)
        assert "not in this site's list of extensions" in east.type("refuse", str(path), "--yes")
    finally:
        allow(east, setting.content)
    assert "runs that are approved may use it" in east.type("extensions")


def test_a_simulation_takes_it_from_the_same_file_privately_too(setting: Setting) -> None:
    path = table_config(setting.folder, "alone", rounds=1, more=MODEL)
    data = next(iter(setting.federation.sites.values())).data.parent
    out = setting.folder / "simulated"
    arms = ("--arms", "federated,federated_dp", "--seeds", "1", "--epsilon", "3")
    done = compare(path.read_text(), data, *arms, out=out)
    assert done.status == 0, done.text
    assert setting.content in (out / "config.yaml").read_text()
    assert done.results["arms"]["federated_dp"]["epsilon"] == pytest.approx(3, rel=0.01)
    card = (out / "bundle" / "README.md").read_text()
    assert "code that is not Wardround's" in card or "No privacy claim" in card
    with pytest.raises(ExtensionRefused, match="not in this site's list of extensions"):
        open_model(out / "bundle")
    opened = open_model(
        out / "bundle", allowed_extensions(setting.federation.sites["east"].home.site_yaml)
    )
    assert opened.config.extensions[0].content == setting.content
