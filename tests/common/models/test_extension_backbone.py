"""A frozen backbone of others: its features follow one image alone, or it is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from client.governance.extensions import judge_extensions
from client.governance.plain_words import described
from client.privacy.isolation import Isolation
from client.site.extensions_section import AllowedExtension
from common.bundle.backbone_check import check_backbone
from common.bundle.onnx import Deployed
from common.config.run_config import parse_config, read_config
from common.extensions.pinning import pinned
from common.messages.refusals import RefusalReason
from common.models import extension_backbone, extract_features, feature_width
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError, ExtensionRefused
from tests.privacy.remembering_backbones import (
    CONFIG,
    HARMLESS,
    NAME,
    RECORDED,
    REMEMBERED,
    SHAPE,
    check_features_alone,
    features_of,
    run_with,
    seen,
)

#: Each record is an export of torch, which takes a second.
pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch
PRIVATE = "privacy: {unit: patient, epsilon: 3, default_patients: 20}"
#: What networks are made of: convolutions, norms, attention, steps in place, parts cut off.
NETWORK = """
class It(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.GroupNorm(2, 8), nn.InstanceNorm2d(8),
        )
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    @torch.no_grad()
    def forward(self, image):
        items, _, rows, columns = image.shape
        maps = self.body(image)
        maps += 1
        maps[:, 0] = 0
        words = self.attention(maps.view(items, 8, rows * columns // 16).transpose(1, 2))
        return torch.cat([words.amax(1), words[:, 0, :3]], dim=1)
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: Patch) -> None:
    monkeypatch.setenv("WARDROUND_TEST_LAST", "0")


# --- the guarantee -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", REMEMBERED)
def test_features_of_an_image_depend_on_that_image_alone(tmp_path: Path, place: str) -> None:
    check_features_alone(tmp_path, REMEMBERED[place])
    if place not in HARMLESS:
        with (
            run_with(tmp_path, REMEMBERED[place]) as run,
            pytest.raises(ExtensionRefused, match=NAME),
        ):
            features_of(run)


@pytest.mark.parametrize("place", RECORDED)
def test_a_record_remembers_nothing_where_no_trial_looks(
    tmp_path: Path, monkeypatch: Patch, place: str
) -> None:
    monkeypatch.setattr(extension_backbone, "_check_code", lambda *_: None)
    with run_with(tmp_path, REMEMBERED[place]) as run:
        features_of(run)
    check_features_alone(tmp_path, REMEMBERED[place])


def test_no_code_of_a_backbone_is_run_once_it_is_recorded(tmp_path: Path) -> None:
    with run_with(tmp_path, seen("SEEN.append(0)", "return found")) as run:
        network = features_of(run)
        held = sys.modules["acme_backs"].SEEN
        asked = len(held)
        network(torch.rand(1, *SHAPE))
        extract_features(torch.rand(3, *SHAPE), run.model, run.extensions)
        features_of(run)
        assert len(held) == asked > 0
        assert not Isolation(network).needed
        assert not list(network.parameters())


def test_nobody_else_holds_the_weights_of_a_record(tmp_path: Path) -> None:
    code = seen("SEEN.append(self.filters.weight)", "return found")
    with run_with(tmp_path, code) as run:
        network, image = features_of(run), torch.rand(1, *SHAPE)
        expected = network(image)
        for weight in sys.modules["acme_backs"].SEEN:
            weight.data.zero_()
        assert torch.equal(network(image), expected)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("torch.nn.modules.module.register_module_forward_hook(lambda *_: None)", "hooks for all"),
        ("torch.set_default_dtype(torch.float64)", "default dtype"),
        ("torch.utils._python_dispatch.TorchDispatchMode().__enter__()", "modes of"),
        ("torch.overrides.TorchFunctionMode().__enter__()", "modes of"),
    ],
)
@pytest.mark.parametrize("where", ["import", "build", "pass"])
def test_what_would_see_patients_from_within_torch_is_refused_and_taken_back(
    tmp_path: Path, line: str, what: str, where: str
) -> None:
    code = {
        "import": f"import torch.overrides, torch.utils._python_dispatch\n{line}\n",
        "build": f"class It(It):\n    def more(self): {line}\n",
        "pass": seen(line, "return found"),
    }[where]
    with run_with(tmp_path, code) as run:
        with pytest.raises(ExtensionRefused, match=rf"{NAME} (sets torch's .*{what}|cannot be)"):
            features_of(run)
        assert not torch.nn.modules.module._global_forward_hooks
        assert torch.get_default_dtype() is torch.float32
        assert torch._C._len_torch_dispatch_stack() == 0
        assert torch._C._len_torch_function_stack() == 0


# --- what it may be made of --------------------------------------------------------------------


def test_a_record_holds_norms_attention_and_steps_in_place_and_goes_into_a_bundle(
    tmp_path: Path,
) -> None:
    with run_with(tmp_path, NETWORK) as run:
        network, images = features_of(run), torch.rand(5, *SHAPE)
        assert feature_width(run.model, SHAPE, run.extensions) == 11
        torch.manual_seed(0)
        code = sys.modules["acme_backs"].It().eval()
        found = extract_features(images, run.model, run.extensions)
        assert torch.allclose(found, code(images), atol=1e-5)
        assert torch.allclose(network(images), found, atol=1e-5)
        check_backbone(run)
        deployed = Deployed(network_of(run, 0), run)
        assert not Isolation(deployed).needed
        assert deployed(image=images)[0].shape == (5, 1)


