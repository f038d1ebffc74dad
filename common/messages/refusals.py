"""Refusals: why a site says no."""

from __future__ import annotations

from enum import Enum


class RefusalReason(Enum):
    """Why a site does not take part; says nothing about any patient."""

    TOO_FEW_SITES = "fewer than two hospitals of the region answered"
    TOO_FEW_PATIENTS = "fewer usable patients than the run needs"
    BUDGET = "the privacy budget of this cohort does not allow it"
    CONFIGURATION = "the configuration does not fit this site's data"
    FAILED = "the site failed; its own log says why"
    NO_ROOM = "the site has no room on its disk for now"
    UNREADABLE = "the site cannot read the request, or it is larger than the site takes"
    SET_ASIDE = "the request ended the site's worker twice, so the site set it aside"
    NOT_APPROVED = "the site has not approved this configuration yet"
    DECLINED = "the site's admin refused this configuration"
    COORDINATOR = "the site does not take part in runs of this coordinator"
    TASK = "the site's policy does not allow this kind of task"
    TARGET = "the site's policy does not allow this target"
    COLUMNS = "the site's policy does not allow one of the clinical columns"
    NETWORK = "the site's policy does not allow this network"
    EXTENSION_NOT_ALLOWED = "the site's admin has not allowed an extension that the run names"
    EXTENSION_NOT_INSTALLED = "an extension that the run names is not installed at the site"
    EXTENSION_OTHER_CONTENT = "the site has other files of an extension than the run names"
    FILES = "the site takes images from DICOM alone, not from files that its table names"
    WEIGHTS = "the site has no file with the hash of the weights that the run begins from"
    EPSILON = "the run asks for a larger epsilon than the site allows one run"
    PRIVACY = "the site takes part in private runs only"
    CELL = "the run would release smaller cells than the site allows"
    METRICS = "the run would release metrics that the site does not"
    ANSWERED = "the site has answered another request for this round and split"
    BEGUN = "a run of this name was begun here with another configuration or seed"
    STATISTICS = (
        "the site does not describe its cohort (its policy.statistics is false, or the run is "
        "private and its policy.statistics_noise is 0)"
    )
    COHORT = "the run accepts smaller cohorts than the site allows"
    PAUSED = "the site is paused"
    HOURS = "it is outside the site's hours of work"
    RECORDS = "the site's own records are not the newest; its admin is told what to do"
    RELEASE = "the site runs another release of Wardround"


#: These pass by themselves or with a word of the site's admin; nobody counts on the others.
PASSING = frozenset(
    {
        RefusalReason.NOT_APPROVED,
        RefusalReason.PAUSED,
        RefusalReason.HOURS,
        RefusalReason.RECORDS,
        RefusalReason.NO_ROOM,
    }
)
