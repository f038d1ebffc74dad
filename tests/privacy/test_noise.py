from __future__ import annotations

import ast
import copy
import inspect
import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from common.privacy.noise import GRID, ChaChaNoise, NoiseSource, SimulatedNoise
from tests.privacy.guarantees import check_noise, released
from tests.privacy.made_up import mechanism_of, plan_of

ROOT = Path(__file__).parents[2]
SOURCES = [ChaChaNoise, lambda: SimulatedNoise("test", 0)]
each_source = pytest.mark.parametrize("source", SOURCES, ids=["secret", "simulated"])


@each_source
def test_noise_is_normal_with_the_standard_deviation_that_was_asked_for(
    source: Callable[[], NoiseSource],
) -> None:
    draws = source().gaussian((400, 501), 2.5).numpy().ravel()
    count = draws.size
    # Six standard errors: a correct source fails once in 5e8 runs.
    assert abs(draws.mean()) < 6 * 2.5 / math.sqrt(count)
    assert abs(draws.std() / 2.5 - 1) < 6 / math.sqrt(2 * count)
    assert stats.kstest(draws / 2.5, "norm").pvalue > 1e-7
    halves = np.corrcoef(draws[: count // 2], draws[count // 2 :])[0, 1]
    assert abs(halves) < 6 / math.sqrt(count // 2)


@each_source
def test_uniform_draws_fill_zero_to_one_and_never_reach_one(
    source: Callable[[], NoiseSource],
) -> None:
    draws = source().uniform(200_001).numpy()
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > 1e-7


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 3), (7,)])
def test_noise_has_the_shape_that_was_asked_for(shape: tuple[int, ...]) -> None:
    assert ChaChaNoise().gaussian(shape, 1.0).shape == shape


@pytest.mark.parametrize(("sigma", "clip_norm"), [(1.0, 1.0), (0.5, 10.0), (40.0, 0.1)])
def test_released_noise_has_sigma_times_the_clip_norm_over_the_divisor(
    sigma: float, clip_norm: float
) -> None:
    plan = plan_of(mechanism_of(sigma, clip_norm=clip_norm, divisor=20.0))
    check_noise(released(plan, ChaChaNoise()), sigma * clip_norm / 20.0)


def test_noise_and_contributions_lie_on_one_grid() -> None:
    plan = plan_of(mechanism_of(1.0, divisor=1.0))
    steps = released(plan, ChaChaNoise(), width=1000).double() / GRID
    assert torch.equal(steps, steps.round())


def test_two_rounds_of_one_site_have_independent_noise() -> None:
    noise, plan = ChaChaNoise(), plan_of()
    first, second = (released(plan, noise, width=100_000) for _ in range(2))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.02
    assert not torch.equal(first, second)


@pytest.mark.processes
def test_two_processes_with_one_configuration_and_a_resumed_one_draw_other_noise() -> None:
    code = "from common.privacy.noise import ChaChaNoise; print(ChaChaNoise().uniform(4).tolist())"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    found = {
        subprocess.run(
            [sys.executable, "-c", f"import torch; torch.manual_seed(42); {code}"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for _ in range(2)
    }
    assert len(found) == 2


@each_source
def test_noise_goes_on_and_does_not_repeat_where_a_nonce_of_the_cipher_ends(
    monkeypatch: pytest.MonkeyPatch, source: Callable[[], NoiseSource]
) -> None:
    monkeypatch.setattr("common.privacy.noise._STRETCH", 8 * 1000)
    noise = source()
    parts = [tuple(noise.uniform(600).tolist()) for _ in range(5)]
    assert len(set(parts)) == 5


@each_source
def test_a_draw_stays_as_it_was_when_the_memory_it_came_from_is_used_again(
    source: Callable[[], NoiseSource],
) -> None:
    noise = source()
    drawn = [noise.gaussian((100_000,), 1.0), noise.uniform(100_000)]
    kept = [draw.clone() for draw in drawn]
    noise.gaussian((200_000,), 1.0)
    noise.uniform(200_000)
    assert all(torch.equal(draw, was) for draw, was in zip(drawn, kept, strict=True))


@each_source
def test_no_key_stream_is_used_twice_within_one_stretch_or_in_the_next(
    monkeypatch: pytest.MonkeyPatch, source: Callable[[], NoiseSource]
) -> None:
    # Draws of many lengths, so that stretches end in the middle and at the end of a draw.
    monkeypatch.setattr("common.privacy.noise._STRETCH", 8 * 4096)
    noise = source()
    lengths = [1, 2, 3, 1000, 4095, 4096] * 5
    values = torch.cat([noise.uniform(length) for length in lengths])
    assert len(values.unique()) == sum(lengths)  # 53 bits: two alike by chance once in 10^8 runs


def test_the_ciphers_block_counter_begins_at_zero_whatever_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A counter begun at random runs over, sooner or later, in the middle of a run.
    monkeypatch.setattr("common.privacy.noise.os.urandom", lambda count: b"\xff" * count)
    assert len(ChaChaNoise().uniform(100_000)) == 100_000


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_process_does_not_repeat_its_parents_noise(tmp_path: Path) -> None:
    noise = ChaChaNoise()
    noise.uniform(1)
    child = os.fork()
    if child == 0:
        (tmp_path / "child").write_text(repr(noise.uniform(4).tolist()))
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "child").read_text() != repr(noise.uniform(4).tolist())


def test_the_same_global_seed_does_not_give_the_same_noise() -> None:
    found = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(42)
            found.append(released(plan_of(), ChaChaNoise()))
    assert not torch.equal(*found)


def test_secret_noise_takes_no_seed_and_cannot_be_copied_or_stored() -> None:
    assert list(inspect.signature(ChaChaNoise).parameters) == []
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copied(ChaChaNoise())


def test_simulated_noise_repeats_and_says_so() -> None:
    assert SimulatedNoise("a", 1).simulated
    assert not ChaChaNoise().simulated
    same, other = SimulatedNoise("a", 1).uniform(9), SimulatedNoise("a", 2).uniform(9)
    assert torch.equal(same, SimulatedNoise("a", 1).uniform(9))
    assert not torch.equal(same, other)


def test_the_noise_path_never_draws_from_a_global_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        message = "the global generator was asked"
        raise AssertionError(message)

    for name in ("randn", "rand", "normal", "randn_like", "rand_like", "randperm", "randint"):
        monkeypatch.setattr(torch, name, refuse)
    for name in ("normal_", "uniform_", "random_", "bernoulli_"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for name in ("normal", "randn", "rand", "random", "default_rng", "randint", "permutation"):
        monkeypatch.setattr(np.random, name, refuse)
    for name in ("random", "gauss", "normalvariate", "randint", "getrandbits"):
        monkeypatch.setattr(random, name, refuse)
    before = torch.get_rng_state()
    released(plan_of(), ChaChaNoise(), width=1000)
    ChaChaNoise().uniform(1000)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("package", ["client", "server"])
def test_what_runs_at_hospitals_never_makes_simulated_noise(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        tree = ast.parse(path.read_text())
        named = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        named |= {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        named |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert "SimulatedNoise" not in named, path
