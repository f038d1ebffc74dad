"""Differential privacy by patient: clipping, noised steps, the ledger, and what it refuses.

Imported from here: charge_text, composition, extension_check, gradient_backend, isolation, ledger,
    model_guard, patient_gradients, private_step, repeated_answers.
May import: common.
"""
