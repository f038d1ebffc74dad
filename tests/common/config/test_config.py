from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from pydantic import BaseModel

from common.config.run_config import RunConfig, load_config, parse_config
from common.platform.errors import ConfigurationError

IMAGES = """
name: example
task: {kind: diagnosis, target: malignant}
cohort: {images: {size: [64, 64]}, table: {numbers: [{column: age}]}}
model: {network: small_cnn}
training: {rounds: 3}
privacy: none
"""
PRIVATE = IMAGES.replace("privacy: none", "privacy: {unit: patient, epsilon: 3}")
SURVIVAL = """
name: example
task: {kind: prognosis, time: days, intervals: [30, 60]}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 3}
privacy: none
"""


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, source="run.yaml")
    return str(caught.value)


# --- what is refused, and in which words --------------------------------------------------

#: (what is replaced, by what, every word that the message must have: key, value, expectation)
WRONG = [
    ("rounds: 3", "rouns: 3", ["training.rouns", "Did you mean rounds?"]),
    ("task:", "tsak:", ["tsak", "Did you mean task?"]),
    ("column: age", "colum: age", ["cohort.table.numbers.0.colum", "Did you mean column?"]),
    ("privacy: none", "", ["privacy is missing", "privacy: none", "epsilon"]),
    ("privacy: none", "privacy: no", ["privacy", "'no'", "'none'"]),
    ("privacy: none", "privacy: {unit: image, epsilon: 3}", ["unit", "'image'", "'patient'"]),
    ("privacy: none", "privacy: {unit: patient, epsilon: 0}", ["epsilon", "0", "greater than 0"]),
    ("privacy: none", "privacy: {unit: patient}", ["privacy.epsilon is missing"]),
    ("rounds: 3", "rounds: 0", ["training.rounds", "0", "greater than 0"]),
    ("rounds: 3", "rounds: true", ["training.rounds", "True", "integer"]),
    ("rounds: 3", "rounds: 3.5", ["training.rounds", "3.5", "integer"]),
    ("rounds: 3", "rounds: '3'", ["training.rounds", "'3'", "integer"]),
    ("rounds: 3", "rounds: 3, learning_rate: .nan", ["learning_rate", ".nan", "number"]),
    ("rounds: 3", "rounds: 3, learning_rate: 1e999", ["learning_rate", "inf", "finite"]),
    ("rounds: 3", "rounds: 3, batch_patients: each", ["batch_patients", "'each'", "'all'"]),
    ("size: [64, 64]", "size: 64", ["cohort.images.size", "64", "tuple"]),
    ("size: [64, 64]", "size: [64]", ["cohort.images.size.1 is missing"]),
    ("small_cnn", "smal_cnn", ["model.network", "'smal_cnn'", "'small_cnn'"]),
    ("small_cnn", "unet", ["model.network=unet", "task.kind=diagnosis", "densenet121"]),
    ("small_cnn", "table", ["model.network=table", "without images"]),
    ("small_cnn", "densenet121, width: -1", ["model.width", "-1", "greater than 0"]),
    ("kind: diagnosis", "kind: diagnose", ["task", "diagnose", "'diagnosis'"]),
    ("target: malignant", "target: [a, b]", ["target is a list", "multilabel"]),
    ("target: malignant", "target: a, type: multiclass", ["multiclass needs classes"]),
    ("target: malignant", "target: a, classes: [1, 2]", ["task.classes.0", "1", "string"]),
    ("target: malignant", "target: a, classes: [b, b]", ["task", "classes names b twice"]),
    ("target: malignant", "target: [a, a], type: multilabel", ["target names a twice"]),
    ("target: malignant", "target: a, classes: ['', b]", ["task.classes.0", "''", "at least 1"]),
    ("target: malignant", "target: a, classes: [b, 'c ']", ["classes.1", "'c '", "a blank"]),
    ("target: malignant", 'target: a, classes: [b, "c\\nd"]', ["classes.1", "a line's end"]),
    ("target: malignant", 'target: a, classes: [b, "c\\e[2J"]', ["classes.1", "control"]),
    ("target: malignant", f"target: a, classes: [b, {201 * 'c'}]", ["classes.1", "at most 200"]),
    (
        "target: malignant",
        f"target: a, type: multiclass, classes: [{', '.join(f'c{n}' for n in range(1001))}]",
        ["task.classes", "at most 1000"],
    ),
    ("target: malignant", "target: age", ["cohort.table takes column age", "remove it"]),
    ("column: age", "column: age}, {column: age", ["column is named twice", "age"]),
    ("size: [64, 64]", "size: [64, 64], window: [3, 1], intensity: window", ["[3.0, 1.0]", "low"]),
    (
        "size: [64, 64]",
        "size: [64, 64], spacing: [2, 1, 1]",
        [
            "cohort.images",
            "spacing=[2.0, 1.0, 1.0]",
            "2-D size=[64, 64]",
            "[slices, rows, columns]",
        ],
    ),
    (
        "{network: small_cnn}",
        "{network: small_cnn, pool: sum}",
        ["model.pool", "'sum'", "'attention'"],
    ),
    (
        "{network: small_cnn}",
        "{network: small_cnn, pool: mean}\nevaluation: {unit: image}",
        ["model.pool=mean", "evaluation.unit=image", "evaluation.unit: patient"],
    ),
    ("name: example", "name: My Run", ["name", "'My Run'", "pattern"]),
    ("rounds: 3", "rounds: 3, rounds: 4", ["rounds is given twice", "line 6"]),
    ("size: [64, 64]", "size: [64, 64", ["not YAML", "line"]),
]


