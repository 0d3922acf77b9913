"""The contrastive losses: which negatives, how hardened, how computed."""

from nc_lightning.losses.contrastive import ContrastiveLoss, HSCLLoss, HUCLLoss, SCLLoss, UCLLoss

__all__ = ["ContrastiveLoss", "HSCLLoss", "HUCLLoss", "SCLLoss", "UCLLoss"]
