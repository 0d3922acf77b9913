"""Every geometry function equals its CPU result on the device bit for bit, with and without float64."""

import inspect

import pytest
import torch

from nc_lightning import geometry
from nc_lightning.geometry import CenterDistances, ClassStatistics, simplex_etf, unit_sphere
from nc_lightning.geometry.placement import in_float64, statistics_device
from tests.on_both import on_both, same_on_both
from tests.pretend_device import NAME, Machine

C, D = 5, 6
LABELS = torch.arange(C).repeat(8)
Z = simplex_etf(C, D).float()[LABELS] + 0.3 * torch.randn(len(LABELS), D, generator=torch.Generator().manual_seed(0))
WEIGHT, BIAS = torch.randn(C, D, generator=torch.Generator().manual_seed(1)), torch.linspace(-1, 1, C)


def statistics(z, labels):
    return ClassStatistics(C, D, z.device).update(z, labels)


def state(stats):
    return [stats.counts, stats.means, stats.scatter, stats.traces]


def merged(z, labels):
    return statistics(z, labels).merge(ClassStatistics(C, D).update(Z + 1, LABELS)).merge(statistics(-z, labels))


def distances(z, labels):
    return CenterDistances(statistics(z, labels)).update(z.half(), labels)


def mismatches(z, labels):
    seen = CenterDistances(statistics(z, labels))
    return geometry.nc4_mismatches(z, WEIGHT.to(z.device), BIAS.to(z.device), seen)


BY_NAME = {
    "ClassStatistics": lambda z, labels: state(merged(z, labels)),
    "CenterDistances": lambda z, labels: [getattr(distances(z, labels), n) for n in ("counts", "distances", "correct")],
    "alpha_req": lambda z, labels: geometry.alpha_req(z[:, 0].sort(descending=True).values[:9]),
    "caveats": lambda z, labels: torch.tensor(list(geometry.caveats(statistics(z[:9], labels[:9] * 2 % 5)).encode())),
    "nc4_mismatches": mismatches,
    "SCLOptimum": lambda z, labels: geometry.SCLOptimum(z @ z.T, labels, 0.0, 0.0, False).gram,
    "distance_to_optimum": lambda z, labels: geometry.distance_to_optimum(statistics(z, labels), torch.eye(C) + 1),
    "optimal_values": lambda z, labels: geometry.optimal_values(z[:C] @ z[:C].T, D),
    "optimal_ideals": lambda z, labels: {
        key: goal.value for key, goal in geometry.optimal_ideals(z[:C] @ z[:C].T, D).items()
    },
    "normalize": lambda z, labels: [geometry.normalize(z, name) for name in ("unit_ball", "unit_sphere", "none")],
    "measure": lambda z, labels: geometry.measure(z, labels),
    **{
        name: lambda z, labels, name=name: getattr(geometry, name)(statistics(unit_sphere(z), labels))
        for name in ("alignment", "self_cluster")
    },
}
"""How to call the functions that `BY_FIRST_ARGUMENT` does not cover."""
BY_FIRST_ARGUMENT = {
    ("stats",): lambda function, z, labels: function(statistics(z, labels)),
    ("stats", "centered"): lambda function, z, labels: [
        function(statistics(z, labels), centered=c) for c in (True, False)
    ],
    ("stats", "delta"): lambda function, z, labels: function(statistics(z, labels)),
    ("within", "between", "delta"): lambda function, z, labels: function(
        statistics(z, labels).within_covariance, statistics(z, labels).scatter
    ),
    ("stats", "ood_mean"): lambda function, z, labels: function(statistics(z, labels), z[0]),
    ("stats", "weight"): lambda function, z, labels: function(statistics(z, labels), WEIGHT.to(z.device)),
    ("to_centers",): lambda function, z, labels: function(distances(z, labels)),
    ("matrix",): lambda function, z, labels: function(z),
    ("z",): lambda function, z, labels: function(z),
    ("z", "k"): lambda function, z, labels: function(z),
    ("z", "t"): lambda function, z, labels: function(z),
}
TAKE_NO_TENSOR = {"Ideal", "Normalization", "ideal", "simplex_etf", "collapsed_value", "scl_lower_bound"}
TAKE_NO_TENSOR |= {"ucl_lower_bound", "coherence_floor", "equiangular_floor", "etf_floor", "max_cosine_floor"}
TAKE_NO_TENSOR |= {
    "HUCLOptimum",
    "hucl_critical_beta",
    "hucl_lower_bound",
    "hucl_neural_collapse_value",
    "hucl_optimum",
}
TAKE_NO_TENSOR |= {"MEASURES", "Measure", "ideals_met", "minority_collapse_ratio", "optimum_met", "scl_optimum"}
TAKE_NO_TENSOR |= {"tight_frame_floor"}
TAKE_TENSORS = sorted(set(geometry.__all__) - TAKE_NO_TENSOR)


