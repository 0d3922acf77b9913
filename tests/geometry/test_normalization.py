import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import normalize, unit_ball, unit_sphere


@pytest.mark.parametrize("project", [unit_ball, unit_sphere])
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-6, 0.1, 1.0, 10.0, 1e6]))
def test_norms_and_idempotence(project, seed, scale):
    z = scale * torch.randn(8, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    once = project(z)
    norms = once.norm(dim=1)
    assert (norms <= 1 + 1e-12).all()
    assert torch.allclose(project(once), once, rtol=0, atol=1e-15)
    expected = torch.ones(8, dtype=torch.float64) if project is unit_sphere else z.norm(dim=1).clamp(max=1)
    assert torch.allclose(norms, expected)


def test_the_unit_ball_leaves_inner_points_unchanged():
    z = torch.tensor([[0.3, 0.4], [0.0, 0.0]])
    assert torch.equal(unit_ball(z), z)


def test_zero_row_has_a_finite_gradient():
    for project in (unit_ball, unit_sphere):
        z = torch.zeros(2, 3, requires_grad=True)
        project(z).sum().backward()
        assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z = torch.full((2, 64), 250.0, dtype=dtype)  # the square of its norm, 2000, overflows float16
    for name in ("unit_ball", "unit_sphere", "none"):
        assert normalize(z, name).dtype == torch.float32
    assert torch.allclose(unit_ball(z).norm(dim=1), torch.ones(2))


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="normalization: got 'sphere', expected one of unit_ball, unit_sphere, none"):
        normalize(torch.zeros(1, 1), "sphere")
