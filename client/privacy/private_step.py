"""A private training step, in which every patient is hidden.

Guarantee: adding or removing one patient, with any number of images of any content,
changes the sum that noise is added to by at most `clip_norm` in L2 norm. So each step is a
(sampled) Gaussian mechanism over patients with noise multiplier sigma.

    patient                                  contribution
    one image or many                        gradient of the mean loss over up to K of them
    volumes, of which patches are taken      gradient of the mean loss over K patches
    gradient of any size                     scaled to at most clip_norm
    gradient not finite (broken image)       zero
    nobody drawn                             pure noise; the step is taken and was charged
    batch peers                              do not enter: the network has no batch statistics

The sum is divided by a public constant. The number of patients drawn is never used.

Which patients, which K of their images and which units dropout drops are drawn from the secret
noise source, not from the run's public seed: under a public seed all draws after a patient would
shift with that patient's presence, and everybody's contribution would change, not one. Patients
and images are drawn with a key of the step, each by its PatientID and its place among the
patient's own images (client/privacy/patient_randomness.py): with the same key, nobody else's draw
moves at all.

Public: private_step, patient_optimizer, accumulate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from client.privacy.patient_gradients import (
    LOOP,
    Backend,
    DrawnPatients,
    Objective,
    gradients_by_patient,
)
from client.privacy.patient_sampling import draw, with_patches
from common.privacy.noise import NoiseSource
from common.privacy.plan import PrivacyPlan

if TYPE_CHECKING:
    from client.privacy.clip_and_noise import PatientOptimizer


def patient_optimizer(
    optimizer: torch.optim.Optimizer, plan: PrivacyPlan, noise: NoiseSource
) -> PatientOptimizer:
    """Return Opacus' optimiser around a plain one, as `private_step` needs it."""
    # Imported here: Opacus takes a second to load, and runs without privacy do without.
    from client.privacy.clip_and_noise import PatientOptimizer

    return PatientOptimizer(optimizer, plan, noise)


def private_step(
    objective: Objective, optimizer: PatientOptimizer, noise: NoiseSource, backend: Backend = LOOP
) -> None:
    """Take one step on the noised mean over patients; the caller has charged it."""
    objective = with_patches(objective, noise)
    sampling_rate = optimizer.plan.mechanism.sampling_rate
    drawn = draw(objective.patients, sampling_rate, objective.images_per_patient, noise)
    accumulate(objective, optimizer, drawn, noise, backend)
    optimizer.release()


def accumulate(
    objective: Objective,
    optimizer: PatientOptimizer,
    drawn: DrawnPatients,
    noise: NoiseSource,
    backend: Backend = LOOP,
) -> None:
    """Add the drawn patients' clipped gradients to the optimiser's sum."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(noise.uniform(1)[0] * 2**53))
        for several in gradients_by_patient(objective, optimizer.params, drawn, backend):
            optimizer.accumulate(several)
            several.clear()  # the next patient needs the memory
