"""Sampling of a private step: which patients are in it (Poisson), and which images of each."""

from __future__ import annotations

from dataclasses import replace

import torch

from client.privacy.patient_gradients import DrawnPatients, Objective
from client.privacy.patient_randomness import PatientDraw
from common.data.sample import Patients
from common.data.volumes import are_volumes, drawn_patches, numbers_of
from common.privacy.noise import NoiseSource


def draw(patients: Patients, sampling_rate: float, most: int, noise: NoiseSource) -> DrawnPatients:
    """Return the step's patients (all, or a secret draw) and up to `most` items of each."""
    owner = patients.patient
    counts = torch.bincount(owner, minlength=len(patients))
    first = counts.cumsum(0) - counts
    order = torch.arange(len(owner))
    own = PatientDraw(noise)  # always, so that what is drawn after it is the same for any patients
    if len(counts) and int(counts.max()) > most:
        # Within each patient, items in the order of a random key; halved, so that rounding
        # never makes it the next patient's.
        place = order - first[owner] + 1
        order = torch.argsort(owner + 0.5 * own.uniform(patients.pseudonyms, owner, place))
    chosen = counts > 0
    if sampling_rate < 1:
        everybody = torch.arange(len(patients))
        drawn = own.uniform(patients.pseudonyms, everybody, torch.zeros_like(everybody))
        chosen &= drawn < sampling_rate
    first, counts = first[chosen], counts[chosen].clamp_max(most)
    step = torch.arange(int(counts.max()) if len(counts) else 0)
    places = first[:, None] + torch.where(step < counts[:, None], step, 0)
    return DrawnPatients(place=order[places], items=counts)


def with_patches(objective: Objective, noise: NoiseSource) -> Objective:
    """Return the objective on a step's patches, where its patients have volumes.

    Each patient's are drawn by its own secret numbers: nobody else moves them.
    """
    patients, rules = objective.patients, objective.patches
    if rules is None or not are_volumes(patients.image):
        return objective
    width, everybody = numbers_of(len(rules.size)), torch.arange(len(patients))
    each = rules.per_patient * width
    place = torch.arange(each).repeat(len(patients))
    owner = everybody.repeat_interleave(each)
    drawn = PatientDraw(noise).uniform(patients.pseudonyms, owner, place).reshape(-1, width)
    owner = everybody.repeat_interleave(rules.per_patient)
    return replace(
        objective,
        patients=drawn_patches(patients, owner, drawn, rules.foreground),
        images_per_patient=rules.per_patient,
    )
