"""Standard evaluation of frozen features: k-NN, linear probe, class means, few shots and retrieval."""

from nc_lightning.evaluation.class_means import FewShot, few_shot_accuracy, nearest_class_mean
from nc_lightning.evaluation.knn import class_votes, knn_predict, knn_scores
from nc_lightning.evaluation.linear import WEIGHT_DECAYS, LinearProbe, linear_probe
from nc_lightning.evaluation.neighbors import nearest_neighbors
from nc_lightning.evaluation.protocols import Evaluation, evaluate_features
from nc_lightning.evaluation.ranking import Retrieval, retrieval

__all__ = [
    "WEIGHT_DECAYS",
    "Evaluation",
    "FewShot",
    "LinearProbe",
    "Retrieval",
    "class_votes",
    "evaluate_features",
    "few_shot_accuracy",
    "knn_predict",
    "knn_scores",
    "linear_probe",
    "nearest_class_mean",
    "nearest_neighbors",
    "retrieval",
]
