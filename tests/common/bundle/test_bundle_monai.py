"""MONAI's own runner on our bundles, in an interpreter that cannot import this package."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.reading.read import Header, read_header
from client.dicom.reading.volume import Turn
from client.inference.grid import FrameOrigin, flat_place, source_labels
from client.inference.trained_model import Local, score_study
from common.bundle import torchscript as bundle_torchscript
from common.bundle.monai import inference_json, metadata_json
from common.bundle.onnx import Deployed, example_inputs
from common.bundle.preparation import Preparation
from common.bundle.torchscript import preparation_of, quiet, torchscript_of
from common.bundle.write import INFERENCE, METADATA, MODEL_TS, PREPARATION_TS, write_bundle
from common.config.run_config import Images, RunConfig, parse_config
from common.data.preprocessing import prepare
from common.platform.errors import RunFailed
from tests.client.dicom_files import image, placed, save, slices
from tests.client.small_models import model_of
from tests.common.bundle.test_bundle import CARD, CASES, WIDE, config_of, trained

pytestmark = pytest.mark.processes

RUNS = {
    "pictures": "task: {kind: diagnosis, type: multilabel, target: [edema, effusion]},"
    "cohort: {images: {size: [24, 32], channels: 3}, table: {numbers: [{column: 'a@b %c$',"
    "center: 60, scale: 10}, {column: crp, transform: log}],"
    "categories: [{column: sex, values: [f, m]}]}}, model: {network: small_cnn, width: 4}",
    "frozen": "task: {kind: prognosis, outcome: fixed_horizon, event: died},"
    "cohort: {images: {size: [40, 32], intensity: zscore, fit: stretch}},"
    "model: {network: frozen_features, projection: 16}",
    "volumes": "task: {kind: segmentation, structures: {head: [1], body: [2]}},"
    "cohort: {images: {size: [8, 16, 16], spacing: [3.0, 1.5, 1.5], intensity: window,"
    "window: [0, 4000]}}, model: {network: unet, width: 2}",
    "outlines": "task: {kind: segmentation}, cohort: {images: {size: [16, 32], fit: crop}},"
    "model: {network: unet, width: 2}",
    "bags": "task: {kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]},"
    "cohort: {images: {size: [24, 32]}, table: {numbers: [{column: 'a@b %c$',"
    "center: 60, scale: 10}, {column: crp, transform: log}],"
    "categories: [{column: sex, values: [f, m]}]}},"
    "model: {network: small_cnn, width: 4, pool: attention}",
    "bags-alone": "task: {kind: diagnosis, target: tumour},"
    "cohort: {images: {size: [24, 32]}},"
    "model: {network: small_cnn, width: 4, pool: mean}",
    "table": CASES["survival"],
}
TABLE = (
    {"a@b %c$": "63", "crp": "4.5", "sex": "f"},
    {"a@b %c$": "-", "crp": "0", "sex": "m"},
    {"a@b %c$": "71", "crp": None, "sex": "?"},
)
#: Of TABLE, by hand: numbers, sex, then what is missing.
ENCODED = ((0.3, np.log1p(4.5), 1, 0, 0, 0, 0), (0, 0, 0, 1, 1, 0, 0), (1.1, 0, 0, 0, 0, 1, 1))
DRIVER = """
import importlib.util, json, os, sys
for name in ("common", "client", "server", "simulations"):
    assert importlib.util.find_spec(name) is None, name
from monai.bundle import run, verify_net_in_out
for folder in sys.argv[1:]:
    os.chdir(folder + "/bundle")
    if not folder.endswith(("pictures", "bags")):  # MONAI's check takes networks of one input
        verify_net_in_out(net_id="network_def", meta_file="configs/metadata.json",
                          config_file="configs/inference.json", device="cpu")
    run(bundle_root=".", meta_file="configs/metadata.json", config_file="configs/inference.json",
        dataset_dir=folder + "/in", output_dir=folder + "/out")
