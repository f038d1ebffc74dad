from __future__ import annotations

import copy
import io
import json
import logging
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from common.bundle import onnx as bundle_onnx
from common.bundle import write as bundle
from common.bundle.card import table_columns
from common.bundle.onnx import TOLERANCE, Deployed, difference, example_inputs, onnx_of, tolerated
from common.bundle.torchscript import quiet
from common.bundle.write import (
    BUNDLE_FILES,
    MODEL_TS,
    PREPARATION_TS,
    UNFINISHED,
    Card,
    is_free,
    read_bundle,
    write_bundle,
)
from common.config.run_config import RunConfig, parse_config
from common.data.weights import load_into
from common.metrics.intervals import Estimate
from common.models.run_network import network_of
from common.platform.errors import RunFailed, StateDamaged

FRAME = "{{name: example, training: {{rounds: 1}}, privacy: none, {}}}"
TABLE = "table: {numbers: [{column: age}], categories: [{column: sex, values: [f, m]}]}"
SMALL = "model: {network: small_cnn, width: 4}"

CASES = {
    "binary": "task: {kind: diagnosis, target: malignant},"
    f"cohort: {{images: {{size: [16, 16]}}}}, {SMALL}",
    "fused_labels": "task: {kind: diagnosis, type: multilabel, target: [edema, effusion]},"
    f"cohort: {{images: {{size: [16, 16]}}, {TABLE}}}, {SMALL}",
    "table_classes": "task: {kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]},"
    f"cohort: {{{TABLE}}}, model: {{network: table, hidden: [4]}}",
    "survival": "task: {kind: prognosis, time: months, unit: months, intervals: [6, 12, 24]},"
    f"cohort: {{{TABLE}}}, model: {{network: table}}",
    "grades": "task: {kind: diagnosis, type: ordinal, target: grade, classes: [none, some, much]},"
    f"cohort: {{{TABLE}}}, model: {{network: table}}",
    "causes": "task: {kind: prognosis, outcome: competing, time: months, unit: months,"
    "intervals: [6, 12, 24], causes: [relapse, death]},"
    f"cohort: {{{TABLE}}}, model: {{network: table}}",
    "frozen_fused": "task: {kind: prognosis, outcome: fixed_horizon, event: died},"
    f"cohort: {{images: {{size: [40, 32], channels: 3}}, {TABLE}}},"
    "model: {network: frozen_features, projection: 16}",
    "bags": "task: {kind: prognosis, time: months, unit: months, intervals: [6, 12, 24]},"
    f"cohort: {{images: {{size: [16, 16]}}, {TABLE}}},"
    "model: {network: small_cnn, width: 4, pool: attention}",
    "volume_outlines": "task: {kind: segmentation, structures: {head: [1], body: [2]}},"
    "cohort: {images: {size: [8, 8, 16]}}, model: {network: unet, width: 2}",
}
#: Of these, the ones whose export takes seconds.
LONG = ("frozen_fused", "bags", "volume_outlines")
WIDE = {
    name: "task: {kind: diagnosis, target: y}, cohort: {images: {size: [32, 32]}},"
    f"model: {{network: {name}}}"
    for name in ("densenet121", "resnet18", "efficientnet_b0", "vit")
} | {
    name: "task: {kind: segmentation}, cohort: {images: {size: [32, 32]}},"
    f"model: {{network: {name}, width: 12}}"
    for name in ("segresnet", "dynunet", "swin_unetr")
}

CARD = Card(
    metrics={
        "federated": {
            "all": {"auroc": Estimate(value=0.9, low=0.8, high=0.95, patients=40)},
            "north": {
                "auroc": Estimate(
                    value=float("nan"), low=float("nan"), high=float("nan"), patients=3
                )
            },
        }
    },
    privacy="Trained without privacy: no claim is made.",
    seed=5,
    round=2,
)


def config_of(case: str) -> RunConfig:
    return parse_config(FRAME.format((CASES | WIDE)[case]))


