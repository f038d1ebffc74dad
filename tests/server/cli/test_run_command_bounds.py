from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.app import app
from tests.common.config.test_config import IMAGES
from tests.common.config.test_config_yaml import BOMB

EXPECTED = {
    BOMB: "it has an anchor, &a; remove it",
    IMAGES + "description: |\n" + "  long words\n" * 30_000: "larger than sites read",
}


@pytest.mark.parametrize("text", EXPECTED, ids=["aliases", "too long"])
def test_run_says_why_it_takes_no_such_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    found = CliRunner().invoke(app, ["run", str(path), "--folder", str(tmp_path / "none")])
    assert found.exit_code == 2
    said = " ".join((found.output + str(found.exception)).split())
    assert EXPECTED[text] in said
    assert str(path) in said
