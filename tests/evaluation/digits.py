"""Real digits, split as features and labels."""

import torch
from sklearn.datasets import load_digits

TRAIN = 1257


def digits(dtype=torch.float64, labels_only=None):
    """Return the training features and labels, and those of the test set; of all classes or of some."""
    x, y = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    x = x.to(dtype)
    keep = torch.ones_like(y, dtype=torch.bool) if labels_only is None else torch.isin(y, torch.tensor(labels_only))
    train = torch.arange(len(y)) < TRAIN
    return (x[train & keep], y[train & keep]), (x[~train & keep], y[~train & keep])
