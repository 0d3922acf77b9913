"""No loss holds a matrix of all similarities, all triples or all draws."""

import pytest
import torch

from nc_lightning.losses import (
    ContrastiveLoss,
    DCLLoss,
    HCLLoss,
    HSCLLoss,
    HUCLLoss,
    Logistic,
    Polynomial,
    SupConLoss,
    Threshold,
    Triplet,
)
from nc_lightning.losses.engines import tile_sizes
from tests.largest_tensor import LargestTensor

N, FEATURE_DIM, NUM_CLASSES = 600, 4, 30
AT_ONCE = 8000
"""Elements of a block; a matrix of all similarities has 45 times as many."""
LOSSES = {
    "exponential": lambda: HSCLLoss(5.0),
    "large exponents": lambda: HSCLLoss(5.0, temperature=1e-3),
    "polynomial": lambda: HSCLLoss(hardening=Polynomial(3.0)),
    "polynomial, differentiated": lambda: HUCLLoss(hardening=Polynomial(3.0)),
    "threshold": lambda: HSCLLoss(hardening=Threshold(0.1)),
    "debiased": lambda: HUCLLoss(5.0, tau_plus=0.1),
    "triplet": lambda: HSCLLoss(5.0, link=Triplet()),
    "logistic": lambda: HUCLLoss(5.0, link=Logistic()),
    "drawn": lambda: HSCLLoss(5.0, num_negatives=20),
    "drawn, shared": lambda: HSCLLoss(5.0, num_negatives=20, share_draws=True),
    "drawn without replacement": lambda: HSCLLoss(5.0, num_negatives=20, replacement=False),
    "drawn, triplet": lambda: HSCLLoss(5.0, num_negatives=20, link=Triplet()),
    "temperature learned": lambda: HUCLLoss(5.0, torch.nn.Parameter(torch.tensor(0.5)), differentiate_weights=True),
    "supcon": lambda: SupConLoss(),
    "dcl": lambda: DCLLoss(),
    "hcl": lambda: HCLLoss(),
}


def largest_tensor(loss):
    torch.manual_seed(0)
    z = torch.randn(N, FEATURE_DIM, requires_grad=True)
    with LargestTensor() as largest:
        loss(z, torch.arange(N) % NUM_CLASSES, torch.arange(N) // 2).backward()
    return largest.numel


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    sizes = {"square": 0, "rows": 16, "columns": 64, "cache": AT_ONCE, "row_block": AT_ONCE, "positive_rows": 16}
    monkeypatch.setattr(tile_sizes, "CPU", tile_sizes.CPU._replace(**sizes))


@pytest.mark.parametrize("name", LOSSES)
def test_memory_is_bounded_by_the_size_of_a_block(name):
    assert largest_tensor(LOSSES[name]()) <= 2 * max(AT_ONCE, N * N // NUM_CLASSES)  # at least one anchor


def test_a_matrix_of_all_similarities_is_noticed(monkeypatch):
    monkeypatch.setattr(tile_sizes, "CPU", tile_sizes.CPU._replace(row_block=2**30))
    monkeypatch.setattr(ContrastiveLoss, "_is_tiled", lambda *_: False)
    assert largest_tensor(HSCLLoss(5.0)) >= N * N
