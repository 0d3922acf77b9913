"""Lightning callbacks: sampler, monitor, dashboard, probe, writer, and the guards of a run."""

from nc_lightning.callbacks.collapse_watch import CollapseWatch
from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
from nc_lightning.callbacks.neural_collapse_reached import NeuralCollapseReached
from nc_lightning.callbacks.nonfinite_guard import NonFiniteGuard
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.callbacks.prediction_writer import PredictionWriter
from nc_lightning.callbacks.tensorboard_dashboard import TensorBoardDashboard

__all__ = [
    "CollapseWatch",
    "GeometryMonitor",
    "HardNegativeSampler",
    "NeuralCollapseReached",
    "NonFiniteGuard",
    "OnlineLinearProbe",
    "PredictionWriter",
    "TensorBoardDashboard",
]
