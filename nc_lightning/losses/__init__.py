"""Contrastive losses: their negatives, hardening (eta), link (psi) and engines."""

from nc_lightning.losses.contrastive import ContrastiveLoss
from nc_lightning.losses.diagnostics import SimilarityHistograms, similarity_histograms
from nc_lightning.losses.family import HSCLLoss, HUCLLoss, SCLLoss, UCLLoss
from nc_lightning.losses.hardening import CustomHardening, Exponential, Hardening, Polynomial, Threshold
from nc_lightning.losses.links import CustomLink, InfoNCE, Link, Logistic, Triplet
from nc_lightning.losses.loss_batch import LossResult
from nc_lightning.losses.queue import FeatureQueue

__all__ = [
    "ContrastiveLoss",
    "CustomHardening",
    "CustomLink",
    "Exponential",
    "FeatureQueue",
    "HSCLLoss",
    "HUCLLoss",
    "Hardening",
    "InfoNCE",
    "Link",
    "Logistic",
    "LossResult",
    "Polynomial",
    "SCLLoss",
    "SimilarityHistograms",
    "Threshold",
    "Triplet",
    "UCLLoss",
    "similarity_histograms",
]
