"""Checks of what must be true of a federation after any accident."""

from __future__ import annotations

import torch

from client.governance.disclosures import verify as verify_disclosures
from client.privacy.ledger import Ledger
from common.data.weights import fingerprint
from common.platform.hash_chain import verify
from server.rounds.run_state import RunState
from tests.end_to_end.federation import Federation, RunAt


def sound(federation: Federation, run: RunAt, rounds: int) -> RunState:
    """Return what a run that is done has saved, after everything that is on record was checked."""
    assert run.state == "done", run.message
    state = run.result()
    assert (state.round, state.finished) == (rounds, True)
    assert [record.round for record in state.history] == list(range(1, rounds + 1))
    assert all(torch.isfinite(value).all() for value in state.weights.values())
    verify(run.place.journal)
    private = any(record.epsilon for record in state.history)
    for site in federation.sites.values():
        nothing_uncharged(federation, run, site.name, private=private)
    return state


def nothing_uncharged(federation: Federation, run: RunAt, name: str, *, private: bool) -> None:
    """Check one site: what left was charged before, and each round left in one form a charge."""
    site = federation.sites[name]
    verify_disclosures(site.home.disclosures)
    released = {
        (line.disclosure.round, line.disclosure.sha256)
        for line in site.sent()
        if line.disclosure.run == run.place.path.name
    }
    if not private:
        return
    charged = Ledger(site.home.ledger).accounts()["patients"].get(run.place.path.name, ())
    assert len(released) <= len(charged), "an update left that was not charged"


def bits(state: RunState) -> str:
    """Return a name for the weights that a run ends with."""
    return fingerprint(state.weights)
