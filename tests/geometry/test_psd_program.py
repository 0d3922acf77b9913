import pytest
import torch

from nc_lightning.geometry.psd_program import certify, minimize_over_gram_matrices


def on_sphere(size):
    return torch.ones(size, dtype=torch.bool)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_sum_is_least_for_vectors_that_cancel(size):
    products, value, gap = minimize_over_gram_matrices(lambda g: g.sum() + 1, on_sphere(size), torch.ones(size))
    assert value == pytest.approx(1, abs=1e-12)
    assert gap < 1e-12
    assert torch.allclose(products.diagonal(), torch.ones(size, dtype=torch.float64))


def test_vectors_in_the_ball_may_be_short():
    inside = torch.tensor([False, True])
    products, value, gap = minimize_over_gram_matrices(lambda g: (g - 0.25).square().sum(), inside, torch.ones(2))
    assert products == pytest.approx(torch.tensor([[0.25, 0.25], [0.25, 1]]).double(), abs=1e-9)
    assert value == pytest.approx(0.75**2, abs=1e-12)
    assert gap < 1e-9  # less exact without strict complementarity


@pytest.mark.parametrize("ball", [False, True])
def test_the_certificate_is_never_below_the_distance_from_the_minimum(ball):
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    sphere = on_sphere(5) if not ball else torch.arange(5) < 2

    def value(g):
        return (slopes * g).sum() + (0.1 * g.square()).sum() + 10

    least = minimize_over_gram_matrices(value, sphere, torch.ones(5))
    assert least.gap < 1e-10
    for _ in range(100):
        vectors = torch.nn.functional.normalize(torch.randn(5, 3, generator=generator, dtype=torch.float64))
        vectors[~sphere] *= torch.rand(int((~sphere).sum()), 1, generator=generator, dtype=torch.float64)
        reached, gap = certify(value, vectors @ vectors.T, sphere)
        assert reached - gap <= least.value + 1e-12 <= reached + 2e-12
