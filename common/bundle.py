"""A model that leaves a run: weights, ONNX, a card and a README in one folder.

Public: Card, Bundle, write_bundle, read_bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from common.bundle_card import Card, card_json, readme
from common.config import RunConfig, parse_config
from common.durable import replace_durably
from common.errors import StateDamaged
from common.weights import Weights, load_weights, save_weights

__all__ = ["Bundle", "Card", "read_bundle", "write_bundle"]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was read back, whole and unchanged."""

    config: RunConfig  # the run that made it
    weights: Weights  # every parameter of `common.network.network_of(config, seed)`
    card: Mapping[str, object]  # card.json as it stands
    onnx: Path  # model.onnx


def write_bundle(folder: Path, network: nn.Module, config: RunConfig, card: Card) -> None:
    """Write the bundle; card.json comes last, so a folder without it is no bundle.

    `network` is `common.network.network_of(config, seed)` with its trained weights. RunFailed if
    the exported network does not compute what the trained one does.
    """
    # Imported here: the exporter takes seconds to load, and only a finished run needs it.
    from common.bundle_onnx import onnx_of

    content = onnx_of(network, config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").unlink(missing_ok=True)
    replace_durably(folder / "model.onnx", content)
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
    save_weights(folder / "model.safetensors", weights, {"run": config.fingerprint()})
    replace_durably(folder / "README.md", readme(config, card).encode())
    files = {name: _sha256(folder / name) for name in _FILES}
    replace_durably(folder / "card.json", card_json(config, card, files).encode())


def read_bundle(folder: Path) -> Bundle:
    """Return the bundle; StateDamaged names the file that is missing or was changed."""
    card = _card(folder / "card.json")
    for name in _FILES:
        _check_unchanged(folder / name, card)
    run = card["run"]
    configuration = json.dumps(run["configuration"]) if isinstance(run, dict) else ""
    return Bundle(
        config=parse_config(configuration, source=str(folder / "card.json")),
        weights=load_weights(folder / "model.safetensors"),
        card=card,
        onnx=folder / "model.onnx",
    )


_FILES = ("model.onnx", "model.safetensors", "README.md")


def _card(path: Path) -> dict[str, object]:
    try:
        card = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"Cannot read {path}: {error}. Export the bundle again."
        raise StateDamaged(message) from error
    if not isinstance(card, dict) or card.get("schema") != 1 or "run" not in card:
        message = f"{path} is no card of a bundle: expected schema 1 and a run. Export it again."
        raise StateDamaged(message)
    return card


def _check_unchanged(path: Path, card: Mapping[str, object]) -> None:
    files = card.get("files")
    expected = files.get(path.name) if isinstance(files, dict) else None
    found = _sha256(path) if path.is_file() else "no file"
    if found != expected:
        message = f"{path} has SHA-256 {found}, its card says {expected}. Export the bundle again."
        raise StateDamaged(message)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
