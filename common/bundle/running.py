"""The part of a bundle's README.md that shows how to run it."""

from __future__ import annotations

from common.config.run_config import Images, RunConfig


def running_text(config: RunConfig) -> str:
    """Return the sections on loading; the code in them runs as it stands, in the bundle."""
    parts = [_ONNX, *([] if config.model.pool is None else [_BAG]), _monai(config)]
    if config.cohort.images is not None:
        parts.append(_PREPARATION)
        if config.cohort.images.patch is not None:
            parts.append(_PATCH.format(patch=" x ".join(map(str, config.cohort.images.patch))))
    return "\n\n".join(parts)


_ONNX = """\
## Load it

```python
import json
from pathlib import Path
import numpy as np
import onnxruntime

card = json.loads(Path("card.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession("model.onnx")
inputs = {}  # preprocessed as card["inputs"] says; here: one item of zeros
for entry in card["inputs"]:
    inputs[entry["name"]] = np.zeros([1, *entry["shape"][1:]], dtype=np.float32)
prediction = session.run(["prediction"], inputs)[0]
print(card["outputs"][0]["labels"], prediction)
```

`model.safetensors` holds the trained parameters by name, for `common.bundle.write.read_bundle`.
`models/model.ts` is the same network for PyTorch: `torch.jit.load` gives a module whose `.output`
is the network's output and whose `.predict` makes the prediction of it; called, it gives the
prediction (for outlines: the output, from which labels on the image's own grid are made).
There is no `model.pt`: it would be a pickle, which can run whatever its writer wants."""


def _monai(config: RunConfig) -> str:
    images, table = config.cohort.images, config.cohort.table
    needs = "monai pytorch-ignite fire" + ("" if images is None else " nibabel pydicom pillow")
    bags = config.model.pool is not None
    if bags and images is not None:
        folder = f"a folder, one a patient, with all of its images: {_kinds(images)}"
        given = f"Each entry of `FOLDER` is {folder}."
        if table is not None:
            given = (
                '`FOLDER` holds `datalist.json`, a list of `{"image": NAME, "table": {COLUMN:'
                f" VALUE, ...}}}}`, and the named entries: each is {folder}."
            )
    elif images is None:
        given = '`FOLDER` holds `datalist.json`: a list of `{"table": {COLUMN: VALUE, ...}}`.'
    elif table is None:
        given = f"Each entry of `FOLDER` is one item: {_kinds(images)}."
    else:
        given = (
            '`FOLDER` holds `datalist.json`, a list of `{"image": NAME, "table": {COLUMN: VALUE,'
            f" ...}}}}`, and the named entries: {_kinds(images)}."
        )
    if config.task.outlines:
        result = "label maps on the grid of what was given (`*_outlines*`)"
    else:
        result = "`predictions.csv`, a line an item: its name, then a number for each label"
    return f"""\
## Run it with MONAI

`pip install {needs}`; nothing of Wardround is needed.

```sh
python -m monai.bundle run --bundle_root . --meta_file configs/metadata.json \\
  --config_file configs/inference.json --dataset_dir FOLDER --output_dir RESULTS
```

{given} `RESULTS` gets {result}."""


_BAG = """\
All images that are given in one call are one patient's: the first axis of `image` is that patient's
images, in any order, and the answer has one row. Give one patient at a time; another patient's
images in the same call would be taken for the same patient's."""


_PATCH = """\
The network takes patches of {patch}, the size that it was trained on, and refuses others: its norms
would see another mean in a window of another size. Over a whole image it slides, half a patch at a
time, and windows are averaged by a Gaussian (MONAI's SlidingWindowInferer, `mode="gaussian"`)."""


def _kinds(images: Images) -> str:
    if images.neighbours is not None:
        return (
            "one slice, which the runner can only repeat in place of those beside it. For right "
            "answers give `model.onnx` or `models/model.ts` the slice before, the slice and the "
            "slice after as three channels, as `models/preparation.ts` prepares them of an array "
            "of 3 x columns x rows (at an end of the series the slice itself again)"
        )
    if images.channel_names:
        return (
            "a NIfTI file whose fourth axis is the series, in the order "
            f"{', '.join(images.channel_names)}, all on the grid of "
            f"{images.channel_names[images.reference]}; one that is not there is zeros"
        )
    if images.dimensions == 2:
        return (
            "a DICOM file, a PNG, a NIfTI file of one slice, which is turned as a viewer shows it, "
            "or an array (`.npy`) of columns x rows, as MONAI has its axes. Pixels that are not "
            "square keep their shape, as far as DICOM and NIfTI say it"
        )
    return (
        "a folder with one DICOM series, a NIfTI file, or an array (`.npy`, taken to have voxels "
        "of 1 mm) of columns x rows x slices, as MONAI has its axes, lying as an axial series is "
        "shown: towards left, back and head. A NIfTI may have its axes in any order and sense: it "
        "is turned by its affine. Its slices are taken to follow the axis whose spacing differs "
        "where the other two are alike, else that of the largest spacing, else the one that the "
        "header names (dim_info), else the one towards the head"
    )


_PREPARATION = """\
`models/preparation.ts` makes the network's input from an image's quantities (Hounsfield units, or
what the modality stores) exactly as the sites do: over 300 random configurations and images the
largest difference was 4e-7. MONAI's own transforms would not: they shrink and scale otherwise. Its
`restore` brings outlines back to the grid that was given, as `wardround-site predict` does.

What MONAI reads from DICOM is what the sites read in the plain case only. It does not invert
MONOCHROME1, know pixel padding (0028,0120), apply a modality LUT or a palette, or notice missing
slices, two series in a folder, or an enhanced multi-frame's rescale; slices without InstanceNumber
it leaves out. For such files let `wardround-site predict` read them, or convert them first."""
