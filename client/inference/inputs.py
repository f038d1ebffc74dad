"""Check of the bundle and the study that a person names to be scored."""

from __future__ import annotations

from pathlib import Path

from common.platform.errors import ConfigurationError


def check_bundle(folder: Path) -> None:
    """Say so early where there is no bundle; ConfigurationError."""
    if not (folder / "card.json").is_file():
        message = (
            f"There is no bundle in {folder}: it has no card.json. Get the folder that "
            "`wardround-coordinator export RUN` or `wardround-simulate compare` wrote."
        )
        raise ConfigurationError(message)


def study_files(place: Path) -> tuple[Path, ...] | None:
    """Return the files of a folder, or the file; None where there is neither."""
    if place.is_dir():
        # Imported here: torch takes its time, and a wrong path should not wait for it.
        from client.cohort.scan import dicom_files

        return tuple(dicom_files(place.absolute(), frozenset()))
    return (place,) if place.is_file() else None
