"""Select: which of a folder's files a run takes, by their headers and rows; the others are listed.

The second step from a folder to tensors (client/cohort/loading.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.cohort.image_masks import MaskRules
from client.cohort.left_out import LeftOut
from client.cohort.scan import FolderScan
from client.cohort.series_choice import Choice, check_fits, choose
from client.dicom.contained import contained
from client.dicom.headers.checks import WITHOUT_PIXELS
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.index.index import Index
from client.dicom.reading.files import File
from client.dicom.reading.read import Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.dicom.remarks import Remark
from client.labels.label_table import Labels, dicom_keys, key_of_row
from client.series.by_row import Rows, RuledImages, SeriesRules, choose_by_rules
from client.series.fitting import Aliases
from client.series.selection import Problem
from common.config.run_config import Images

#: Reasons for which a file does not even say which series it belongs to.
_UNKNOWN = frozenset({Reason.EMPTY_FILE, Reason.PARTIAL_WRITE, Reason.UNREADABLE})
#: A file that cannot be used and belongs to a series takes the series with it, if it is not
#: another kind of object.
_NO_SLICE = frozenset({Reason.SEGMENTATION, Reason.NO_PIXELS, Reason.DICOMDIR, Reason.SLIDE_LABEL})
#: A file of such a name was DICOM once, whatever stands in it now.
_NAMED_DICOM = frozenset({".dcm", ".dicom", ".ima"})
#: A patient, or nobody where all are looked at together, and a UID.
Owned = tuple[str, str]
#: Raises UnusableFile for an object that the run does not want.
Wanted = Callable[[Header], None]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which files are looked at together."""

    by_series: bool  # what the run does not want is listed once a series, or once a file
    #: One patient's files say nothing of another's, whatever UIDs they share. A file that does
    #: not say whose it is is nobody's, and takes nobody's series with it.
    by_patient: bool = False

    def owned(self, patient: str, uid: str) -> Owned:
        """Return what a UID names: within its patient where `by_patient`, else everywhere."""
        return patient if self.by_patient else "", uid

    def whose(self, header: Header) -> str:
        """Return whose a problem is where each patient is looked at alone; else nothing."""
        return header.patient if self.by_patient else ""


@dataclass(frozen=True, kw_only=True)
class SelectedImage:
    """A file that the run takes."""

    path: Path
    name: str  # below the site's folder
    image: Instance
    #: Reads it again, with its pixels; None: as DICOM.
    read: Callable[[File], tuple[Header, Pixels]] | None = None


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The files that a run takes, in their order, and why not the others."""

    grouping: Grouping
    images: tuple[SelectedImage, ...]
    problems: tuple[Unusable, ...]
    #: Series with a file that cannot be used, though the run may want it; see `Grouping.owned`.
    broken_series: frozenset[Owned]


def select(
    scanned: FolderScan, wanted: Wanted, grouping: Grouping, withdrawn: Collection[str] = ()
) -> Selected:
    """Return the files that a run takes; of patients who were withdrawn nothing is even listed."""
    selection = _Selection(scanned, wanted, grouping, withdrawn)
    for path in scanned.files:
        selection.look_at(path)
    return selection.ended()


@dataclass
class _Selection:
    """What is found while the files are gone through."""

    scanned: FolderScan
    wanted: Wanted
    grouping: Grouping
    withdrawn: Collection[str]
    images: list[SelectedImage] = field(default_factory=list)
    problems: list[Unusable] = field(default_factory=list)
    broken: set[Owned] = field(default_factory=set)
    unwanted: set[tuple[Reason, Owned]] = field(default_factory=set)
    lost: set[Path] = field(default_factory=set)  # folders of files that name no series
    series: dict[Path, set[str]] = field(default_factory=lambda: defaultdict(set))

    def look_at(self, path: Path) -> None:
        """Take a file, or list why not; one bad file never stops the others."""
        name = self.scanned.name(path)
        try:
            with contained():
                found = self.scanned.header(path)
                if isinstance(found, Quarantined):
                    self._refuse(found, path, name)
                elif found.patient not in self.withdrawn:  # nothing of them is kept
                    self.series[path.parent].add(found.series)
                    self._admit(SelectedImage(path=path, name=name, image=found))
        except UnusableFile as problem:
            self.problems.append(problem.listed(name))
        except OSError as error:
            unreadable = UnusableFile(Reason.UNREADABLE, type(error).__name__)
            self.problems.append(unreadable.listed(name))

    def ended(self) -> Selected:
        """Return what was found, once every file was looked at."""
        # Where a folder of one series holds a file that cannot even be asked, the series lacks
        # it; not where each patient is looked at alone: what lies in a folder is others' doing.
        for folder in self.lost if not self.grouping.by_patient else ():
            if len(self.series[folder]) == 1:
                self.broken |= {("", series) for series in self.series[folder]}
        return Selected(
            grouping=self.grouping,
            images=tuple(self.images),
            problems=tuple(self.problems),
            broken_series=frozenset(self.broken),
        )

    def _refuse(self, one: Quarantined, path: Path, name: str) -> None:
        if one.reason is Reason.WITHDRAWN or (one.patient and one.patient in self.withdrawn):
            return
        if one.series and _may_be_slice(one, path):
            self.broken.add(self.grouping.owned(one.patient, one.series))
        if one.reason in _UNKNOWN or (not one.series and _may_be_slice(one, path)):
            self.lost.add(path.parent)
        self.problems.append(
            Unusable(reason=one.reason, what=name, detail=one.detail, patient=one.patient)
        )

    def _admit(self, one: SelectedImage) -> None:
        header = one.image.header
        try:
            with contained():
                self.wanted(header)
        except UnusableFile as problem:
            self._leave(problem, header, one.name)
            return
        if self.grouping.by_series and Remark.LOCALIZER in one.image.remarks:
            raise UnusableFile(Reason.LOCALIZER)
        self.images.append(one)

    def _leave(self, problem: UnusableFile, header: Header, name: str) -> None:
        if problem.reason is Reason.WITHDRAWN:
            return
        # What no rule takes is no fault of each of its files.
        whole = self.grouping.by_series or problem.reason is Reason.OTHER_SERIES
        what = header.series if whole else name
        known = problem.reason, self.grouping.owned(header.patient, what)
        if known not in self.unwanted:
            self.unwanted.add(known)
            self.problems.append(problem.listed(what, self.grouping.whose(header)))


def _may_be_slice(one: Quarantined, path: Path) -> bool:
    """Return whether a file that cannot be used may be a slice, for all that is known."""
    if one.reason is Reason.NOT_DICOM:
        return path.suffix.lower() in _NAMED_DICOM
    return one.reason not in _NO_SLICE or one.detail == WITHOUT_PIXELS


# --- what a run wants --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WantedImages:
    """Which of a site's images a run takes, and how it takes them."""

    rules: Images  # the run's: modality, size, dimensions
    labels: Labels  # the table's rows, each of which may name images
    left_out: LeftOut  # whom and what the site lets into no cohort
    masks: MaskRules | None  # where a run learns outlines
    aliases: Aliases = field(default_factory=dict)  # the site's own words for the run's series

    def mask_files(self) -> frozenset[str]:
        """Return the names of files that are masks and no images.

        A row that names somebody's image as its mask takes no image away where each patient is
        looked at alone; there a mask is no image all the same, and is passed over later.
        """
        if self.masks is None or self.labels.by_patient:
            return frozenset()
        return frozenset(row[self.masks.column] for row in self.labels.rows)

    def grouping(self) -> Grouping:
        """Return which files are looked at together: in a run with privacy, a patient's alone."""
        return Grouping(by_series=self.rules.dimensions == 3, by_patient=self.labels.by_patient)