"""


def run_config(name: str) -> RunConfig:
    return parse_config(f"{{name: example, training: {{rounds: 1}}, privacy: none, {RUNS[name]}}}")


def noise(*shape: int, seed: int) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


#: By name: cosines of rows and columns, the step from slice to slice in mm, and whether
#: InstanceNumber falls along it.
SCANNED = {
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5), False),
    "axial-from-head": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5), True),
    "axial-face-down": ((-1, 0, 0, 0, -1, 0), (0, 0, -2.5), False),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 2.5, 0), False),
    "sagittal": ((0, 1, 0, 0, 0, -1), (-2.5, 0, 0), True),
    "sagittal-turned": ((0, 0, -1, 0, 1, 0), (2.5, 0, 0), False),
    "oblique": ((1, 0, 0, 0, 0.9, -0.43589), (0, 1.0897, 2.25), False),
}


#: Orders of a NIfTI's axes.
TURNS = {
    "-".join(map(str, order)): order
    for order in itertools.permutations(range(3))
    if order != (0, 1, 2)
}


def region(size: int, down: float, across: float, kind: int) -> Dataset:
    """Return an ultrasound region of size x 20 pixels of so many cm (kind 1: tissue)."""
    found = Dataset()
    found.RegionSpatialFormat, found.RegionDataType, found.RegionFlags = kind, 1, 0
    found.RegionLocationMinX0 = found.RegionLocationMinY0 = 0
    found.RegionLocationMaxX1, found.RegionLocationMaxY1 = size, 20
    found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = 3
    found.PhysicalDeltaX, found.PhysicalDeltaY = across, down
    return found


#: Two regions of tissue, the larger with pixels twice as high as wide; and one that is none.
REGIONS = [
    region(size, down, across, kind)
    for size, down, across, kind in ((9, 0.02, 0.03, 1), (40, 0.04, 0.02, 1), (43, 0.1, 0.3, 2))
]
#: Pixels twice as high as wide, as DICOM may say it.
TALL: dict[str, dict[str, object]] = {
    "spacing": {"PixelSpacing": [1.0, 0.5]},
    "detector": {"ImagerPixelSpacing": [1.0, 0.5]},
    "film": {"NominalScannedPixelSpacing": [1.0, 0.5]},
    "ratio": {"PixelAspectRatio": [2, 1]},
    "region": {"SequenceOfUltrasoundRegions": REGIONS},
    "region-first": {"SequenceOfUltrasoundRegions": REGIONS, "PixelSpacing": [0.3, 0.3]},
}


def turned(
    volume: nib.Nifti1Image, order: tuple[int, ...], flip: int | None = None
) -> nib.Nifti1Image:
    """Return the same volume with its axes in another order, each second one turned round."""
    values, affine = np.asarray(volume.dataobj), volume.affine
    values, affine = values.transpose(order), affine[:, [*order, 3]]
    for axis in (1,) if flip is None else (flip,):
        values = np.flip(values, axis)
        affine = affine.copy()
        affine[:, 3] += affine[:, axis] * (values.shape[axis] - 1)
        affine[:, axis] *= -1
    return nib.Nifti1Image(np.ascontiguousarray(values), affine)


def scan(folder: Path, kind: str) -> None:
    """Write volume(3) as a series that was scanned in this way; its files are in no order."""
    cosines, step, falls = SCANNED[kind]
    for number, item in enumerate(slices(volume(3), series=kind)):
        placed(item, tuple(number * mm for mm in step), cosines)
        item.InstanceNumber = 9 - number if falls else number + 1
        save(folder / f"{(number * 5) % 9}.dcm", item)


def volume(seed: int) -> NDArray[np.uint16]:
    return noise(9, 30, 20, seed=seed)  # slices, rows, columns


def volumes_given(folder: Path) -> None:
    for kind in SCANNED:
        scan(folder / kind, kind)
    same = nib.Nifti1Image(
        volume(3).T[::-1, ::-1].astype(np.float32), np.diag([0.7, 0.5, 2.5, 1.0])
    )
    nib.save(same, folder / "same.nii.gz")
    for kind, order in TURNS.items():
        nib.save(turned(same, order), folder / f"{kind}.nii.gz")
    cube = nib.Nifti1Image(volume(3).T.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    nib.save(cube, folder / "cube.nii.gz")
    nib.save(turned(cube, (2, 0, 1)), folder / "cube-turned.nii.gz")


def pictures_given(folder: Path) -> None:
    Picture.fromarray((noise(20, 44, seed=5) // 16).astype(np.uint8)).save(folder / "p.png")
    for kind, said in TALL.items():
        dataset = image(noise(20, 44, seed=5))
        for keyword, value in said.items():
            setattr(dataset, keyword, value)
        save(folder / f"{kind}.dcm", dataset)
    values = noise(20, 44, seed=5).T[::-1, ::-1].astype(np.float32)
    flat = nib.Nifti1Image(values[..., None], np.diag([0.5, 1.0, 3.0, 1.0]))
    nib.save(flat, folder / "flat.nii.gz")
    nib.save(turned(flat, (2, 1, 0), flip=1), folder / "flat-turned.nii.gz")


def bags_given(folder: Path, *, with_table: bool) -> None:
    for place in range(len(TABLE)):
        for number in range(place + 1):
            picture = image(noise(50, 40, seed=10 * place + number))
            save(folder / f"{place}/{number}.dcm", picture)
    if with_table:
        rows = [{"image": str(place), "table": row} for place, row in enumerate(TABLE)]
        (folder / "datalist.json").write_text(json.dumps(rows))


def given(name: str, folder: Path) -> None:
    """Write what the runner is to score."""
    folder.mkdir()
    match name:
        case "pictures":
            rows = []
            for place, row in enumerate(TABLE):
                save(folder / f"{place}.dcm", image(noise(50, 40 + place, seed=place)))
                rows.append({"image": f"{place}.dcm", "table": row})
            (folder / "datalist.json").write_text(json.dumps(rows))
        case "bags" | "bags-alone":
            bags_given(folder, with_table=name == "bags")
        case "frozen":
            np.save(folder / "a.npy", noise(40, 50, seed=1).T.astype(np.float32))
        case "volumes":
            volumes_given(folder)
        case "outlines":
            pictures_given(folder)
        case "table":
            rows = [{"table": {"age": str(n), "sex": "f"}} for n in (40, 71)]
            (folder / "datalist.json").write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of an interpreter that has every library and not this package."""
    farm = tmp_path_factory.mktemp("libraries")
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        ours = ("wardround", "__editable__", "client", "common", "server", "simulations")
        if entry.suffix != ".pth" and not entry.name.startswith(ours):
            (farm / entry.name).symlink_to(entry)
    return {"PYTHONPATH": str(farm), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}


