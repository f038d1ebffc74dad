"""Differential privacy by patient: clipping, noised steps, the ledger, and what it refuses.

Imported from here: answers, backend_choice, charge, ledger, model_guard, parts, patient_gradients,
    private_step.
May import: common.
"""
