"""Errors that a person can meet, by who must act on them.

    WardroundError
    |-- ConfigurationError      whoever wrote the configuration    exit 2
    |   `-- ExtensionRefused    whoever installs extensions, or wrote this one
    |-- CohortError             the site admin                     exit 3
    |-- PrivacyError                                               exit 4
    |   |-- UnsafeModel         whoever chose the network
    |   |-- BudgetExceeded      the site admin, or nobody: the answer is no
    |   |-- RunBegun            the coordinator
    |   |-- LedgerTooNew        the site admin
    |   |-- RecordsLost         the site admin and the data-protection officer
    |   `-- LedgerDamaged       the site admin and the data-protection officer
    |-- AnswerNotAdmitted       the coordinator; the run goes on   exit 1
    |-- LinkDown                the network; it is tried again     exit 7
    |-- SiteUnknown             the coordinator, or the clock      exit 6
    |-- RunGone                 nobody: the answer came too late   exit 1
    |-- RunFailed               the coordinator                    exit 1
    |   `-- SitesAway           nobody: the round is asked again   exit 75
    |-- StateDamaged            the coordinator                    exit 5
    |-- TrustRefused            the admins of both sides           exit 6
    `-- Unreachable             whoever runs the other side        exit 7

A message names the thing, its value, what was expected and what to do next.
An error that is not in this tree is a defect of ours.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status says."""

    DONE = 0
    RUN_FAILED = 1
    WRONG_CONFIGURATION = 2  # also typer's own code for a wrong option
    WRONG_DATA = 3
    PRIVACY_REFUSED = 4
    STATE_DAMAGED = 5
    TRUST_REFUSED = 6
    UNREACHABLE = 7
    TRY_AGAIN = 75  # of a run's process: what ended it passes (EX_TEMPFAIL of sysexits.h)
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class WardroundError(Exception):
    """Something a person can mend; the message says how."""

    exit_code = ExitCode.RUN_FAILED


class ConfigurationError(WardroundError):
    """The configuration is wrong, or asks for what does not fit together."""

    exit_code = ExitCode.WRONG_CONFIGURATION


class ExtensionRefused(ConfigurationError):
    """An extension is not installed, not the approved one, or does not keep its contract."""


class CohortError(WardroundError):
    """A site's folder or table cannot be used at all (single bad files are listed, not raised)."""

    exit_code = ExitCode.WRONG_DATA


class PrivacyError(WardroundError):
    """The privacy that was asked for cannot be given; nothing has been released."""

    exit_code = ExitCode.PRIVACY_REFUSED


class UnsafeModel(PrivacyError):
    """The network would break per-patient clipping."""


class BudgetExceeded(PrivacyError):
    """The charge would pass the site's limit; it was not made."""


class RunBegun(PrivacyError):
    """A run's name was charged for another configuration, seed or split; it stays that run's."""


class LedgerDamaged(PrivacyError):
    """The ledger's chain of hashes does not hold."""


class LedgerTooNew(PrivacyError):
    """A newer release wrote what this one does not know; the ledger is sound."""


class RecordsLost(PrivacyError):
    """A site's own records, such as its ledger, are not the newest that there were."""


class AnswerNotAdmitted(WardroundError):
    """A site's answer was not admitted; the run goes on without it."""


class LinkDown(WardroundError):
    """The other side cannot be reached now, or does not prove who it is; nothing was sent."""

    exit_code = ExitCode.UNREACHABLE


class SiteUnknown(WardroundError):
    """The coordinator does not take this site's key."""

    exit_code = ExitCode.TRUST_REFUSED


class RunGone(WardroundError):
    """The run that an answer was for is over at the coordinator."""


class RunFailed(WardroundError):
    """The run cannot go on, and the message says why."""


class SitesAway(RunFailed):
    """Too few sites answered in time; those that were late or away may answer the next time."""

    exit_code = ExitCode.TRY_AGAIN


class StateDamaged(WardroundError):
    """A saved state of a run cannot be read back as it was written."""

    exit_code = ExitCode.STATE_DAMAGED


class TrustRefused(WardroundError):
    """A key, certificate, invitation or token is not the one that was agreed on."""

    exit_code = ExitCode.TRUST_REFUSED


class Unreachable(WardroundError):
    """The other side, or our own service, does not answer."""

    exit_code = ExitCode.UNREACHABLE
