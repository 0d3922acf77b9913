"""Lightning callbacks: the hard-negative sampler, the geometry monitor, its dashboard, the probe, the writer."""

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.callbacks.prediction_writer import PredictionWriter
from nc_lightning.callbacks.tensorboard_dashboard import TensorBoardDashboard

__all__ = ["GeometryMonitor", "HardNegativeSampler", "OnlineLinearProbe", "PredictionWriter", "TensorBoardDashboard"]
