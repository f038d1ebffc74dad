"""Extensions are named by content: what was approved runs, and nothing else."""

from __future__ import annotations

import importlib.util
import py_compile
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from client.governance.extensions import judge_extensions
from client.governance.plain_words import described
from client.site.extensions_section import AllowedExtension
from common.config.run_config import RunConfig, parse_config, read_config, without_privacy
from common.extensions.content import installed, offered
from common.extensions.pinning import doubts, pinned
from common.messages.wire import RefusalReason
from common.models.run_network import initial_weights, network_of
from common.platform.errors import ConfigurationError, ExtensionRefused
from common.privacy.statement import statement
from tests.extensions import MODULE, built, install, on_path

pytestmark = pytest.mark.processes

NAME = "example-nets"
CONFIG = """
name: example
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [16, 16]}, table: {numbers: [{column: age}]}}
model: {network: example-nets/tiny, arguments: {width: 4}}
training: {rounds: 1}
privacy: none
"""
ONE_NUMBER = CONFIG.partition("task")[1] + CONFIG.partition("task")[2].partition("\nmodel")[0]
OURS = CONFIG.replace("{network: example-nets/tiny, arguments: {width: 4}}", "{network: small_cnn}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def once(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("once") / "site-packages")


@pytest.fixture
def place(once: Path, tmp_path: Path) -> Iterator[Path]:
    folder = shutil.copytree(once, tmp_path / "site-packages")
    with on_path(folder):
        yield folder


def config(text: str = CONFIG) -> RunConfig:
    return pinned(parse_config(text))


def content() -> str:
    found = installed(NAME)
    assert found is not None
    return found.extension.content


def test_two_installations_have_one_content_and_a_changed_byte_another(
    place: Path, wheel: Path, tmp_path: Path
) -> None:
    first = content()
    module = place / MODULE / "__init__.py"
    py_compile.compile(str(module))  # what a machine compiles for itself does not count
    assert content() == first
    with on_path(install(wheel, tmp_path / "elsewhere")):
        assert content() == first
    text = module.read_text()
    module.write_text(text.replace("default=8", "default=9"))
    assert content() != first
    module.write_text(text)
    assert content() == first
    (place / MODULE / "more.py").write_text("")
    assert content() != first


def test_a_run_that_was_pinned_has_one_hash_and_is_read_as_it_was_written(place: Path) -> None:
    assert place.is_dir()
    found = config()
    (extension,) = found.extensions
    assert (extension.distribution, extension.version) == (NAME, "1.0.0")
    assert extension.content == content()
    assert read_config(found.canonical_json()) == found
    assert pinned(found) == found
    assert pinned(parse_config(CONFIG), simulated=True).fingerprint() == found.fingerprint()


def test_configurations_without_extensions_keep_their_hash() -> None:
    assert "extensions" not in parse_config(OURS).canonical_json()
    assert "arguments" not in parse_config(OURS).canonical_json().partition('"model"')[2][:200]
    assert pinned(parse_config(OURS)) == parse_config(OURS)


def test_what_is_not_in_force_needs_no_extension(place: Path) -> None:
    assert place.is_dir()
    private = OURS.replace(
        "privacy: none",
        "privacy: {unit: patient, epsilon: 3, default_patients: declared, "
        "model: {network: example-nets/tiny}}",
    )
    found = config(private)
    assert len(found.in_force().extensions) == 1
    assert found.in_force().in_force() == found.in_force()
    assert without_privacy(found).extensions == ()
    swapped = CONFIG.replace(
        "privacy: none",
        "privacy: {unit: patient, epsilon: 3, default_patients: declared, "
        "model: {network: small_cnn}}",
    )
    assert config(swapped).in_force().extensions == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("example-nets/tiny", "example-nets/huge", ["example-nets/huge", "tiny (networks)"]),
        ("example-nets/tiny", "other-nets/tiny", ["other-nets", "pip install other-nets"]),
        ("example-nets/tiny", "Example_Nets/tiny", ["model.network", "DISTRIBUTION/NAME"]),
        ("arguments: {width: 4}", "width: 4", ["model.width", "model.arguments"]),
        ("network: example-nets/tiny", "network: small_cnn", ["arguments", "small_cnn"]),
    ],
)
def test_a_refusal_says_what_is_wrong_with_a_name(
    place: Path, old: str, new: str, words: list[str]
) -> None:
    assert place.is_dir()
    with pytest.raises(ConfigurationError) as refused:
        config(CONFIG.replace(old, new))
    assert not [word for word in words if word not in str(refused.value)], str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{width: 4}", "{widht: 4}", ["example-nets/tiny", "widht"]),
        ("{width: 4}", "{width: many}", ["width", "many"]),
        ("[16, 16]", "[4, 4]", ["[4, 4]", "at least 8"]),
        (
            ONE_NUMBER,
            "task: {kind: segmentation}\ncohort: {images: {size: [16, 16]}}",
            ["task.kind=segmentation", "diagnosis, prognosis"],
        ),
    ],
)
def test_a_network_that_does_not_take_what_it_is_given_is_refused(
    place: Path, old: str, new: str, words: list[str]
) -> None:
    assert place.is_dir()
    assert old in CONFIG
    with pytest.raises(ExtensionRefused) as refused:
        network_of(config(CONFIG.replace(old, new)), 0)
    assert not [word for word in words if word not in str(refused.value)], str(refused.value)