class ImageGate:
    """Lets those images through that a run wants and that their row means."""

    def __init__(self, wanted: WantedImages, site: Path, index: Index) -> None:
        """Compare the images that stand beside each other, by their headers."""
        self._rules = wanted.rules
        self._labels, self._left_out = wanted.labels, wanted.left_out
        fits = [image for image in index.instances(site) if self._is_wanted(image.header)]
        mask = None if wanted.masks is None else wanted.masks.column
        lost = index.quarantined(site)
        self.choice: Choice = choose(
            fits, lost, wanted.rules, wanted.labels, mask, self._ruled(wanted, site, index, lost)
        )

    def _ruled(
        self, wanted: WantedImages, site: Path, index: Index, lost: Sequence[Quarantined]
    ) -> RuledImages | None:
        """Return what the run's rules choose, also of images that are let into no cohort.

        What is there and refused is not absent.
        """
        if not wanted.rules.series:
            return None
        there = (image for image in index.instances(site) if self._is_there(image.header))
        rules = SeriesRules(images=wanted.rules, aliases=wanted.aliases)
        return choose_by_rules(there, lost, self._rows(), rules, self._refusal)

    def _rows(self) -> Rows:
        labels = self._labels

        def row_of(image: Instance) -> int | None:
            try:
                return labels.find(dicom_keys(image.header))
            except UnusableFile:
                return None

        def names_series(row: int) -> bool:
            key = key_of_row(labels.rows[row])
            return key is not None and key[0] == "SeriesInstanceUID"

        return Rows(
            of=row_of, lines=labels.lines, names_series=names_series, by_patient=labels.by_patient
        )

    def _is_there(self, header: Header) -> bool:
        modalities = self._rules.modalities
        gone = header.patient in self._left_out.withdrawn
        return (
            bool(header.patient)
            and not gone
            and header.modality in (modalities or {header.modality})
        )

    def _refusal(self, image: Instance) -> Problem | None:
        try:
            with contained():
                self._check_by_itself(image.header)
        except UnusableFile as problem:
            return problem.reason, problem.detail
        return None

    def check(self, header: Header) -> None:
        """Raise UnusableFile for an image that is left out."""
        self._check_by_itself(header)
        self.choice.check(header)

    def _check_by_itself(self, header: Header) -> None:
        check_fits(header, self._rules)
        if not header.patient:
            raise UnusableFile(Reason.MISSING_HEADER, "PatientID")
        self._left_out.check(header.patient, header.instance)
        self._labels.find(dicom_keys(header))

    def _is_wanted(self, header: Header) -> bool:
        try:
            with contained():
                self._check_by_itself(header)
        except UnusableFile:
            return False
        return True
