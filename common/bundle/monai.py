"""MONAI Bundle: metadata.json, and a configuration for MONAI's own runner.

Layout and fields are those of MONAI's bundle specification and of its schema of 2024-07-25.
The configuration names classes of MONAI, PyTorch and Python only, and loads no pickle.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

from common.bundle.monai_places import datalist, places, shown, source, spacing
from common.bundle.origin import Json
from common.bundle.words import INTENDED_USE, channel_names, modalities, table_columns
from common.config.run_config import Images, RunConfig, Table
from common.config.tasks.forms import BoundedNumber
from common.models.windows import OVERLAP

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
#: What the configuration needs beside MONAI, and the versions that it was tried with.
_RUNNER = {"fire": "0.7.1", "pytorch-ignite": "0.5.5"}
_READERS = {"nibabel": "5.4.2", "pillow": "12.0.0", "pydicom": "3.0.1"}


def metadata_json(config: RunConfig, release: str) -> str:
    """Return configs/metadata.json; `release` names these weights among others of the run."""
    images = config.cohort.images
    content: dict[str, Json] = {
        "schema": SCHEMA,
        "version": release,
        "changelog": {release: f"weights of run {config.name}; card.json says how they came about"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch").split("+")[0],
        "numpy_version": _version("numpy"),
        "required_packages_version": dict(_RUNNER if images is None else _RUNNER | _READERS),
        "name": config.name,
        "task": f"{config.task.kind}: {config.task.meaning}",
        "description": _plain(config.description or "A model trained by several hospitals."),
        "authors": "The sites that card.json names; persons are not recorded",
        "copyright": "not recorded",
        "data_type": "dicom" if images is not None else "table",
        "pred_classes": _plain(", ".join(config.task.labels)),
        "intended_use": INTENDED_USE,
        "network_data_format": {"inputs": _inputs(config), "outputs": {"pred": _output(config)}},
    }
    return json.dumps(content, indent=1) + "\n"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not recorded"


def _plain(text: str) -> str:
    """Keep a text from being taken for a reference or an expression of MONAI's parser."""
    return f" {text}" if text.startswith(("$", "@", "%")) else text


def _inputs(config: RunConfig) -> dict[str, Json]:
    images, table = config.cohort.images, config.cohort.table
    found: dict[str, Json] = {}
    if images is not None:
        found["image"] = {
            "type": "image",
            "format": "magnitude",
            "modality": ", ".join(modalities(images)) or "n/a",
            "num_channels": images.input_channels,
            "spatial_shape": list(images.size),
            "dtype": "float32",
            "value_range": [] if images.intensity == "zscore" else [0, 1],
            "is_patch_data": images.patch is not None,
            "channel_def": {str(n): name for n, name in enumerate(channel_names(images))},
        }
    if table is not None:
        columns = table_columns(table)
        found["table"] = {
            "type": "tuples",
            "format": "points",
            "modality": "n/a",
            "num_channels": table.width,
            "spatial_shape": [],
            "dtype": "float32",
            "value_range": [],
            "is_patch_data": False,
            "channel_def": {str(n): _plain(name) for n, name in enumerate(columns)},
        }
    return found


def _output(config: RunConfig) -> dict[str, Json]:
    images, named = config.cohort.images, config.task.labels
    outlines = config.task.outlines
    shape = list(images.size) if outlines and images is not None else []
    form = config.task.predicts
    if isinstance(form, BoundedNumber):
        return {
            "type": "tuples",
            "format": "points",
            "num_channels": 1,
            "spatial_shape": [],
            "dtype": "float32",
            "value_range": [form.low, form.high],
            "is_patch_data": False,
            "channel_def": {"0": _plain(f"{named[0]} ({form.unit})")},
        }
    return {
        "type": "image" if outlines else "probabilities",
        "format": "labels" if outlines else "classes",
        "num_channels": len(named),
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [] if outlines else [0, 1],
        "is_patch_data": False,
        "channel_def": {str(n): _plain(name) for n, name in enumerate(named)},
    }


# --- the runner's configuration ------------------------------------------------------------


def inference_json(config: RunConfig) -> str:
    """Return configs/inference.json: `python -m monai.bundle run` scores a folder with it."""
    images, table = config.cohort.images, config.cohort.table
    outlines = config.task.outlines
    content: dict[str, Json] = {
        "imports": [f"$import {name}" for name in _modules(images)],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": _loaded("model", "@device"),
        **({} if images is None else {"preparation": _loaded("preparation", "'cpu'")}),
        **({} if images is None else places(images)),
        **({} if table is None else _encoding(table)),
        **({} if config.model.pool is None else {"single": _preprocessing(images)}),
        "datalist": datalist(images, table, bags=config.model.pool is not None),
        "preprocessing": _preprocessing(images) if config.model.pool is None else _BAG,
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        # One at a time: images of different sizes are restored to their own grids.
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": _inferer(config),
        "postprocessing": _postprocessing(images if outlines else None),
        "handlers": [] if outlines else [_CSV],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            **_prepare_batch(images, table),
        },
        "run": ["$@evaluator.run()"],
    }
    return json.dumps(content, indent=1) + "\n"


def _modules(images: Images | None) -> tuple[str, ...]:
    known = ("json", "math", "pathlib", "torch", "monai")
    return known if images is None else (*known, "nibabel", "pydicom")


def _loaded(name: str, device: str) -> str:
    path = f"str(pathlib.Path(@bundle_root, 'models', '{name}.ts'))"
    return f"$torch.jit.load({path}, map_location={device}).eval()"


