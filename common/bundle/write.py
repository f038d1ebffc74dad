"""Bundle of a trained model: weights, ONNX, TorchScript, card and README in one folder.

The folder is a MONAI Bundle too, which MONAI's own runner executes without this package; only
`models/model.pt` of MONAI's specification is not there, as it would be a pickle.

Public: Card, Bundle, write_bundle, read_bundle, is_free.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from common.bundle.card import Card, card_json
from common.bundle.monai import inference_json, metadata_json
from common.bundle.readme import readme
from common.config.run_config import RunConfig, read_config
from common.data.weights import Weights, load_weights, save_weights
from common.models.deep_supervision import is_deep_head
from common.platform.durable_files import replace_durably
from common.platform.errors import StateDamaged

__all__ = ["Bundle", "Card", "is_free", "read_bundle", "write_bundle"]

MODEL_TS = "models/model.ts"
PREPARATION_TS = "models/preparation.ts"
METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
#: Those of a bundle of any release.
_NEEDED = ("model.onnx", "model.safetensors", "README.md")
#: Every file that a bundle may have beside its card.
BUNDLE_FILES = (*_NEEDED, MODEL_TS, PREPARATION_TS, METADATA, INFERENCE)
#: Where a bundle is written before it takes its place.
UNFINISHED = ".unfinished"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was read back, whole and unchanged."""

    config: RunConfig  # the run that made it
    weights: Weights  # every parameter of `common.models.run_network.network_of(config, seed)` but
    # those of heads that training alone uses
    card: Mapping[str, object]  # card.json as it stands
    onnx: Path  # model.onnx


def write_bundle(folder: Path, network: nn.Module, config: RunConfig, card: Card) -> None:
    """Write the bundle; card.json comes last, so a folder without it is no bundle.

    `network` is `common.models.run_network.network_of(config, seed)` with its trained weights.
    RunFailed if an exported network does not compute what the trained one does. What was in the
    folder stays as it is until everything is written; a crash before that leaves it whole.
    """
    # Imported here: the exporters take seconds to load, and only a finished run needs them.
    from common.bundle.onnx import onnx_of
    from common.bundle.torchscript import preparation_of, torchscript_of

    files = {"model.onnx": onnx_of(network, config), MODEL_TS: torchscript_of(network, config)}
    if config.cohort.images is not None:
        files[PREPARATION_TS] = preparation_of(config.cohort.images)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        weights = {
            name: parameter.detach()
            for name, parameter in network.named_parameters()
            if not is_deep_head(name)
        }
        unfinished.mkdir()
        save_weights(unfinished / "model.safetensors", weights, {"run": config.fingerprint()})
        _write(unfinished, files)
        hashes = {name: _sha256(unfinished / name) for name in ("model.safetensors", *files)}
        release = f"round-{card.round}+{hashes['model.safetensors'][:12]}"
        texts = {
            "README.md": readme(config, card, hashes).encode(),
            METADATA: metadata_json(config, release).encode(),
            INFERENCE: inference_json(config).encode(),
        }
        _write(unfinished, texts)
        hashes |= {name: _sha256(unfinished / name) for name in texts}
        _write(unfinished, {"card.json": card_json(config, card, hashes).encode()})
        _move(unfinished, folder, hashes)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        replace_durably(folder / name, content)


def _move(unfinished: Path, folder: Path, names: Iterable[str]) -> None:
    """Put the files in their places; no card says that they are a bundle until all are there."""
    (folder / "card.json").unlink(missing_ok=True)
    for name in BUNDLE_FILES:
        (folder / name).unlink(missing_ok=True)
    for name in (*names, "card.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (unfinished / name).replace(folder / name)


def is_free(folder: Path) -> bool:
    """Return whether a bundle may be written there: nothing else lies in it."""
    if not folder.is_dir():
        return not folder.exists()
    ours = {"card.json", UNFINISHED} | {Path(name).parts[0] for name in BUNDLE_FILES}
    return all(path.name in ours for path in folder.iterdir())


def read_bundle(folder: Path) -> Bundle:
    """Return the bundle; StateDamaged names the file that is missing or was changed."""
    card = _card(folder / "card.json")
    for name in dict.fromkeys((*_NEEDED, *_listed(card))):
        _check_unchanged(folder, name, card)
    run = card["run"]
    configuration = json.dumps(run["configuration"]) if isinstance(run, dict) else ""
    return Bundle(
        config=read_config(configuration, source=str(folder / "card.json")),
        weights=load_weights(folder / "model.safetensors"),
        card=card,
        onnx=folder / "model.onnx",
    )


def _listed(card: Mapping[str, object]) -> tuple[str, ...]:
    """Return the files that the card lists and that a bundle may have: older ones have fewer."""
    files = card.get("files")
    return tuple(name for name in BUNDLE_FILES if isinstance(files, dict) and name in files)


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


def _check_unchanged(folder: Path, name: str, card: Mapping[str, object]) -> None:
    path, files = folder / name, card.get("files")
    expected = files.get(name) if isinstance(files, dict) else None
    if not path.is_file():
        message = f"{path} is missing, which the bundle's card names. Export the bundle again."
        raise StateDamaged(message)
    found = _sha256(path)
    if found != expected:
        message = f"{path} has SHA-256 {found}, its card says {expected}. Export the bundle again."
        raise StateDamaged(message)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