@pytest.mark.parametrize(
    ("old", "new", "words"), WRONG, ids=[(new or old)[:40] for old, new, _ in WRONG]
)
def test_a_refusal_names_the_file_the_key_the_value_and_what_was_expected(
    old: str, new: str, words: list[str]
) -> None:
    assert old in IMAGES
    message = refusal(IMAGES.replace(old, new))
    assert message.startswith("run.yaml")
    missing = [word for word in words if word not in message]
    assert not missing, message


@pytest.mark.parametrize(
    ("network", "size", "nearest"),
    [
        ("vit", "[60, 64]", "[64, 64]"),
        ("vit", "[20, 32, 32]", "[16, 32, 32]"),
        ("densenet121", "[20, 64]", "[32, 64]"),
        ("frozen_features", "[16, 16]", "[32, 32]"),
    ],
)
def test_a_size_that_the_network_cannot_take_is_refused_with_the_nearest_that_fits(
    network: str, size: str, nearest: str
) -> None:
    text = IMAGES.replace("small_cnn", network).replace("[64, 64]", size)
    message = refusal(text)
    assert f"size={size}" in message
    assert f"Nearest: {nearest}" in message
    parse_config(text.replace(size, nearest))


def test_spacing_goes_with_a_size_in_three_dimensions() -> None:
    found = parse_config(IMAGES.replace("size: [64, 64]", "size: [16, 64, 64], spacing: [2, 1, 1]"))
    assert found.cohort.images is not None
    assert found.cohort.images.spacing == (2, 1, 1)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ("", ["training.optimizer=adamw", "optimizer: sgd"]),  # the optimiser where none is named
        (", optimizer: adamw", ["training.optimizer=adamw", "optimizer: sgd"]),
        (", optimizer: sgd, momentum: 0.9", ["training.momentum=0.9", "kind: fedavgm"]),
    ],
)
def test_scaffold_is_refused_where_its_controls_would_not_be_mean_gradients(
    training: str, words: list[str]
) -> None:
    text = IMAGES.replace("rounds: 3", f"rounds: 3{training}")
    parse_config(text)
    message = refusal(text + "aggregation: {rule: scaffold}")
    missing = [word for word in ["aggregation.rule=scaffold", *words] if word not in message]
    assert not missing, message


@pytest.mark.parametrize("more", ["", ", weight_decay: 0.1", ", proximal: 0.1, local_steps: 4"])
def test_scaffold_takes_plain_steps(more: str) -> None:
    text = IMAGES.replace("rounds: 3", f"rounds: 3, optimizer: sgd{more}")
    assert parse_config(text + "aggregation: {rule: scaffold}").aggregation.rule == "scaffold"


def test_a_private_run_takes_no_scaffold_for_its_steps_have_no_correction() -> None:
    plain = PRIVATE.replace("rounds: 3", "rounds: 3, optimizer: sgd")
    scaffold = "aggregation: {rule: scaffold}"
    assert "privacy.aggregation" in refusal(f"{plain}{scaffold}")
    assert "scaffold" in refusal(plain.replace("epsilon: 3", f"epsilon: 3, {scaffold}"))
    own = plain.replace("epsilon: 3", "epsilon: 3, aggregation: {rule: mean}")
    parse_config(f"{own}{scaffold}")


def test_the_network_of_the_private_run_is_checked_too() -> None:
    message = refusal(
        IMAGES.replace(
            "privacy: none", "privacy: {unit: patient, epsilon: 3, model: {network: unet}}"
        )
    )
    assert "model.network=unet" in message


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("intervals: [30, 60]", "intervals: [30]", "intervals"),
        ("intervals: [30, 60]", "intervals: [60, 30]", "must rise"),
        ("time: days, ", "", "time"),
        ("intervals: [30, 60]", "outcome: fixed_horizon", "horizon"),
    ],
)
def test_survival_says_what_it_needs(old: str, new: str, word: str) -> None:
    assert word in refusal(SURVIVAL.replace(old, new))


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words", "3"])
def test_text_without_keys_is_refused(text: str) -> None:
    assert "expected keys like name:" in refusal(text)


