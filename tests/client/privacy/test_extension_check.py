"""`check-extension` runs an installed extension through what runs try, and names what fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import client.cli.app
import simulations.cli.app
from client.privacy.extension_check import told
from common.extensions.content import installed
from common.platform.errors import ConfigurationError, ExtensionRefused, UnsafeModel
from tests.extensions import EXAMPLE, on_path, written

POINTS = {
    "networks": ["tiny"],
    "backbones": ["filters"],
    "tasks": ["grades"],
    "aggregators": ["clipped_mean"],
    "metrics": ["balanced_accuracy"],
    "losses": ["loss"],
    "transforms": ["turn"],
}
MORE = """
from common.extensions.contract import LossExtension, TransformExtension
class Nothing(BaseModel): pass
loss = LossExtension(
    arguments=Nothing, loss=lambda a, o, t: o.square().mean(), tasks={"diagnosis", "segmentation"}
)
turn = TransformExtension(arguments=Nothing, apply=lambda a, i, t, g: (i + 1, t))
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    code = (EXAMPLE / "src" / "example_nets" / "__init__.py").read_text() + MORE
    folder = written(tmp_path / "site-packages", "example-nets", code, POINTS)
    with on_path(folder):
        yield folder / "example_nets" / "__init__.py"


def lines(name: str, arguments: str = "{}", size: str = "16,16", content: str = "") -> list[str]:
    return list(told(name, arguments, size, content or None))


@pytest.mark.slow
def test_everything_that_a_distribution_offers_is_tried(place: Path) -> None:
    assert place.is_file()
    found = lines("example-nets", size="5,5")
    for name, kind in (
        ("tiny", "networks): diagnosis, images 8 x 8"),
        ("tiny", "networks): prognosis"),
        ("filters", "backbones): images 8 x 8: its record does what the code does"),
        ("filters", "backbones): images 8 x 8: a bundle can hold it"),
        ("grades", "tasks): 2 classes of 1 column:"),
        ("grades", "tasks): one patient's gradient"),
        ("clipped_mean", "aggregators"),
        ("balanced_accuracy", "metrics"),
        ("loss", "losses): segmentation"),
        ("turn", "transforms): an image with its map"),
    ):
        assert any(f"holds    example-nets/{name} ({kind}" in line for line in found), (name, kind)
    assert not [line for line in found if "REFUSED" in line]


@pytest.mark.parametrize(
    ("old", "new", "words", "kind"),
    [
        (
            "return answer",
            "return answer + answer.mean(0)",
            "one patient's gradient is that patient's alone",
            UnsafeModel,
        ),
        ("return answer", "return answer[:, :0]", "its outputs fit", ExtensionRefused),
        ("arguments=Arguments", "arguments=BaseModel", "the same seed", ExtensionRefused),
        ("tiny = NetworkExtension(", "tiny = dict(", "it is what was hashed", ExtensionRefused),
        ("class Tiny", "raise KeyError\nclass Tiny", "it is what was hashed", ExtensionRefused),
    ],
)
def test_what_fails_is_named_and_what_stands_on_it_is_not_tried(
    place: Path, old: str, new: str, words: str, kind: type[Exception]
) -> None:
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new))
    found = []
    with pytest.raises(kind):
        found.extend(told("example-nets/tiny", "{}", "16,16"))
    found = _until_refused("example-nets/tiny")
    (refused,) = [line for line in found if "REFUSED" in line]
    assert words in refused


def test_a_class_that_no_made_up_row_has_is_a_remark_and_no_refusal(place: Path) -> None:
    text = place.read_text()
    place.write_text(text.replace("return bucketize(", "return 0 * bucketize("))
    found = lines("example-nets/grades")
    remark = "example-nets/grades (tasks): of 56 made-up rows every one that has a class is class 0"
    assert f"  remark   {remark}" in found
    place.write_text(text.replace("return bucketize(", "return 2 + bucketize("))
    assert "REFUSED" in _until_refused("example-nets/grades")[-1]


def test_a_backbone_that_remembers_is_named(place: Path) -> None:
    code = "self.seen = getattr(self, 'seen', 0) + 1\n        return self.seen * normalize("
    place.write_text(place.read_text().replace("return normalize(", code))
    found = _until_refused("example-nets/filters")
    assert "REFUSED  example-nets/filters (backbones): images 16 x 16: its record" in found[-1]


def _until_refused(name: str) -> list[str]:
    found: list[str] = []
    try:
        for line in told(name, "{}", "16,16"):
            found.append(line)  # noqa: PERF402 - it ends in an error
    except (ExtensionRefused, UnsafeModel):
        pass
    return found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("other-nets",), "other-nets is not installed here (extensions that are: example-nets)"),
        (("Example Nets",), "NAME is 'Example Nets', expected DISTRIBUTION or DISTRIBUTION/NAME"),
        (("Example_Nets/tiny",), "DISTRIBUTION/NAME. Did you mean example-nets/tiny?"),
        (("Example_Nets",), "DISTRIBUTION/NAME. Did you mean example-nets?"),
        (("example-nets/huge",), "example-nets offers example-nets/tiny"),
        (("example-nets/tyny",), "no example-nets/tyny. Did you mean example-nets/tiny?"),
        (("example-nets/tiny", "{width: [}"), "--arguments"),
        (("example-nets/tiny", "7"), "--arguments"),
        (("example-nets/tiny", "{}", "16"), "two or three sides"),
        (("example-nets/tiny", "{}", "16,x"), "two or three sides"),
        (("example-nets/tiny", "{}", "0,16"), "two or three sides"),
        (("example-nets/tiny", "{}", "16,16", "sha256:0"), "expected sha256:0. Nothing of it was"),
    ],
)
def test_what_was_typed_wrong_is_a_sentence(
    place: Path, given: tuple[str, ...], words: str
) -> None:
    place.write_text("raise SystemExit('was run')")
    with pytest.raises(ConfigurationError) as refused:
        lines(*given)
    assert any(word in str(refused.value) for word in words.split("|")), str(refused.value)


def test_both_commands_tell_the_same_and_end_with_a_status(place: Path) -> None:
    found = installed("example-nets")
    assert found is not None
    words = ["check-extension", "example-nets/balanced_accuracy", "--content"]
    runner = CliRunner()
    for app in (client.cli.app.app, simulations.cli.app.app):
        done = runner.invoke(app, [*words, found.extension.content])
        assert done.exit_code == 0, done.output
        assert "holds    example-nets/balanced_accuracy (metrics)" in done.output
        odd = runner.invoke(app, ["check-extension", "example-nets/tiny", "--size", "x"])
        assert odd.exit_code != 0
    assert place.is_file()