def call(name, z, labels):
    if name in BY_NAME:
        return BY_NAME[name](z, labels)
    function = getattr(geometry, name)
    return BY_FIRST_ARGUMENT[tuple(inspect.signature(function).parameters)](function, z, labels)


def test_every_function_that_takes_a_tensor_is_tested():
    assert set(geometry.__all__) >= TAKE_NO_TENSOR
    for name in TAKE_NO_TENSOR - {"Normalization", "MEASURES"}:
        assert "Tensor" not in str(inspect.signature(getattr(geometry, name)).parameters)


@pytest.mark.parametrize("float64", [True, False])
@pytest.mark.parametrize("name", TAKE_TENSORS)
def test_values_equal_those_of_the_cpu(name, float64):
    (cpu, device), _ = on_both(lambda: lambda *x: call(name, *x), Z, LABELS, gradient=False, float64=float64)
    assert len(cpu) > 0
    torch.testing.assert_close(device, cpu, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("float64", [True, False])
@pytest.mark.parametrize("name", ["effective_rank", "participation_ratio", "rankme", "nesum"])
def test_ranks_have_gradients(name, float64):
    same_on_both(lambda: lambda z: getattr(geometry, name)(z), Z, float64=float64)


@pytest.mark.parametrize("name", ["unit_ball", "unit_sphere"])
def test_projections_have_gradients(name):
    same_on_both(lambda: lambda z: (getattr(geometry, name)(z) * Z.to(z.device)).sum(), 2 * Z)


@pytest.mark.parametrize("float64", [True, False])
def test_collapse_is_exactly_zero(float64):
    with Machine(float64):
        values = geometry.measure(simplex_etf(C, D).float()[LABELS].to(NAME) / 3, LABELS.to(NAME))
    assert values["nc1"] == values["cdnv"] == values["nc1_pinv"] == 0
    with Machine(float64):
        stats = statistics(torch.full((len(LABELS), D), 0.1).to(NAME), LABELS.to(NAME))
        assert stats.between_trace.item() == 0
        assert geometry.class_mean_eigenvalues(stats).tolist() == [0.0] * C


@pytest.mark.parametrize(("float64", "place"), [(True, NAME), (False, "cpu")])
def test_statistics_are_kept_where_float64_exists(float64, place):
    with Machine(float64):
        assert statistics_device(NAME).type == place
        assert in_float64(torch.ones(2).to(NAME)).device.type == place
        stats = statistics(Z.to(NAME), LABELS.to(NAME))
        for moved in (stats, stats.to("cpu").to(NAME)):
            assert {(t.device.type, t.dtype) for t in state(moved)} == {(place, torch.float64)}
        assert stats.to("cpu").means.device.type == "cpu"
        assert ClassStatistics(C, D).update(Z.to(NAME), LABELS.to(NAME)).means.device.type == "cpu"


@pytest.mark.parametrize("float64", [True, False])
def test_bad_input_is_refused(float64):
    with Machine(float64):
        z, labels = Z.to(NAME), LABELS.to(NAME)
        stats = statistics(z, labels)
        for seen in (stats, CenterDistances(stats)):
            with pytest.raises(ValueError, match=r"labels: got label 5, expected integers in \[0, 5\)"):
                seen.update(z, labels + 1)
            with pytest.raises(ValueError, match="z: got nan in row 1, expected finite features"):
                seen.update(z.masked_fill(labels[:, None] == 1, torch.nan), labels)
        with pytest.raises(ValueError, match="weight: got inf in row 0"):
            geometry.nc3(stats, torch.full((C, D), torch.inf).to(NAME))


def test_a_batch_synchronizes_as_often_as_documented():
    with Machine() as machine:
        z, labels = Z.to(NAME), LABELS.to(NAME)
        stats = ClassStatistics(C, D, NAME).update(z, labels)
        seen = CenterDistances(stats).update(z, labels)
        machine.phase = "statistics"
        stats.update(z, labels)
        seen.update(z, labels)
        machine.phase = "distances"
        seen.update(z, labels)
    one_look = ("item", "checks.py check_values")
    assert machine.waits_in("distances") == {one_look: 1}
    once = {("nonzero", "geometry/centers.py _candidates"): 1}  # again when the centers have changed
    which_classes = {("_unique2", "geometry/statistics.py update"): 1}
    assert machine.waits_in("statistics") == {one_look: 2, **which_classes, **once}
