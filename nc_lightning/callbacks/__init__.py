"""Lightning callbacks: hard negatives, geometry, its dashboard, the probe, the writer; to resume, stop and watch."""

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.graceful_stop import GracefulStop
from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.callbacks.prediction_writer import PredictionWriter
from nc_lightning.callbacks.process_watch import ProcessWatch
from nc_lightning.callbacks.random_states import RandomStates
from nc_lightning.callbacks.resumed_epoch import ResumedEpoch
from nc_lightning.callbacks.tensorboard_dashboard import TensorBoardDashboard

__all__ = [
    "GeometryMonitor",
    "GracefulStop",
    "HardNegativeSampler",
    "OnlineLinearProbe",
    "PredictionWriter",
    "ProcessWatch",
    "RandomStates",
    "ResumedEpoch",
    "TensorBoardDashboard",
]
