import pytest
import torch

from nc_lightning.geometry import simplex_etf


@pytest.mark.parametrize(("num_classes", "feature_dim"), [(2, 1), (3, 2), (10, 9), (10, 16), (100, 99)])
def test_gram_matrix(num_classes, feature_dim):
    means = simplex_etf(num_classes, feature_dim)
    assert means.shape == (num_classes, feature_dim)
    ideal = torch.full((num_classes, num_classes), -1 / (num_classes - 1), dtype=torch.float64).fill_diagonal_(1)
    assert torch.allclose(means @ means.T, ideal, rtol=0, atol=1e-14)
    assert means.sum(0).norm() < 1e-13


def test_too_few_dimensions():
    with pytest.raises(ValueError, match="feature_dim: got 3, expected at least num_classes - 1 = 9"):
        simplex_etf(10, 3)
    with pytest.raises(ValueError, match="num_classes: got 1, expected an integer >= 2"):
        simplex_etf(1, 3)
