"""Reasons of non-admission."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Why an answer was not admitted."""

    WRONG_RUN = "it answers another run"
    WRONG_ROUND = "it answers another round"
    UNKNOWN_SITE = "this site was not asked"
    DUPLICATE = "this site has answered already"
    WRONG_SITES = "the hospitals that it is of are not those of this region"
    WRONG_TENSORS = "its tensors differ in name, shape or type from the model's"
    NOT_FINITE = "it holds values that are not finite"
    TOO_LARGE = "its norm is out of all proportion to the weights"
    NO_SPEND = "noise was asked for and the answer says nothing of its charge"
    WRONG_SPEND = "what it says of its charge cannot be"
    OLD_LEDGER = "its ledger has not grown since its last charge: an old copy may be in its place"
    NO_CONTROL = "the run uses SCAFFOLD and the update has no fitting control variate"
    LATE = "it had not come in time"
    UNREADABLE = "it cannot be read"
    TOO_LONG = "it is longer than such an answer can be"
    NOT_SIGNED = "its signature is not that of the site that sent it"
    WRONG_STATISTICS = "its statistics differ in kind from the other sites', or cannot be"
