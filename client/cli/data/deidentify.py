"""`deidentify`: DICOM images as they may leave, written beside their sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.dicom.deidentify.blanked_text import BlankedFrame, blank_text
from client.dicom.deidentify.defaced_series import DefacedSeries, FaceVerdict, deface
from client.dicom.deidentify.deidentify import Profile, Withheld, deidentify
from client.dicom.deidentify.pixel_data import Change
from client.dicom.pixels.burned_in_text import FindText, text_finder
from client.readiness.pictures import png_uri
from client.site.home import Home
from client.site.pseudonyms import Pseudonyms, pseudonyms
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say, table
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError, ConfigurationError, ExitCode
from common.platform.html_page import page

_UNCHANGED = ": what stands in the picture was not changed"
#: Frames in the page of what was blanked.
_MOST_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be taken out of the pictures."""

    blank_text: bool = False
    deface: bool = False


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of the files."""

    written: int
    patients: int
    withheld: tuple[tuple[Path, str], ...]  # file and why


def run(
    home: Home, source: Path, out: Path, profile: Profile, *, every: bool, wish: Wish
) -> ExitCode:
    """Write the de-identified twins of a file, or of all below a folder, and say what stayed."""
    load_site_config(home.site_yaml)  # the key belongs to a site; this says how to make one
    files = _files(source, out)
    blanking = _Blanking(_finder()) if wish.blank_text else None
    if wish.deface:
        verdicts = _without_faces(files, home.folder / "defaced.html")
    else:
        verdicts = dict.fromkeys(files, FaceVerdict())
    profiles = _profiles(files, profile, blanking, verdicts)
    outcome = _release(profiles, out, pseudonyms(home.identity_key))
    if blanking is not None and blanking.frames:
        where = home.folder / "blanked-text.html"
        blanking.write(where)
        say(f"Text was blanked in {blanking.frames} frames. Look at {where}: no reader finds all.")
    if outcome.written:
        images = "image" if outcome.written == 1 else "images"
        patients = "patient" if outcome.patients == 1 else "patients"
        say(f"Wrote {outcome.written} {images} of {outcome.patients} {patients} to {out}.")
        changed = "" if wish.blank_text or wish.deface else _UNCHANGED
        say(f"Look at some of them before they leave{changed}.")
    else:
        say("Wrote nothing.")
    if outcome.withheld:
        say("Withheld:")
        counts = Counter(why for _, why in outcome.withheld)
        table([(f"  {number} x", as_text(why)) for why, number in counts.most_common()])
        if every:
            table([(f"  {as_text(path)}", as_text(why)) for path, why in outcome.withheld])
        else:
            say("--all names each of them.")
    return ExitCode.WRONG_DATA if outcome.withheld else ExitCode.DONE


def _files(source: Path, out: Path) -> list[Path]:
    if not source.exists():
        message = f"There is no file or folder {source}."
        raise ConfigurationError(message)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        message = (
            f"--out {out} lies in {source}, so released images would lie among the others. Give "
            "a folder elsewhere."
        )
        raise ConfigurationError(message)
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    if not files:
        message = f"There is no file in {source}."
        raise CohortError(message)
    return files


def _finder() -> FindText:
    found = text_finder()
    if found is None:
        message = "--blank-text needs a reader of text: install ocr.txt (docs/install.md)."
        raise ConfigurationError(message)
    return found


@dataclass
class _Blanking:
    """Blanks text, and keeps what is shown to a person."""

    find: FindText
    frames: int = 0
    shown: list[Mapping[str, str | int]] = field(default_factory=list)

    def change(self, path: Path) -> Change:
        """Return what blanks the text of a file."""

        def show(frame: BlankedFrame) -> None:
            self.frames += 1
            if len(self.shown) < _MOST_SHOWN:
                pictures = {"before": png_uri(frame.before), "after": png_uri(frame.after)}
                self.shown.append({"file": str(path), "boxes": frame.boxes, **pictures})

        return lambda frames: blank_text(frames, self.find, show)

    def write(self, where: Path) -> None:
        """Write the page, for this user alone."""
        more = self.frames - len(self.shown)
        text = page("client.cli.data", "blanked.html", {"shown": self.shown, "more": more})
        replace_durably(where, text.encode(), mode=0o600)


def _without_faces(files: list[Path], where: Path) -> Mapping[Path, FaceVerdict]:
    """Find the faces, and write the page of what becomes of them, for this user alone."""
    shown: list[Mapping[str, str | int]] = []

    def show(one: DefacedSeries) -> None:
        pictures = {"before": png_uri(one.before), "after": png_uri(one.after)}
        shown.append({"name": one.name, "images": one.images, "borrowed": one.borrowed, **pictures})

    verdicts = deface(files, show)
    text = page("client.cli.data", "defaced.html", {"shown": shown})
    replace_durably(where, text.encode(), mode=0o600)
    if shown:
        say(f"The face was taken out of {len(shown)} series. Look at each of them in {where}:")
        say("where the face was is estimated, so some may be left, or some of the brain gone.")
    return verdicts


def _profiles(
    files: list[Path],
    profile: Profile,
    blanking: _Blanking | None,
    verdicts: Mapping[Path, FaceVerdict],
) -> Iterator[tuple[Path, Profile | Withheld]]:
    """Yield how each file is released, or why it is not."""
    for path in files:
        own = profile if blanking is None else replace(profile, change=blanking.change(path))
        verdict = verdicts[path]
        if verdict.withheld:
            yield path, Withheld(verdict.withheld)
        else:
            yield path, replace(own, deface=verdict.change)


def _release(
    profiles: Iterable[tuple[Path, Profile | Withheld]], out: Path, names: Pseudonyms
) -> _Outcome:
    """Release one file after another; names of folders and files are pseudonyms as well."""
    patients: set[str] = set()
    written: set[str] = set()
    withheld: list[tuple[Path, str]] = []
    for path, profile in profiles:
        try:
            if isinstance(profile, Withheld):
                raise profile
            released = deidentify(path, names, profile)
        except (Withheld, OSError) as why:
            withheld.append((path, str(why)))
            continue
        target = out / released.patient / f"{released.instance}.dcm"
        try:
            replace_durably(target, released.content)
        except OSError as error:
            message = f"Cannot write {target}: {error.strerror}. Give --out another folder."
            raise ConfigurationError(message) from error
        patients.add(released.patient)
        written.add(released.instance)
    return _Outcome(written=len(written), patients=len(patients), withheld=tuple(withheld))