def _literal(value: Json) -> str:
    """Return an expression that gives the value, whatever characters of the parser it holds."""
    text = json.dumps(value)
    for character in "@%#$":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"$json.loads({text!r})"


def _encoding(table: Table) -> dict[str, Json]:
    """Return how a row of clinical values becomes the table's input, as the sites do it."""
    number = (
        "((math.log1p(float(row[n['column']])) if n['transform'] == 'log'"
        " else float(row[n['column']])) - n['center']) / n['scale']"
    )
    text = "str(row.get(c['column'], '')).strip()"
    absent = "(str(row.get(n['column'], '')).strip().lower() in @missing)"
    rows = (
        f"[0.0 if {absent} else {number} for n in @numbers]"
        f" + [float({text} == value) for c in @categories for value in c['values']]"
        f" + [float({absent}) for n in @numbers]"
        f" + [float({text} not in c['values']) for c in @categories]"
    )
    return {
        "numbers": _literal([json.loads(n.model_dump_json()) for n in table.numbers]),
        "categories": _literal([json.loads(c.model_dump_json()) for c in table.categories]),
        "missing": ["", "na", "n/a", "nan", "none", "null", "-", "?", "."],
        "encode": f"$lambda row: torch.tensor({rows})",
    }


def _step(text: str) -> Json:
    return {"_target_": "Lambda", "func": f"$lambda item: {{**item, {text}}}"}


def _preprocessing(images: Images | None) -> Json:
    if images is None:
        # The runner calls an item's main input `image`, whatever it is.
        return _step("'image': item['table']")
    load: dict[str, Json] = {
        "_target_": "LoadImaged",
        "keys": "image",
        "ensure_channel_first": True,
        "image_only": True,
        "dtype": "$torch.float32",
        # From the last to the first that knows the suffix; a folder is a DICOM series.
        "reader": ["PydicomReader", "PILReader", "NumpyReader", "NibabelReader"],
    }
    prepare = f"@preparation({_plain_tensor('shown')}, {spacing(images)})"
    return {
        "_target_": "Compose",
        "transforms": [
            load,
            _step(f"'source': {source(images)}, 'shown': {shown(images)}"),
            _step(f"'image': {prepare}"),
        ],
    }


def _plain_tensor(key: str) -> str:
    return f"torch.as_tensor(item['{key}']).cpu().as_subclass(torch.Tensor)"


#: A patient's pictures are prepared one by one, and are one input together.
_BAG = {
    "_target_": "Lambda",
    "func": (
        "$lambda item: {**{key: value for key, value in item.items() if key != 'pictures'},"
        " 'image': torch.stack([@single(picture)['image'].as_subclass(torch.Tensor)"
        " for picture in item['pictures']])}"
    ),
}
#: The loader puts an axis of one in front, of which the bag is the only item.
_BAG_INFERER = (
    "$lambda image, network, *others: network(image[0], *(row.expand(image.shape[1], -1)"
    " for row in others))"
)


def _inferer(config: RunConfig) -> Json:
    """Return how the network is asked: with patches it slides, as `common.models.windows` does."""
    images = config.cohort.images
    if config.model.pool is not None:
        return _BAG_INFERER
    if images is None or images.patch is None:
        return {"_target_": "SimpleInferer"}
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(images.patch),
        "sw_batch_size": 1,
        "overlap": OVERLAP,
        "mode": "gaussian",
    }


def _postprocessing(images: Images | None) -> Json:
    if images is None:
        return {"_target_": "Identity"}
    restored = (
        f"@preparation.restore({_plain_tensor('pred')},"
        f" list(item['shown'].shape[1:]), {spacing(images)})"
    )
    steps = [_step(f"'pred': monai.data.MetaTensor({restored}, meta=dict(item['shown'].meta))")]
    codes = "nibabel.aff2axcodes(item['source'].affine.cpu().numpy())"
    turn = f"monai.transforms.Orientation(axcodes={codes})"
    if images.dimensions == 3:
        steps.append(_step(f"'pred': {turn}(item['pred']) if item['placed'] else item['pred']"))
    else:
        flat = "[1] + [side for side in item['source'].shape[1:] if side != 1]"
        back = f"{turn}(item['pred'][..., None]).reshape({flat})"
        steps.append(_step(f"'pred': {back} if item['nifti'] else item['pred']"))
        # SaveImage takes a shape of three sides for one without channels, for all that follow.
        sides = "{**image.meta, 'spatial_shape': list(image.shape[1:])}"
        flat = f"(lambda image: monai.data.MetaTensor(image, meta={sides}))(item['pred'])"
        steps.append(_step(f"'pred': {flat}"))
    save: dict[str, Json] = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "outlines",
        "output_dtype": "$torch.uint8",
        "resample": False,
        "output_ext": ".png" if images.dimensions == 2 else ".nii.gz",
        "separate_folder": False,
    }
    return {"_target_": "Compose", "transforms": [*steps, save]}


_CSV: Json = {
    "_target_": "ClassificationSaver",
    "output_dir": "@output_dir",
    "filename": "predictions.csv",
    "batch_transform": "$lambda batch: [{'filename_or_obj': item['name']} for item in batch]",
    "output_transform": "$lambda output: [item['pred'] for item in output]",
}


def _prepare_batch(images: Images | None, table: Table | None) -> dict[str, Json]:
    if images is None or table is None:
        return {}
    return {"prepare_batch": {"_target_": "PrepareBatchExtraInput", "extra_keys": "table"}}