@pytest.mark.parametrize(
    "text", ["a: [" * 5000, "\tname: a", "a: b: c", "? [a]\n: b", "a: !!python/object:os.x 1"]
)
def test_text_that_is_not_yaml_is_refused_without_a_traceback(text: str) -> None:
    assert "run.yaml" in refusal(text)


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "breast.yaml").write_text(IMAGES)
    with pytest.raises(ConfigurationError, match=r"No such file.*Did you mean .*breast\.yaml\?"):
        load_config(tmp_path / "breats.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ConfigurationError, match=r"run\.yaml is not UTF-8"):
        load_config(path)


# --- YAML as people mean it ---------------------------------------------------------------


def test_a_site_and_a_class_may_be_called_no() -> None:
    config = parse_config(
        IMAGES.replace("target: malignant", "target: a, classes: [no, yes]")
        + "aggregation: {weights: {no: 2, se: 1}}"
    )
    assert config.task.kind == "diagnosis"
    assert config.task.classes == ("no", "yes")
    assert config.aggregation.weights == {"no": 2.0, "se": 1.0}


# --- identity ------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    lines = IMAGES.strip().splitlines()
    turned = "\n".join(reversed(lines))
    assert parse_config(turned).fingerprint() == parse_config(IMAGES).fingerprint()


def test_the_order_of_sites_does_not_matter_either() -> None:
    first = parse_config(IMAGES + "aggregation: {weights: {a: 1, b: 2}}")
    second = parse_config(IMAGES + "aggregation: {weights: {b: 2, a: 1}}")
    assert first.fingerprint() == second.fingerprint()


def test_the_canonical_text_reads_back_as_the_same_run() -> None:
    for text in (IMAGES, PRIVATE, SURVIVAL):
        config = parse_config(text)
        assert parse_config(config.canonical_json()) == config


def test_structures_keep_their_order_on_the_way_to_a_site() -> None:
    text = IMAGES.replace("small_cnn", "unet").replace(
        "size: [64, 64]}, table", "size: [64, 64]}} #"
    )
    first, second = (
        parse_config(text.replace("{kind: diagnosis, target: malignant}", task))
        for task in (
            "{kind: segmentation, structures: {rim: [1], core: [2]}}",
            "{kind: segmentation, structures: {core: [2], rim: [1]}}",
        )
    )
    assert parse_config(first.canonical_json()).task.labels == ("background", "rim", "core")
    assert first.fingerprint() != second.fingerprint()  # they number label maps otherwise


def test_a_number_written_in_two_ways_is_the_same_run() -> None:
    assert (
        parse_config(PRIVATE.replace("epsilon: 3", "epsilon: 3.0")).fingerprint()
        == parse_config(PRIVATE).fingerprint()
    )


def test_a_default_that_is_written_out_is_the_same_run() -> None:
    written = IMAGES.replace("rounds: 3", "rounds: 3, local_steps: 1")
    assert parse_config(written).fingerprint() == parse_config(IMAGES).fingerprint()


@pytest.mark.processes
def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = (
        "import sys; from common.config.run_config import parse_config;"
        "print(parse_config(sys.stdin.read()).fingerprint())"
    )
    text = PRIVATE + "aggregation: {weights: {b: 1, a: 2, c: 3}}"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {parse_config(text).fingerprint()}


def leaves(part: BaseModel, place: str = "") -> list[str]:
    """Return every field of a configuration, sections opened."""
    found = []
    for name in type(part).model_fields:
        value = getattr(part, name)
        inner = f"{place}{name}"
        found += leaves(value, f"{inner}.") if isinstance(value, BaseModel) else [inner]
    return found


def changed(value: object) -> object:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 0.125
        case str():
            return value + "x"
        case tuple() | list():
            return (*value, "x")
        case dict():
            return {**value, "x": 1}
        case _:
            return "x"


FULL = parse_config(
    PRIVATE.replace(
        "epsilon: 3",
        "epsilon: 3, training: {rounds: 9}, model: {network: frozen_features},"
        " aggregation: {rule: mean}",
    ).replace("[{column: age}]", "[{column: age}], categories: [{column: sex, values: [f, m]}]")
    + "synthetic: {modality: ct}"
)


@pytest.mark.parametrize("place", leaves(FULL))
def test_the_fingerprint_changes_with_every_field(place: str) -> None:
    # Unchecked copies: another value need not make sense to need another name.
    def replaced(part: BaseModel, path: list[str]) -> BaseModel:
        name, *rest = path
        value = getattr(part, name)
        new = replaced(value, rest) if rest else changed(value)
        return part.model_copy(update={name: new})

    other = replaced(FULL, place.split("."))
    assert isinstance(other, RunConfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydantic: the value does not make sense
        assert other.fingerprint() != FULL.fingerprint()


@pytest.mark.parametrize(
    "path", sorted(Path("configs/simulations").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_configuration_written_out_is_the_same_run(path: Path) -> None:
    config = load_config(path)
    assert parse_config(config.to_yaml()).fingerprint() == config.fingerprint()