def test_the_same_seed_builds_the_same_bits_and_the_global_generator_stays(place: Path) -> None:
    assert place.is_dir()
    before = torch.random.get_rng_state()
    one, two, other = (initial_weights(config(), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_nothing_is_imported_of_what_is_not_the_approved_content(place: Path) -> None:
    approved = config()
    (place / MODULE / "__init__.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ExtensionRefused, match=r"expected version 1\.0\.0, sha256:"):
        network_of(approved, 0)
    assert MODULE not in sys.modules


def test_a_configuration_without_content_is_not_built(place: Path) -> None:
    assert place.is_dir()
    with pytest.raises(ExtensionRefused, match="without version and content"):
        network_of(parse_config(CONFIG), 0)


def test_code_that_was_changed_after_it_was_loaded_is_not_passed_off_as_new(place: Path) -> None:
    network_of(config(), 0)
    with (place / MODULE / "__init__.py").open("a") as file:
        file.write("# later\n")
    with pytest.raises(ExtensionRefused, match="Start it again"):
        network_of(config(), 0)


def test_a_compiled_file_beside_the_source_is_not_what_runs(place: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('was run')")
    cached = importlib.util.cache_from_source(str(place / MODULE / "__init__.py"))
    py_compile.compile(
        str(evil), cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    assert network_of(config(), 0).state_dict()  # the source's own network, and no SystemExit


def test_another_module_in_front_on_the_path_is_not_taken_for_it(
    place: Path, tmp_path: Path
) -> None:
    assert place.is_dir()
    approved = config()
    front = tmp_path / "front"
    (front / MODULE).mkdir(parents=True)
    (front / MODULE / "__init__.py").write_text("raise SystemExit('was run')")
    with on_path(front), pytest.raises(ExtensionRefused, match="no file of example-nets"):
        network_of(approved, 0)


def test_an_entry_point_into_anothers_code_is_refused(place: Path) -> None:
    points = next(place.glob("*.dist-info")) / "entry_points.txt"
    points.write_text("[wardround.networks]\ntiny = os:system\n")
    with pytest.raises(ExtensionRefused, match="no file of example-nets"):
        network_of(config(), 0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("class Tiny", "raise KeyError('dice')\nclass Tiny", "cannot be imported: KeyError"),
        ("super().__init__()", "raise OSError('no dice')", "cannot be built: OSError: no dice"),
        ("build=Tiny", "build=lambda a, s: 3", "builds int, expected a torch.nn.Module"),
        ("return answer", "return answer[:, :, None]", r"gives \(1, 1, 1\) for 1 items"),
        ("return answer", "return answer[0, 9]", "does not take an image"),
        ("self.body = None", "self.body = None; self.double()", None),
        (
            "self.body = None",
            "import random; self.body = None; self.w = nn.Linear(random.randrange(9**6) + 1, 1)",
            "another network from the same seed",
        ),
        ("tiny = NetworkExtension(", "tiny = dict(", "is dict, expected a NetworkExtension"),
    ],
)
def test_an_extension_that_does_not_keep_its_contract_is_refused(
    place: Path, old: str, new: str, words: str | None
) -> None:
    module = place / MODULE / "__init__.py"
    assert old in module.read_text()
    module.write_text(module.read_text().replace(old, new))
    if words is None:  # the layers that it makes later are in float32
        network_of(config(), 0)
        return
    with pytest.raises(ExtensionRefused, match=words):
        network_of(config(), 0)


# --- what a hospital says ------------------------------------------------------------------


def allowed(value: str) -> tuple[AllowedExtension, ...]:
    return (AllowedExtension(distribution=NAME, content=(value,)),)


def reason(run: RunConfig, *rules: AllowedExtension) -> RefusalReason | None:
    found = judge_extensions(run, rules)
    return None if found is None else found.reason


def test_a_site_takes_what_it_allowed_and_installed_and_nothing_else(
    place: Path, tmp_path: Path
) -> None:
    run = config()
    assert reason(run, *allowed(content())) is None
    assert reason(run) == RefusalReason.EXTENSION_NOT_ALLOWED
    assert reason(run, *allowed("sha256:" + "0" * 64)) == RefusalReason.EXTENSION_NOT_ALLOWED
    assert reason(parse_config(CONFIG), *allowed(content())) == RefusalReason.CONFIGURATION
    module = place / MODULE / "__init__.py"
    text = module.read_text()
    module.write_text(text + "#")
    assert reason(run, *allowed(content())) == RefusalReason.EXTENSION_OTHER_CONTENT
    module.write_text(text)
    shutil.move(place, tmp_path / "gone")
    rules = allowed("sha256:" + "0" * 64)
    assert reason(run, *rules) == RefusalReason.EXTENSION_NOT_INSTALLED
    assert MODULE not in sys.modules  # all this without any of it being imported


def edit(place: Path) -> None:
    info = next(place.glob("*.dist-info"))
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')


def bring_a_pth(place: Path) -> None:
    record = next(place.glob("*.dist-info")) / "RECORD"
    record.write_text(record.read_text() + "example.pth,,\n")


@pytest.mark.parametrize("change", [edit, bring_a_pth])
def test_what_nobody_can_vouch_for_is_taken_in_a_simulation_alone(
    place: Path, change: Callable[[Path], None]
) -> None:
    run = config()
    change(place)
    assert reason(run, *allowed(content())) == RefusalReason.EXTENSION_OTHER_CONTENT
    with pytest.raises(ExtensionRefused, match="cannot be vouched for"):
        config()
    simulated = pinned(parse_config(CONFIG), simulated=True)
    (said,) = doubts(simulated)
    assert said.startswith("Hospitals will not take example-nets")
    network_of(simulated, 0)


def test_whoever_approves_reads_name_version_content_and_what_it_may_do(place: Path) -> None:
    assert place.is_dir()
    lines = dict(described(config()))
    told = lines["code of others"]
    for word in ("example-nets/tiny", "'width': 4", "1.0.0", content(), "could read every image"):
        assert word in told
    (extension,) = config().extensions
    private = parse_config(
        OURS.replace("none", "{unit: patient, epsilon: 3, default_patients: 50}")
    ).privacy
    claim = statement(private, {"a": 3.0}, {"a": 1e-5}, {}, simulated=False, extensions=[extension])
    assert f"code that is not Wardround's: example-nets 1.0.0 ({content()})" in claim
    assert [one.names for one in offered() if one.extension.distribution == NAME] == [
        (
            "example-nets/clipped_mean",
            "example-nets/filters",
            "example-nets/balanced_accuracy",
            "example-nets/tiny",
            "example-nets/grades",
        )
    ]
