from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import wardround
from common.platform import errors

ROOT = Path(__file__).parents[2]


@pytest.mark.processes
def test_import_loads_the_errors_and_nothing_else_that_is_not_pythons() -> None:
    program = "import sys; before = set(sys.modules); import wardround\n"
    program += "print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    ours = {"wardround", "common", "common.platform", "common.platform.errors"}
    assert ours <= loaded
    assert {m for m in loaded - ours if m.partition(".")[0] not in sys.stdlib_module_names} == set()


def test_every_name_is_there_and_says_what_it_is() -> None:
    assert dir(wardround) == wardround.__all__ == sorted(wardround.__all__)
    for name in wardround.__all__:
        found = getattr(wardround, name)
        assert inspect.getdoc(found), name


def test_a_function_says_what_it_takes_and_raises() -> None:
    for name in wardround.__all__:
        found = getattr(wardround, name)
        if not inspect.isfunction(found):
            continue
        text = inspect.getdoc(found) or ""
        assert "Raises" in text, name
        signature = inspect.signature(found)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
            if parameter.name not in {"progress", "workers"}:
                said = f"{parameter.name}:" in text or f"{parameter.name}," in text
                assert said, (name, parameter.name)


def test_the_whole_tree_of_errors_is_exported() -> None:
    tree = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.WardroundError)
    }
    exported = {name for name in wardround.__all__ if getattr(errors, name, None) is not None}
    assert tree == exported


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute compair"):
        wardround.compair  # noqa: B018 - looked up for its error
