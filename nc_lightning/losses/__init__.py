"""Contrastive losses: their negatives, hardening (eta), link (psi) and engines."""

from nc_lightning.losses.contrastive import ContrastiveLoss
from nc_lightning.losses.diagnostics import SimilarityHistograms, similarity_histograms
from nc_lightning.losses.family import HSCLLoss, HUCLLoss, SCLLoss, UCLLoss
from nc_lightning.losses.hardening import CustomHardening, Exponential, Hardening, Polynomial, Threshold, ValueThreshold
from nc_lightning.losses.links import CustomLink, InfoNCE, Link, Logistic, Triplet
from nc_lightning.losses.loss_batch import LossResult
from nc_lightning.losses.named import DCLLoss, DHELLoss, HCLLoss, NTXentLoss, SupConLoss
from nc_lightning.losses.queue import FeatureQueue
from nc_lightning.losses.uniqueness import uniqueness_note

__all__ = [
    "ContrastiveLoss",
    "CustomHardening",
    "CustomLink",
    "DCLLoss",
    "DHELLoss",
    "Exponential",
    "FeatureQueue",
    "HCLLoss",
    "HSCLLoss",
    "HUCLLoss",
    "Hardening",
    "InfoNCE",
    "Link",
    "Logistic",
    "LossResult",
    "NTXentLoss",
    "Polynomial",
    "SCLLoss",
    "SimilarityHistograms",
    "SupConLoss",
    "Threshold",
    "Triplet",
    "UCLLoss",
    "ValueThreshold",
    "similarity_histograms",
    "uniqueness_note",
]
