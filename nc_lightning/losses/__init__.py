"""The contrastive losses: which negatives, how hardened (eta), which link (psi), how computed."""

from nc_lightning.losses.contrastive import ContrastiveLoss
from nc_lightning.losses.hardening import CustomHardening, Exponential, Hardening, Polynomial, Threshold
from nc_lightning.losses.links import CustomLink, InfoNCE, Link, Logistic, Triplet
from nc_lightning.losses.queue import FeatureQueue
from nc_lightning.losses.similarities import SimilarityHistograms, similarity_histograms
from nc_lightning.losses.supervised import HSCLLoss, SCLLoss
from nc_lightning.losses.unsupervised import HUCLLoss, UCLLoss

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
    "Polynomial",
    "SCLLoss",
    "SimilarityHistograms",
    "Threshold",
    "Triplet",
    "UCLLoss",
    "similarity_histograms",
]
