"""torchmetrics for representation geometry."""

from nc_lightning.metrics.neural_collapse import NC1, NC2, EffectiveRank, NeuralCollapse

__all__ = ["NC1", "NC2", "EffectiveRank", "NeuralCollapse"]
