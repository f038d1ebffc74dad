from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simulations.cli.app import main

ROOT = Path(__file__).parents[3]
DEMO = "configs/simulations/demo.yaml"
#: Each takes from a quarter of a second to ten to load, which a plain run must not wait for.
SLOW = {
    "monai",
    "opacus",
    "pandas",
    "scipy",
    "sklearn",
    "sksurv",
    "matplotlib",
    "onnx",
    "highdicom",
    "dp_accounting",
    "ray",
    "flwr",
}
#: Runs a comparison, and at its first round ends and prints what was loaded by then.
UP_TO_THE_FIRST_ROUND = """
import os, sys
from simulations.cli.progress import LiveProgress
def first_round(self, label, record):
    print("loaded:", *sys.modules, flush=True)
    os._exit(0)
LiveProgress._round = first_round
from simulations.cli.app import main
main()
"""
SMALL = """
name: small
task: {kind: diagnosis, target: malignant}
cohort: {images: {size: [32, 32]}, table: {numbers: [{column: age, center: 60, scale: 100}]}}
model: {network: small_cnn, width: 16}
training: {rounds: 1, local_steps: 1, batch_patients: 4}
privacy: none
synthetic: {modality: xray, patients: 120, seed: 0}
"""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["compare", "configs/simulations/dem.yaml"], 2, "Did you mean configs/simulations/demo"),
        (["compare", DEMO, "--arms", "federted"], 2, "federted"),
        (["compare", DEMO, "--epsilon", "-1"], 2, "above 0"),
        (["compare", DEMO, "--data", "nowhere"], 3, "no folder nowhere"),
        (["compare", "configs/simulations/tcga-brca.yaml"], 2, "--data"),
        (["compare", DEMO, "--out", "/proc/nowhere"], 1, "/proc/nowhere"),
        (["compare", DEMO, "--sedes", "1"], 2, "--sedes"),
    ],
)
def test_what_a_user_can_mend_is_one_message_and_its_status(
    words: list[str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["wardround-simulate", *words])
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        torch.set_num_threads(threads)
    err = capsys.readouterr().err
    assert ended.value.code == status, err
    assert said in err
    assert "Traceback" not in err


@pytest.mark.processes
def test_the_first_round_of_a_run_without_privacy_waits_for_no_slow_library(tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    words = ["compare", str(config), "--arms", "federated", "--out", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-c", UP_TO_THE_FIRST_ROUND, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in ended.stdout.splitlines() if line.startswith("loaded:")]
    assert told, ended.stderr
    loaded = {name.partition(".")[0] for name in told[0].split()}
    assert {"torch", "pydicom"} <= loaded
    assert loaded & SLOW == set()