def trained(config: RunConfig) -> nn.Module:
    """Return a network with weights that no initialiser gives."""
    network = network_of(config, seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return network


def answers(path: Path, config: RunConfig, items: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return what the ONNX file and the network in `read_bundle` say about the same items."""
    inputs = example_inputs(config, items, seed=9)
    bundle = read_bundle(path)
    session = onnxruntime.InferenceSession(bundle.onnx)
    network = network_of(bundle.config, seed=0)
    load_into(network, bundle.weights)
    with torch.no_grad():
        expected = [value.numpy() for value in Deployed(network, bundle.config)(**inputs)]
    return session.run(None, {n: v.numpy() for n, v in inputs.items()}), expected


@pytest.fixture(
    scope="module",
    params=[
        *(name for name in CASES if name not in LONG),
        *(pytest.param(name, marks=pytest.mark.slow) for name in (*LONG, *WIDE)),
    ],
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, Path]:
    """Return a case and its bundle; an export takes seconds."""
    config, path = config_of(request.param), tmp_path_factory.mktemp("exported")
    write_bundle(path, trained(config), config, CARD)
    return config, path


def test_a_bundle_answers_as_the_trained_network_does(exported: tuple[RunConfig, Path]) -> None:
    config, path = exported
    for items in (1, 4):
        found, expected = answers(path, config, items)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    assert read_bundle(path).config == config


def test_torchscript_answers_as_the_trained_network_does(exported: tuple[RunConfig, Path]) -> None:
    config, path = exported
    content = (path / MODEL_TS).read_bytes()
    with quiet():
        program = torch.jit.load(io.BytesIO(content))
    inputs = example_inputs(config, 5, seed=9)
    with torch.no_grad():
        prediction, output = Deployed(trained(config), config)(**inputs)
        answer = output if config.task.kind == "segmentation" else prediction
        assert torch.equal(program(*inputs.values()), answer)
        assert torch.equal(program.output(*inputs.values()), output)
        assert torch.equal(program.predict(output), prediction)
    assert str(Path(__file__).parents[3]).encode() not in content, "it names this machine's files"
    assert b"debug_pkl" not in content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    config = config_of("survival")
    write_bundle(path, trained(config), config, CARD)
    return path


def test_the_readmes_code_runs_as_it_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert printed.startswith("['6 months', '12 months', '24 months'] [[0.")
    assert CARD.privacy in text


def test_a_prediction_is_what_a_person_reads(folder: Path) -> None:
    config = config_of("survival")
    (survival, hazards), _ = answers(folder, config, 3)
    by_hand = np.cumprod(1 - 1 / (1 + np.exp(-hazards)), axis=1)
    np.testing.assert_allclose(survival, by_hand, atol=1e-5)


def test_the_card_says_inputs_metrics_privacy_and_run(folder: Path) -> None:
    config = config_of("survival")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (table,) = card["inputs"]
    assert table["name"] == "table"
    assert table["shape"] == ["items", 5]
    assert table["columns"] == ["age", "sex=f", "sex=m", "age is missing", "sex is missing"]
    assert card["metrics"]["federated"]["all"]["auroc"]["low"] == 0.8
    assert card["metrics"]["federated"]["north"]["auroc"]["value"] is None
    assert card["privacy"] == CARD.privacy
    assert card["run"]["fingerprint"] == config.fingerprint()
    assert (card["run"]["seed"], card["run"]["round"]) == (5, 2)
    assert set(card["versions"]) >= {"torch", "onnx"}


@pytest.mark.parametrize("case", CASES)
def test_labels_are_as_many_as_a_prediction_has(case: str) -> None:
    config = config_of(case)
    prediction, output = Deployed(trained(config), config)(**example_inputs(config, 2))
    channels = output if config.task.kind == "segmentation" else prediction
    assert len(config.task.labels) == channels.shape[1]


def test_the_tables_columns_are_as_many_as_its_width() -> None:
    table = config_of("survival").cohort.table
    assert table is not None
    assert len(table_columns(table)) == table.width


def test_an_export_that_computes_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("survival")
    other, export = trained(config), bundle_onnx._exported
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    monkeypatch.setattr(
        bundle_onnx, "_exported", lambda _, inputs: export(Deployed(other, config), inputs)
    )
    with pytest.raises(RunFailed, match=r"computes another prediction .* at most 0\.0001"):
        write_bundle(tmp_path, trained(config), config, CARD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_an_export_may_differ_by_what_the_last_digits_of_inputs_change(size: float) -> None:
    """Weights full of noise turn rounding into large differences, and are exported all the same."""
    config = config_of("survival")
    noisy = trained(config)
    with torch.no_grad():
        for parameter in noisy.parameters():
            parameter.mul_(size)
    deployed, inputs = Deployed(noisy, config), example_inputs(config, 3, seed=3)
    allowed = tolerated(deployed, inputs)
    # Still far below what another network would differ by.
    assert allowed == TOLERANCE if size == 1 else TOLERANCE <= allowed < 0.1
    moved = copy.deepcopy(deployed).double()
    exact = moved(**{name: value.double() for name, value in inputs.items()})[1]
    own = deployed(**inputs)[1]
    assert difference(own.detach().numpy(), exact.detach().float().numpy()) <= allowed


@pytest.mark.parametrize("name", [*(f for f in BUNDLE_FILES if f != PREPARATION_TS), "card.json"])
def test_a_bundle_that_was_changed_is_refused_by_name(
    folder: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    read_bundle(tmp_path)
    damaged = tmp_path / name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(StateDamaged, match=re.escape(name)):
        read_bundle(tmp_path)
    damaged.unlink()
    with pytest.raises(StateDamaged, match=re.escape(name)):
        read_bundle(tmp_path)


def test_an_export_is_silent_and_changes_nothing_around_it(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of("table_classes")
    network = trained(config).train()
    state, level = torch.get_rng_state(), logging.getLogger("torch.onnx").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = onnx_of(network, config)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
    assert [r.message for r in caplog.records if r.levelno >= logging.INFO] == []
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert logging.getLogger("torch.onnx").level == level
    assert b".py" not in content, "paths of the machine that exported are in the file"


def test_the_same_weights_give_the_same_file() -> None:
    config = config_of("survival")
    assert onnx_of(trained(config), config) == onnx_of(trained(config), config)


def test_a_bundle_of_an_older_release_without_monais_files_is_read(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "models")
    shutil.rmtree(tmp_path / "configs")
    path = tmp_path / "card.json"
    card = json.loads(path.read_bytes())
    card["files"] = {name: card["files"][name] for name in card["files"] if "/" not in name}
    path.write_text(json.dumps(card))
    assert read_bundle(tmp_path).config == config_of("survival")
    del card["files"]["model.onnx"]
    path.write_text(json.dumps(card))
    with pytest.raises(StateDamaged, match=r"model\.onnx"):
        read_bundle(tmp_path)


def test_an_export_that_was_cut_leaves_the_bundle_that_was_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    config, whole = config_of("survival"), bundle.card_json

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "card_json", full)
    with pytest.raises(OSError, match="No space"):
        write_bundle(tmp_path, trained(config), config, CARD)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    read_bundle(tmp_path)

    # What a kill leaves: nothing is tidied up. Then the same command is given again.
    (tmp_path / UNFINISHED / "models").mkdir(parents=True)
    (tmp_path / UNFINISHED / "models" / "model.ts").write_bytes(b"half")
    (tmp_path / "card.json").unlink()
    with pytest.raises(StateDamaged, match="Export the bundle again"):
        read_bundle(tmp_path)
    assert is_free(tmp_path)
    monkeypatch.setattr(bundle, "card_json", whole)
    write_bundle(tmp_path, trained(config), config, CARD)
    read_bundle(tmp_path)
    assert not (tmp_path / UNFINISHED).exists()


def test_a_folder_with_anything_else_is_not_free(tmp_path: Path) -> None:
    assert is_free(tmp_path / "new")
    assert is_free(tmp_path)
    (tmp_path / "thesis.docx").touch()
    assert not is_free(tmp_path)
    assert not is_free(tmp_path / "thesis.docx")
