"""A model that leaves a run: weights, ONNX, TorchScript, a card and a README in one folder.

Imported from here: backbone_check, evidence, onnx, origin, write.
May import: common.config, common.config.parts, common.config.tasks, common.data, common.metrics,
    common.metrics.decisions, common.models, common.platform, common.tasks.
"""
