"""Lightning callbacks: hard negatives, geometry, dashboard, probe, checkpoints and fault tolerance."""

from nc_lightning.callbacks.checkpoint_step import CheckpointStep
from nc_lightning.callbacks.collapse_watch import CollapseWatch
from nc_lightning.callbacks.dashboard.callback import TensorBoardDashboard
from nc_lightning.callbacks.fault_tolerance.graceful_stop import GracefulStop
from nc_lightning.callbacks.fault_tolerance.nonfinite_guard import NonFiniteGuard
from nc_lightning.callbacks.fault_tolerance.process_watch import ProcessWatch
from nc_lightning.callbacks.fault_tolerance.random_states import RandomStates
from nc_lightning.callbacks.fault_tolerance.resumed_epoch import ResumedEpoch
from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
from nc_lightning.callbacks.initial_weights import InitialWeights
from nc_lightning.callbacks.neural_collapse_reached import NeuralCollapseReached
from nc_lightning.callbacks.online_knn import OnlineKNN
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.callbacks.prediction_writer import PredictionWriter
from nc_lightning.callbacks.run_checkpoint import RunCheckpoint

__all__ = [
    "CheckpointStep",
    "CollapseWatch",
    "GeometryMonitor",
    "GracefulStop",
    "HardNegativeSampler",
    "InitialWeights",
    "NeuralCollapseReached",
    "NonFiniteGuard",
    "OnlineKNN",
    "OnlineLinearProbe",
    "PredictionWriter",
    "ProcessWatch",
    "RandomStates",
    "ResumedEpoch",
    "RunCheckpoint",
    "TensorBoardDashboard",
]
