"""Images in a site's folder that are not DICOM, listed for people where a run reads DICOM.

Nothing of them is read but their first bytes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_CONVERT = (
    "export the studies from the PACS, or convert them to DICOM (a run with images.format: files "
    "takes NIfTI, PNG, JPEG and TIFF that the table names)"
)
_UNPACK = "unpack them into the folder"
_VOLUMES = "NIfTI files"
_MASKS = ", a NIfTI can only be a mask"
#: What files begin with.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "PNG pictures"),
    (b"\xff\xd8\xff", "JPEG pictures"),
    (b"GIF8", "GIF pictures"),
    (b"II*\0", "TIFF pictures"),
    (b"MM\0*", "TIFF pictures"),
    (b"II+\0", "TIFF pictures"),
    (b"\0\0\0\x0cjP", "JPEG 2000 pictures"),
    (b"\xff\x4f\xff\x51", "JPEG 2000 pictures"),
    (b"NRRD", "NRRD files"),
    (b"ObjectType", "MetaImage (MHA) files"),
    (b"NDims", "MetaImage (MHA) files"),
    (b"PK\x03\x04", "ZIP archives"),
    (b"7z\xbc\xaf", "7z archives"),
    (b"Rar!", "RAR archives"),
    (b"%PDF", "PDF documents"),
    (b"\x89HDF", "HDF5 files"),
    (b"\x93NUMPY", "NumPy files"),
    (b"RIFF", "RIFF files (WebP, AVI)"),
    (b"\x5c\x01\0\0", _VOLUMES),
    (b"\0\0\x01\x5c", _VOLUMES),
    (b"\x1c\x02\0\0", _VOLUMES),
    (b"\0\0\x02\x1c", _VOLUMES),
)
#: Endings of what its first bytes do not tell.
_ENDINGS = {
    ".nii": _VOLUMES,
    ".nii.gz": _VOLUMES,
    ".hdr": "Analyze or NIfTI headers",
    ".mgz": "MGZ files",
    ".mha": "MetaImage (MHA) files",
    ".mhd": "MetaImage (MHA) files",
    ".nrrd": "NRRD files",
    ".mnc": "MINC files",
    ".par": "Philips PAR/REC files",
    ".svs": "slides (SVS)",
    ".ndpi": "slides (NDPI)",
    ".mrxs": "slides (MRXS)",
    ".scn": "slides (SCN)",
    ".bif": "slides (BIF)",
    ".vsi": "slides (VSI)",
    ".czi": "slides (CZI)",
    ".tar": "TAR archives",
    ".tgz": "TAR archives",
    ".tar.gz": "TAR archives",
    ".tar.xz": "TAR archives",
    ".tar.bz2": "TAR archives",
    ".iso": "ISO images of a medium",
    ".mp4": "videos",
    ".avi": "videos",
    ".mov": "videos",
    ".jp2": "JPEG 2000 pictures",
    ".bmp": "BMP pictures",
    ".gz": "gzip files",
    ".xz": "xz files",
    ".raw": "raw data",
}
_PACKED = frozenset(
    {
        "ZIP archives",
        "7z archives",
        "RAR archives",
        "TAR archives",
        "ISO images of a medium",
        "gzip files",
        "xz files",
    }
)
_DIRECTORIES = "DICOMDIR (the index of a medium)"
#: Spreadsheets and documents are ZIP archives, too.
_NO_IMAGE = frozenset(
    {
        ".csv",
        ".xlsx",
        ".xlsm",
        ".docx",
        ".pptx",
        ".ods",
        ".odt",
        ".parquet",
        ".json",
        ".yaml",
        ".yml",
        ".txt",
        ".md",
        ".html",
        ".py",
        ".ipynb",
        ".pt",
        ".whl",
        ".log",
        ".sqlite",
        ".db",
    }
)
#: Files beyond this are not looked at; the sentence says what it has counted.
_MOST_FILES = 20_000
_TAR = b"ustar"


def other_formats(folder: Path, rows: Iterable[Mapping[str, str]] = ()) -> str:
    """Return a sentence on what lies there in place of DICOM, and what to do; or nothing.

    Files that a row names, such as masks, are not meant.
    """
    named = {cell for row in rows for cell in row.values()}
    found: Counter[str] = Counter()
    for path in _files(folder):
        if path.relative_to(folder).as_posix() not in named and (kind := _kind(path)):
            found[kind] += 1
    if not found:
        return ""
    listed = ", ".join(f"{count} x {kind}" for kind, count in found.most_common(4))
    packed = [kind for kind in found if kind in _PACKED]
    remedy = _UNPACK if packed and len(packed) == len(found) else _CONVERT
    if _DIRECTORIES in found and len(found) == 1:
        remedy = "copy the whole medium: a DICOMDIR only lists its images"
    more = _MASKS if _VOLUMES in found else ""
    return f"The folder holds {listed}. This run reads images from DICOM alone{more}: {remedy}."


def _files(folder: Path) -> Iterator[Path]:
    """Yield files in the order of their paths, hidden ones and links to folders left out."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                count += 1
                if count > _MOST_FILES:
                    return
                yield Path(place, name)


def _head(path: Path) -> bytes:
    """Return a file's first bytes; none of what cannot be read, which is listed where it is."""
    try:
        if path.is_file():  # reading a pipe would wait for ever
            with path.open("rb") as file:
                return file.read(512)
    except OSError:
        pass
    return b""


def _kind(path: Path) -> str:
    """Return what a file is, by its ending and first bytes; nothing for DICOM and the unknown."""
    name = path.name.lower()
    endings = "".join(path.suffixes[-2:]).lower(), path.suffix.lower()
    ending = next((one for one in endings if one in _ENDINGS), "")
    if path.suffix.lower() in _NO_IMAGE:
        return ""
    if ending and ending not in {".hdr", ".raw"}:
        return _ENDINGS[ending]
    head = _head(path)
    if head[128:132] == b"DICM":
        return _DIRECTORIES if name == "dicomdir" else ""
    if head[257:262] == _TAR:
        return "TAR archives"
    magic = next((kind for begin, kind in _MAGIC if head.startswith(begin)), "")
    return magic or _ENDINGS.get(ending, "")
