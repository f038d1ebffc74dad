"""Differential privacy by patient: clipping, noised steps, the ledger, and what it refuses.

Imported from here: answers, backend_choice, composition, extension_check, isolation, ledger,
    model_guard, patient_gradients, private_step, stored_charge.
May import: common.
"""
