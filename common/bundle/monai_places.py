"""Axis order and pixel shape of what MONAI loads, as expressions of its parser."""

from __future__ import annotations

from common.bundle.origin import Json
from common.config.run_config import Images, Table


def datalist(images: Images | None, table: Table | None, *, bags: bool = False) -> str:
    """Return the items to score: the files of a folder, or what its datalist.json names.

    With `bags` an item is a folder, whose entries are one patient's pictures.
    """
    if bags:
        return _bags(table)
    if table is None:
        return (
            f"$[{{'image': str(path), 'path': str(path), 'name': path.name, {_KIND}}} for path in"
            " sorted(pathlib.Path(@dataset_dir).iterdir()) if not path.name.startswith('.')]"
        )
    row = "{'table': @encode(row['table']), 'name': str(n + 1)}"
    if images is not None:
        row = (
            (
                "{'table': @encode(row['table']), 'name': row['image'], 'image':"
                f" {_PATH}, 'path': {_PATH}, {_KIND}}}"
            )
            .replace("path.name", "row['image']")
            .replace("path.suffix", _SUFFIX)
        )
    return (
        f"$[{row} for n, row in"
        " enumerate(json.loads(pathlib.Path(@dataset_dir, 'datalist.json').read_text()))]"
    )


def _bags(table: Table | None) -> str:
    shown = "sorted(one for one in {}.iterdir() if not one.name.startswith('.'))"
    pictures = (
        f"[{{'image': str(path), 'path': str(path), {_KIND}}} for path in"
        f" {shown.format('pathlib.Path(@dataset_dir, name)')}]"
    )
    if table is None:
        each = f"sorted(one.name for one in {shown.format('pathlib.Path(@dataset_dir)')})"
        return f"$[{{'pictures': {pictures}, 'name': name}} for name in {each}]"
    return (
        f"$[{{'table': @encode(row['table']), 'pictures': {pictures}, 'name': name}} for row in"
        " json.loads(pathlib.Path(@dataset_dir, 'datalist.json').read_text())"
        " for name in [row['image']]]"
    )


_PATH = "str(pathlib.Path(@dataset_dir, row['image']))"
_SUFFIX = "pathlib.Path(row['image']).suffix"
#: A folder (a DICOM series) and NIfTI say how they lie in the patient; arrays and pictures do not.
_KIND = (
    "'placed': path.suffix.lower() not in ('.npy', '.npz', '.png', '.jpg', '.jpeg', '.bmp'),"
    " 'nifti': path.name.lower().endswith(('.nii', '.nii.gz'))"
)
#: How likely an axis of a NIfTI follows the slices, whatever the order of its axes: the one whose
#: spacing differs where the other two are of square pixels, else the one with the largest, else
#: the one that the header names (dim_info), else the one nearest to the direction of the head.
_SLICE_AXIS = (
    "$lambda image: max(range(3), key=lambda a: (lambda mm, b, c: ("
    "abs(mm[b] / mm[c] - 1) <= 0.01 and abs(mm[a] / mm[b] - 1) > 0.01,"
    " mm[a] > 1.01 * max(mm[b], mm[c]),"
    " int(image.meta.get('dim_info', 0)) >> 4 & 3 == a + 1,"
    " abs(float(image.affine[2, a])) / mm[a]))"
    "([float(mm) for mm in image.affine[:3, :3].norm(dim=0)], (a + 1) % 3, (a + 2) % 3))"
)
#: By the patient's axis that slices follow: where columns, rows and slices lead, as the sites
#: show every series (client/dicom/reading/volume.py): sagittal, coronal, axial.
_SHOWN = (
    "$lambda image, axis: monai.transforms.Orientation(axcodes="
    "('PIL', 'LIP', 'LPS')[int(image.affine[:3, axis].abs().argmax())])(image)"
)
#: The height and width of a pixel in a DICOM file of its own, by what the sites go by: ultrasound
#: by its largest region of tissue in cm (PS3.3 C.8.5.5), unless the first of the names that is
#: there has the same shape; else that one.
_PIXEL = (
    "$lambda path: (lambda header: (lambda regions, pairs: next(iter(pairs[:1] if not regions or ("
    "pairs and abs(pairs[0][1] * regions[0][0] / (pairs[0][0] * regions[0][1]) - 1) <= 0.01)"
    " else regions), []))(@regions(header), [[float(value[1]), float(value[0])]"
    " for value in (header.get(name) for name in @pixel_names)"
    " if value is not None and len(value) == 2 and min(map(float, value)) > 0]))"
    "(pydicom.dcmread(path, force=True, stop_before_pixels=True,"
    " specific_tags=[*@pixel_names, 'SequenceOfUltrasoundRegions']))"
)
_REGIONS = (
    "$lambda header: [[across, down] for _, across, down in sorted(["
    "((float(one.get('RegionLocationMaxX1', 0)) - float(one.get('RegionLocationMinX0', 0)))"
    " * (float(one.get('RegionLocationMaxY1', 0)) - float(one.get('RegionLocationMinY0', 0))),"
    " abs(float(one.get('PhysicalDeltaX', 0))), abs(float(one.get('PhysicalDeltaY', 0))))"
    " for one in (header.get('SequenceOfUltrasoundRegions') or [])"
    " if int(one.get('RegionSpatialFormat', 0)) == 1"
    " and int(one.get('PhysicalUnitsXDirection', 0)) == 3"
    " and int(one.get('PhysicalUnitsYDirection', 0)) == 3], reverse=True) if across * down > 0]"
)
_PIXEL_NAMES: tuple[Json, ...] = (
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
)


def places(images: Images) -> dict[str, Json]:
    """Return what the steps below ask for: how an image lies, and the shape of its pixels."""
    if images.dimensions == 3:
        return {"slice_axis": _SLICE_AXIS, "shown": _SHOWN}
    names = list(_PIXEL_NAMES)
    return {"shown": _SHOWN, "pixel_names": names, "regions": _REGIONS, "pixel": _PIXEL}


#: A picture as a volume of one slice.
_DEEP = "(item['image'] if item['image'].dim() == 4 else item['image'][..., None])"


def shown(images: Images) -> str:
    """Return how an image is turned as the sites show it."""
    image = "item['image']"
    if images.dimensions == 2:
        # A NIfTI of one slice; its rows and columns follow once the slice's own axis is gone.
        flat = "(lambda image: @shown(image, list(image.shape[1:]).index(1)).squeeze(-1))"
        return f"{flat}({_DEEP}) if item['nifti'] else {image}"
    turn = f"@shown({image}, @slice_axis({image}) if item['nifti'] else 2)"
    return f"{turn} if item['placed'] else {image}"


def source(images: Images) -> str:
    """Return an image as it was loaded, with the axes that its affine has."""
    image = "item['image']"
    return image if images.dimensions == 3 else f"{_DEEP} if item['nifti'] else {image}"


def spacing(images: Images) -> str:
    """Return the spacing by column, row and slice; of a picture the shape of its pixels."""
    if images.dimensions == 3:
        return "[float(mm) for mm in item['shown'].pixdim]"
    return (
        "[float(mm) for mm in item['shown'].affine[:3, :2].norm(dim=0)] if item['nifti']"
        " else @pixel(item['path']) if item['placed'] else []"
    )