def write_runnable(folder: Path, config: RunConfig) -> None:
    """Write what the runner needs of a bundle; exporting ONNX as well takes most of the time."""
    for name in ("models", "configs"):
        (folder / name).mkdir(parents=True)
    (folder / MODEL_TS).write_bytes(torchscript_of(trained(config), config))
    if config.cohort.images is not None:
        (folder / PREPARATION_TS).write_bytes(preparation_of(config.cohort.images))
    (folder / METADATA).write_text(metadata_json(config, "round-2+0"), encoding="utf-8")
    (folder / INFERENCE).write_text(inference_json(config), encoding="utf-8")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, alone: dict[str, str]) -> Path:
    """Return a folder with a bundle, what it was given and what MONAI's runner made of it."""
    root = tmp_path_factory.mktemp("monai")
    for name in RUNS:
        write_runnable(root / name / "bundle", run_config(name))
        given(name, root / name / "in")
    config = run_config("table")
    write_bundle(root / "table" / "bundle", trained(config), config, CARD)
    by_hand = [sys.executable, "-S", "-m", "monai.bundle", "run", "--bundle_root", "."]
    by_hand += ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"]
    by_hand += ["--dataset_dir", str(root / "table/in"), "--output_dir", str(root / "table/out")]
    others = [sys.executable, "-S", "-c", DRIVER, *(str(root / n) for n in RUNS if n != "table")]
    for command in (by_hand, others):
        done = subprocess.run(
            command,
            cwd=root / "table/bundle",
            env=alone,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def answers(name: str, images: list[torch.Tensor], table: torch.Tensor | None) -> torch.Tensor:
    """Return what the network says of what we prepared."""
    config = run_config(name)
    inputs = {"image": torch.stack(images)} if images else {}
    if table is not None:
        inputs["table"] = table
    with torch.no_grad():
        prediction, output = Deployed(trained(config), config)(**inputs)
    return output if config.task.kind == "segmentation" else prediction


def rows_of(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row[0]: [float(value) for value in row[1:]] for row in csv.reader(file)}


def rules_of(name: str) -> Images:
    rules = run_config(name).cohort.images
    assert rules is not None
    return rules


@pytest.mark.processes
def test_the_runner_scores_dicom_and_clinical_columns_as_a_site_does(scored: Path) -> None:
    ours = answers(
        "pictures",
        [
            prepare(noise(50, 40 + n, seed=n).astype(np.float32), None, rules_of("pictures"))
            for n in range(3)
        ],
        torch.tensor(ENCODED, dtype=torch.float32),
    )
    found = rows_of(scored / "pictures/out/predictions.csv")
    assert list(found) == ["0.dcm", "1.dcm", "2.dcm"]
    np.testing.assert_allclose(list(found.values()), ours, atol=1e-4)
    assert len({round(row[0], 3) for row in found.values()}) > 1, "all alike tell nothing"


@pytest.mark.parametrize("name", ["bags", "bags-alone"])
def test_the_runner_gives_one_answer_of_a_patients_folder(scored: Path, name: str) -> None:
    found = rows_of(scored / name / "out/predictions.csv")
    assert list(found) == ["0", "1", "2"]
    for place in range(3):
        pictures = [
            prepare(noise(50, 40, seed=10 * place + n).astype(np.float32), None, rules_of(name))
            for n in range(place + 1)
        ]
        row = torch.tensor([ENCODED[place]] * (place + 1), dtype=torch.float32)
        ours = answers(name, pictures, row if name == "bags" else None)
        np.testing.assert_allclose([found[str(place)]], ours, atol=1e-4)


def test_frozen_features_take_their_backbone_along(scored: Path) -> None:
    values = noise(40, 50, seed=1).astype(np.float32)
    ours = answers("frozen", [prepare(values, None, rules_of("frozen"))], None)
    found = rows_of(scored / "frozen/out/predictions.csv")
    np.testing.assert_allclose(found["a.npy"], ours[0], atol=1e-4)


def test_a_table_alone_is_scored_from_the_command_line(scored: Path) -> None:
    encoded = torch.tensor([[40.0, 1, 0, 0, 0], [71, 1, 0, 0, 0]])
    found = rows_of(scored / "table/out/predictions.csv")
    np.testing.assert_allclose(list(found.values()), answers("table", [], encoded), atol=1e-4)


@pytest.mark.parametrize("kind", SCANNED)
def test_outlines_of_a_series_are_those_of_a_site_however_it_was_scanned(
    scored: Path, kind: str
) -> None:
    config = run_config("volumes")
    files = sorted((scored / "volumes/in" / kind).iterdir())
    (score,) = score_study(files, model_of(config, trained(config)), Local(explain=False))
    assert score.outlines is not None
    outlined = np.count_nonzero(score.outlines.labels)
    assert 50 < outlined < score.outlines.labels.size / 2, "all alike tell nothing"
    (path,) = (scored / "volumes/out").glob(f"{kind}_outlines*")
    found = nib.load(path)
    np.testing.assert_allclose(found.header.get_zooms(), [0.7, 0.5, 2.5], atol=1e-3)
    labels = np.asarray(found.dataobj)  # columns, rows, slices in the order of InstanceNumber
    apart = 0
    for source, plane in zip(score.sources, score.outlines.labels, strict=True):
        number = dcmread(source, stop_before_pixels=True).InstanceNumber
        apart += np.count_nonzero(plane != labels[..., number - 1].T)
    assert apart <= 0.01 * outlined


def test_outlines_of_a_nifti_lie_on_its_grid(scored: Path) -> None:
    axial, same = (
        np.asarray(nib.load(scored / f"volumes/out/{name}_outlines.nii.gz").dataobj)
        for name in ("axial", "same")
    )
    assert same.shape == (20, 30, 9)
    # Its first two axes lead to the right and to the front, as NIfTI's usually do.
    assert np.mean(same[::-1, ::-1] != axial) < 1e-3


def in_place(path: Path) -> NDArray[np.uint8]:
    """Return a label map with its axes towards right, front and head."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.mark.parametrize("name", [*TURNS, "cube-turned"])
def test_a_nifti_in_any_order_of_its_axes_gets_the_same_outlines_on_its_own_grid(
    scored: Path, name: str
) -> None:
    given_, out = (scored / "volumes/in" / f"{name}.nii.gz", scored / "volumes/out")
    found = out / f"{name}_outlines.nii.gz"
    assert nib.load(found).shape == nib.load(given_).shape
    np.testing.assert_allclose(nib.load(found).affine, nib.load(given_).affine, atol=1e-5)
    same = in_place(out / f"{'cube' if 'cube' in name else 'same'}_outlines.nii.gz")
    assert 0 < np.count_nonzero(same) < same.size
    both = [(in_place(found) == n, same == n) for n in (1, 2)]
    overlap = sum(np.count_nonzero(a & b) for a, b in both)
    dice = 2 * overlap / sum(np.count_nonzero(a) + np.count_nonzero(b) for a, b in both)
    assert dice > 0.999


@pytest.mark.parametrize("name", [*TALL, "flat", "flat-turned"])
def test_pixels_that_are_not_square_keep_their_shape_in_the_runner(scored: Path, name: str) -> None:
    values, spacing = noise(20, 44, seed=5).astype(np.float32), (1.0, 0.5)
    rules = rules_of("outlines")
    ours = answers("outlines", [prepare(values, spacing, rules)], None)[0]
    place = flat_place(Path("x"), _tall_header(spacing), 0)
    expected = source_labels(ours, place, rules)[0]
    (path,) = (scored / "outlines/out").glob(f"{name}_outlines*")
    found = np.asarray(Picture.open(path))
    if name == "flat":  # its axes lead to the right and to the front
        found = found[::-1, ::-1]
    if name == "flat-turned":  # slice, then front to back, then right
        found = found.T[:, ::-1]
    assert found.shape == expected.shape
    assert np.mean((found > 0) != (expected > 0)) < 1e-3
    assert 0 < np.mean(expected > 0) < 1
    square = answers("outlines", [prepare(values, None, rules)], None)[0]
    assert not torch.equal(square, ours)


def _tall_header(spacing: tuple[float, float]) -> Header:
    dataset = image(noise(20, 44, seed=5))
    dataset.PixelSpacing = list(spacing)
    return read_header(dataset)


@pytest.mark.parametrize("kind", TALL)
def test_a_site_sees_the_same_shape_of_pixels(scored: Path, kind: str) -> None:
    height, width = read_header(dcmread(scored / f"outlines/in/{kind}.dcm")).pixel or (1.0, 1.0)
    assert height / width == pytest.approx(2)


def test_an_outline_of_a_picture_is_a_picture_of_the_same_size(scored: Path) -> None:
    values = (noise(20, 44, seed=5) // 16).astype(np.float32)
    ours = answers("outlines", [prepare(values, None, rules_of("outlines"))], None)[0]
    back = Preparation(rules_of("outlines")).restore(ours, [44, 20], [])[0].T
    (path,) = (scored / "outlines/out").glob("p_outlines*")
    found = np.asarray(Picture.open(path))
    assert found.shape == (20, 44)
    assert np.mean((found > 0) != (back.numpy() > 0)) < 1e-3
    assert 0 < np.mean(back.numpy() > 0) < 1


def random_rules(generator: np.random.Generator) -> Images:
    dimensions = int(generator.choice([2, 3]))
    kind = str(generator.choice(["percentile", "zscore", "window"]))
    text = {
        "size": tuple(int(n) for n in generator.integers(4, 40, dimensions)),
        "channels": int(generator.choice([1, 3])),
        "fit": str(generator.choice(["letterbox", "stretch", "crop"])),
        "intensity": kind,
    }
    if kind == "window":
        text["window"] = (-100.0, 300.0)
    if dimensions == 3 and generator.random() < 0.6:
        text["spacing"] = tuple(float(n) for n in generator.uniform(0.5, 3, 3))
    if (dimensions == 2 or "spacing" in text) and generator.random() < 0.3:
        text["patch"] = text.pop("size")
        text["fit"] = "letterbox"
    return Images.model_validate(text)


@pytest.mark.parametrize("seed", range(40))
def test_the_preparation_in_a_bundle_is_that_of_the_sites(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rules = random_rules(generator)
    shape = tuple(int(n) for n in generator.integers(3, 60, rules.dimensions))
    shape = (300, 500) if shape[0] % 7 == 0 and rules.dimensions == 2 else shape
    colour = rules.dimensions == 2 and generator.random() < 0.4
    values = generator.normal(100, 200, (*shape, 3) if colour else shape).astype(np.float32)
    spacing = tuple(float(n) for n in generator.uniform(0.5, 3, len(shape)))
    with quiet():
        program = torch.jit.load(io.BytesIO(preparation_of(rules)))
    given = torch.from_numpy(values)
    turned = given.permute(2, 1, 0) if colour else given.permute(*range(len(shape))[::-1])[None]
    found = program(turned, list(spacing[::-1]))
    torch.testing.assert_close(found, prepare(values, spacing, rules), atol=2e-6, rtol=0)
    extent = rules.size if rules.patch is None else found.shape[1:]
    output = torch.from_numpy(generator.normal(size=(3, *extent)).astype(np.float32))
    back = program.restore(output, list(shape[::-1]), list(spacing[::-1]))
    place = FrameOrigin(
        sources=(Path("x"),),
        frames=(shape[0] if len(shape) == 3 else 1,),
        planes=tuple((0, n) for n in range(shape[0] if len(shape) == 3 else 1)),
        turn=Turn(transposed=False, flipped=()),
        shape=shape,
        spacing=spacing,
    )
    ours = source_labels(output, place, rules)
    theirs = back[0].permute(*range(len(shape))[::-1]).numpy()
    assert np.mean(ours.reshape(shape) != theirs) < 1e-3


def test_torchscript_that_computes_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("survival")
    other = trained(config)
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    wrong = torchscript_of(other, config)
    monkeypatch.setattr(bundle_torchscript, "_archive", lambda _: wrong)
    with pytest.raises(RunFailed, match=r"model\.ts computes another answer"):
        write_bundle(tmp_path, trained(config), config, CARD)
    assert list(tmp_path.iterdir()) == []


#: What MONAI's schema of 2024-07-25 requires of metadata.json, and of each tensor in it.
REQUIRED = {
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "task",
    "required_packages_version",
    "description",
    "authors",
    "copyright",
    "network_data_format",
}
TENSOR = {
    "type": str,
    "format": str,
    "num_channels": int,
    "spatial_shape": list,
    "dtype": str,
    "value_range": list,
    "is_patch_data": bool,
    "channel_def": dict,
    "modality": str,
}


@pytest.mark.parametrize("case", [*CASES, *WIDE])
def test_metadata_has_every_field_that_monais_schema_requires(case: str) -> None:
    config = config_of(case)
    content = json.loads(metadata_json(config, "round-2+abc"))
    assert set(content) >= REQUIRED
    tensors = content["network_data_format"]
    example = example_inputs(config, 1)
    assert list(tensors["inputs"]) == list(example)
    assert list(tensors["outputs"]) == ["pred"]
    for tensor in (*tensors["inputs"].values(), *tensors["outputs"].values()):
        for name, kind in TENSOR.items():
            if name in tensor:
                assert type(tensor[name]) is kind, name
        assert set(tensor) >= set(TENSOR) - {"modality"}
    for name, value in example.items():
        assert tensors["inputs"][name]["num_channels"] == value.shape[1]
        assert tensors["inputs"][name]["spatial_shape"] == list(value.shape[2:])


def test_a_description_is_never_taken_for_an_expression() -> None:
    config = config_of("survival").model_copy(update={"description": "$__import__('os').abort()"})
    assert json.loads(metadata_json(config, "x"))["description"].startswith(" $")


def test_the_runners_configuration_loads_no_pickle_and_nothing_of_ours() -> None:
    for case in CASES:
        text = inference_json(config_of(case))
        for word in ("torch.load(", "pickle", "wardround", "common.", "client."):
            assert word not in text