def test_projection_and_features_that_are_no_numbers(tmp_path: Path) -> None:
    wide = CONFIG.replace("backs/it}", "backs/it, projection: 6}")
    # Infinite above some brightness that no trial reaches.
    code = seen("return found / (image.amax((1, 2, 3)) < 1e6)[:, None]")
    with run_with(tmp_path, code, wide) as run:
        images = torch.rand(2, *SHAPE)
        images[1] *= 1e8
        found = extract_features(images, run.model, run.extensions)
        assert found.shape == (2, feature_width(run.model, SHAPE, run.extensions)) == (2, 6)
        assert found[0].any()
        assert not found[1].any()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["return found - found.mean(0)"], "beside other images"),
        (["return found[:, None]"], r"gives \(3, 1, 4\) of torch.float32"),
        (["return found.double()"], "torch.float64"),
        (["return found, found"], "it gives tuple, expected one tensor"),
        (["return found / image.mean((1, 2, 3))[:, None]"], "everywhere are not finite"),
        (["return found.view(3, 4)"], "cannot be recorded"),
        (["return found if found.sum() > 0 else -found"], "cannot be recorded"),
        (["image.mul_(2)", "return found"], "changes image with what it sees"),
        (["raise ValueError('no such image')"], "no such image"),
    ],
)
def test_a_backbone_that_does_not_keep_its_contract_is_refused(
    tmp_path: Path, lines: list[str], words: str
) -> None:
    with run_with(tmp_path, seen(*lines)) as run, pytest.raises(ExtensionRefused, match=words):
        features_of(run)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class It(nn.Linear):\n    def __init__(self): pass\n", "cannot be built"),
        ("def It(): return 3\n", "builds int"),
        (
            "class It(It):\n    def more(self): SEEN.append(1); self.mean += len(SEEN)\n",
            "builds another network from the same seed: mean differs",
        ),
    ],
)
def test_a_backbone_is_built_alike_everywhere_or_refused(
    tmp_path: Path, code: str, words: str
) -> None:
    with run_with(tmp_path, code) as run, pytest.raises(ExtensionRefused, match=words):
        features_of(run)


def test_what_no_bundle_can_hold_is_refused_before_a_run(tmp_path: Path) -> None:
    code = seen("return torch.special.bessel_j0(found)")
    with run_with(tmp_path, code) as run, pytest.raises(ExtensionRefused, match="written as ONNX"):
        check_backbone(run)


# --- in the configuration and at a site ----------------------------------------------------------


def test_a_configuration_names_a_backbone_with_arguments_and_its_content(tmp_path: Path) -> None:
    with run_with(tmp_path) as run:
        (extension,) = run.extensions
        assert [kind for kind, _ in run.extension_uses()] == ["backbones"]
        again = read_config(run.canonical_json())
        assert again.fingerprint() == run.fingerprint()
        volumes = CONFIG.replace("[16, 16]", "[8, 16, 16]")  # what it takes, it says itself
        assert pinned(parse_config(volumes)).extensions == (extension,)
        odd = CONFIG.replace("backs/it}", "backs/it, arguments: {width: 3}}")
        with pytest.raises(ExtensionRefused, match=r"model\.arguments of acme-backs/it"):
            features_of(pinned(parse_config(odd)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("network: frozen_features", "network: small_cnn", "goes with network: frozen_features"),
        ("acme-backs/it", "efficientnet_lite1", "Did you mean efficientnet_lite0"),
        ("acme-backs/it}", "efficientnet_lite0, arguments: {a: 1}}", "network or backbone"),
    ],
)
def test_a_configuration_that_nothing_would_follow_is_refused(
    old: str, new: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_config(CONFIG.replace(old, new))


def test_a_site_runs_the_backbone_that_it_installed_and_allowed_and_no_other(
    tmp_path: Path,
) -> None:
    def judged(*allowed: str) -> RefusalReason | None:
        rules = [AllowedExtension(distribution="acme-backs", content=(c,)) for c in allowed]
        found = judge_extensions(run, rules)
        return None if found is None else found.reason

    with run_with(tmp_path, config=CONFIG.replace("privacy: none", PRIVATE)) as run:
        content = run.extensions[0].content
        assert judged(content) is None
        assert judged() is RefusalReason.EXTENSION_NOT_ALLOWED
        assert judged("sha256:" + "0" * 64) is RefusalReason.EXTENSION_NOT_ALLOWED
        text = " ".join(line for _, line in described(run))
        assert f"{NAME} (frozen backbone)" in text
        assert "all the rights of this site's service" in text
        code = tmp_path / "acme_backs" / "__init__.py"
        code.write_text(code.read_text() + "#")
        assert judged(content) is RefusalReason.EXTENSION_OTHER_CONTENT
    assert judged(content) is RefusalReason.EXTENSION_NOT_INSTALLED


def test_weights_of_a_file_count_with_the_content(tmp_path: Path) -> None:
    with run_with(tmp_path) as run:
        (tmp_path / "acme_backs" / "weights.bin").write_bytes(b"1")
        with pytest.raises(ExtensionRefused, match="is installed as"):
            features_of(run)
        assert isinstance(features_of(pinned(parse_config(CONFIG))), nn.Module)
