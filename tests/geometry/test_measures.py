import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import (
    CenterDistances,
    ClassStatistics,
    alignment,
    alpha_req,
    caveats,
    class_mean_spectrum,
    effective_rank,
    equiangular_floor,
    feature_eigenvalues,
    ideal,
    measure,
    nc3,
    nc3_cosine,
    nc3_etf,
    nc4_mismatches,
    numerical_rank,
    participation_ratio,
    rankme,
    self_cluster,
    simplex_etf,
    statistics_measures,
    uniformity,
    unit_sphere,
)
from tests.geometry.loops_over_features import all_metrics, entropy_rank, make_cases

NAMES = {
    "nc1": "nc1_quotient_peer",
    "nc1_sample": "nc1_quotient_sample",
    "nc1_pinv": "nc1_pinv_peer",
    "nc1_rank": "sigma_b_rank",
    "nc1_outside_span": "within_outside_span_fraction",
    "cdnv": "cdnv_mean",
    "within_class_variation": "within_l2_mean_class",
    "nc2_equinorm": "nc2_equinorm_cv",
    "nc2_equiangular": "nc2_equiangular_std",
    "nc2_maxangle": "nc2_maxangle_mean",
    "nc2_etf": "nc2_etf_frobenius",
    "nc2_tight_frame": "nc2_tight_frame_error",
    "nc2_max_cosine": "nc2_cos_max",
    "zero_sum": "paper_zero_sum",
    "unit_norm": "paper_unit_norm",
    "equal_inner_product": "paper_equal_ip_cos_mean",
    "effective_rank": "means_erank_sigma",
    "participation_ratio": "means_participation_ratio",
    "nesum": "means_stable_rank",
    "lidar": "lidar_classes",
    "feature_effective_rank": "feat_erank_sigma_centered",
    "feature_participation_ratio": "feat_participation_ratio",
    "feature_nesum": "feat_nesum",
    "feature_stable_rank": "feat_stable_rank_uncentered",
    "feature_rank": "feat_rank_centered_1e-5",
    "feature_alpha_req": "feat_alpha_weighted",
    "rankme": "rankme",
    "wasserstein_uniformity": "feat_wasserstein_uniformity",
    "ncc_accuracy": "ncc_accuracy_distance",
}
CASES = make_cases()


@pytest.mark.parametrize("name", CASES)
def test_reference_cases_are_reproduced(name):
    case = CASES[name]
    with np.errstate(all="ignore"):
        expected = all_metrics(case["X"], case["y"], case["C"])
    z, labels = torch.from_numpy(case["X"]), torch.from_numpy(case["y"])
    whole = measure(z, labels, case["C"])
    stats = ClassStatistics(case["C"], z.shape[1])
    for part in torch.randperm(len(z)).split(7):
        stats.update(z[part], labels[part])
    streamed = {key: float(value) for key, value in statistics_measures(stats).items()}
    assert set(whole) == set(NAMES)
    for key, reference in NAMES.items():
        if reference not in expected:  # undefined where all class means coincide
            assert math.isnan(whole[key]) or name == "15_equal_class_means"
            continue
        for values in (whole, streamed):
            if key in values:
                assert values[key] == pytest.approx(expected[reference], rel=1e-8, abs=1e-12, nan_ok=True), key


@pytest.mark.parametrize("name", CASES)
def test_reference_cases_of_classifiers_spread_and_single_matrices_are_reproduced(name):
    case = CASES[name]
    with np.errstate(all="ignore"):
        expected = all_metrics(case["X"], case["y"], case["C"], case["W"], case["b"])
    z, labels = torch.from_numpy(case["X"]), torch.from_numpy(case["y"])
    stats = ClassStatistics(case["C"], z.shape[1]).update(z, labels)
    sphere = ClassStatistics(case["C"], z.shape[1]).update(unit_sphere(z), labels)
    weight = torch.from_numpy(np.asarray(case["W"], dtype=np.float64))
    bias = None if case["b"] is None else torch.from_numpy(np.asarray(case["b"], dtype=np.float64))
    ours = {
        "nc3_frobenius_centered_w": nc3(stats, weight),
        "nc3_wh_etf_centered_w": nc3_etf(stats, weight),
        "nc3_one_minus_cos_centered_w": nc3_cosine(stats, weight),
        "nc4_mismatch": nc4_mismatches(z, weight, bias, CenterDistances(stats)).double().mean(),
        "alignment_class_mean": alignment(sphere),
        "feat_self_cluster": self_cluster(sphere),
        "uniformity_t2": uniformity(z),
        "feat_numerical_rank_uncentered": numerical_rank(z),
        "feat_alpha_ols": alpha_req(feature_eigenvalues(stats), weighted=False),
    }
    for key, value in ours.items():
        if key in expected:
            assert value.item() == pytest.approx(expected[key], rel=1e-8, abs=1e-12, nan_ok=True), key
    spectrum = class_mean_spectrum(stats).tolist()
    assert spectrum == pytest.approx(expected["means_spectrum_normalized"], rel=1e-8, abs=1e-12)


def test_nc4_uses_the_bias():
    case = CASES["12_huge_norms"]
    z, labels = torch.from_numpy(case["X"]), torch.from_numpy(case["y"])
    centers = CenterDistances(ClassStatistics(case["C"], z.shape[1]).update(z, labels))
    weight, bias = torch.from_numpy(case["W"]), torch.from_numpy(case["b"])
    assert nc4_mismatches(z, weight, bias, centers).double().mean() == 0
    assert nc4_mismatches(z, weight, None, centers).double().mean() > 0.5


def test_a_classifier_that_does_not_fit_is_refused():
    stats = ClassStatistics(3, 2).update(torch.randn(6, 2), torch.arange(3).repeat(2))
    with pytest.raises(ValueError, match=r"weight: got shape \(2, 2\), expected \(3, 2\), a row for each class"):
        nc3(stats, torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"bias: got shape \(2,\), expected \(3,\)"):
        nc4_mismatches(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(2), CenterDistances(stats))
    with pytest.raises(ValueError, match="weight: got nan in row 0"):
        nc3(stats, torch.full((3, 2), torch.nan))


@given(seed=st.integers(0, 2**31), num_classes=st.integers(2, 9), dim=st.integers(1, 9), n=st.integers(1, 4))
def test_dimension_measures_are_ordered(seed, num_classes, dim, n):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_classes * n, dim, generator=generator, dtype=torch.float64)
    g = measure(z, torch.arange(num_classes).repeat(n))
    slack = 1 + 1e-9
    assert g["nesum"] <= g["participation_ratio"] * slack <= g["effective_rank"] * slack**2
    assert g["effective_rank"] <= min(num_classes - 1, dim) * slack
    assert g["feature_nesum"] <= g["feature_participation_ratio"] * slack <= g["feature_effective_rank"] * slack**2
    tight = math.sqrt(max(0.0, 2 - 2 * math.sqrt(g["participation_ratio"] / dim)))
    assert g["nc2_tight_frame"] == pytest.approx(tight, abs=1e-7)
    for key in ("nc2_equiangular", "nc2_etf", "nc2_tight_frame", "nc2_max_cosine"):
        goal = ideal(key, num_classes, dim)
        if goal is not None:
            assert g[key] >= goal.value - 1e-9


def test_floors_are_met_by_a_polygon_and_an_orthoplex():
    angles = torch.arange(7) * (2 * math.pi / 7)
    polygon = measure(torch.stack([angles.cos(), angles.sin()], 1), torch.arange(7))
    assert polygon["nc2_etf"] == pytest.approx(ideal("nc2_etf", 7, 2).value, abs=1e-6)
    assert polygon["nc2_equiangular"] == pytest.approx(equiangular_floor(7, 2), abs=1e-6)
    assert polygon["nc2_tight_frame"] == pytest.approx(0, abs=1e-6)
    assert ideal("nc2_max_cosine", 7, 2) is None
    orthoplex = torch.cat([torch.eye(3), -torch.eye(3)])
    assert measure(orthoplex, torch.arange(6))["nc2_max_cosine"] == pytest.approx(ideal("nc2_max_cosine", 6, 3).value)


def umbrella(num_classes, dim, tilt):
    """Centered means: one opposite to all others, which form a polygon around its axis, or coincide on a line."""
    angles = torch.arange(num_classes - 1).double() * (2 * math.pi / (num_classes - 1))
    others = torch.stack([torch.ones_like(angles), tilt * angles.cos(), tilt * angles.sin()], 1)[:, :dim]
    return torch.cat([-others.sum(0, keepdim=True), others])


@pytest.mark.parametrize(("dim", "tilt"), [(1, 0.0), (2, 1.0), (3, 1.0)])
def test_unequal_norms_lower_the_spread_of_angles_so_that_it_has_no_ideal_beyond_a_simplex(dim, tilt):
    measured = measure(umbrella(20, dim, tilt), torch.arange(20))
    assert measured["zero_sum"] < 1e-12
    assert measured["nc2_equiangular"] < equiangular_floor(20, dim) - 0.01
    assert dim > 1 or measured["nc2_equiangular"] == pytest.approx(0.6)
    assert ideal("nc2_equiangular", 20, dim) is None
    assert ideal("nc2_equiangular", 20, 19).value == 0


@given(seed=st.integers(0, 2**31), num_classes=st.integers(2, 9), dim=st.integers(1, 9))
def test_centered_means_of_equal_norm_stay_above_the_floor_of_the_spread_of_angles(seed, num_classes, dim):
    generator = torch.Generator().manual_seed(seed)
    half = torch.nn.functional.normalize(torch.randn(num_classes, dim, generator=generator, dtype=torch.float64))
    z = torch.cat([half, -half])
    assert measure(z, torch.arange(len(z)))["nc2_equiangular"] >= equiangular_floor(len(z), dim) - 1e-9


@given(seed=st.integers(0, 2**31), num_classes=st.integers(2, 12), dim=st.integers(1, 6))
def test_norms_vary_most_for_two_opposite_means(seed, num_classes, dim):
    generator = torch.Generator().manual_seed(seed)
    largest = math.sqrt(num_classes / 2 - 1)
    scale = torch.rand(num_classes, 1, generator=generator, dtype=torch.float64) ** 9
    z = scale * torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)
    assert measure(z, torch.arange(num_classes))["nc2_equinorm"] <= largest + 1e-9
    opposite = torch.zeros(num_classes, dim, dtype=torch.float64)
    opposite[:2, 0] = torch.tensor([1.0, -1.0])
    assert measure(opposite, torch.arange(num_classes))["nc2_equinorm"] == pytest.approx(largest, abs=1e-9)


@pytest.mark.parametrize("dim", [9, 30])
def test_the_number_of_dimensions_in_use_has_no_ideal_where_noise_decides_it(dim):
    labels = torch.arange(10).repeat(20)
    z = simplex_etf(10, dim).double()[labels]
    z = z + 0.01 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = measure(z, labels)
    assert ideal("nc1", 10, dim).met(measured["nc1"])
    assert measured["feature_rank"] == dim
    goal = ideal("feature_rank", 10, dim)
    assert goal is None if dim > 9 else goal.met(measured["feature_rank"])


def test_uniformity_at_neural_collapse_and_in_strips(monkeypatch):
    z = simplex_etf(10, 9)[torch.arange(10).repeat(20)]
    q = 19 / 199
    expected = math.log(q + (1 - q) * math.exp(-40 / 9))
    assert uniformity(z).item() == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr("nc_lightning.geometry.spread.PAIRS_AT_ONCE", 1000)
    assert uniformity(z).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="z: got 1 samples, expected at least 2"):
        uniformity(z[:1])


def test_ideal_collapse_meets_every_ideal_and_one_wrong_label_breaks_nc1():
    labels = torch.arange(10).repeat(20)
    z = simplex_etf(10, 9)[labels]
    geometry = measure(z, labels)
    for key, value in geometry.items():
        goal = ideal(key, 10, 9)
        assert goal is None or goal.met(value), (key, value)
    labels[0] = 1
    wrong = measure(z, labels)
    assert not ideal("nc1", 10, 9).met(wrong["nc1"] * 10)
    assert wrong["ncc_accuracy"] == pytest.approx(199 / 200)
    assert wrong["within_class_variation"] > 0.01


def test_an_empty_set_gives_nan_without_an_error():
    values = statistics_measures(ClassStatistics(3, 2))
    assert all(math.isnan(float(value)) for value in values.values())
    with pytest.raises(ValueError, match="z: got 0 samples"):
        measure(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize(
    ("labels", "features", "message"),
    [
        ([0, 0, 1, 1], "random", ""),
        ([], "random", "there is no sample, so that every measure is NaN"),
        ([0, 0, 3, 3], "random", "2 of 4 classes are absent, measures run over the others"),
        ([0, 0, 1], "random", "1 class has a single sample and no variance within, which lowers nc1 and cdnv"),
        ([0, 0], "random", "there is a single class, so that measures between classes are NaN"),
        ([0, 0, 1, 1], "equal", "all class means coincide, so that nc1 is infinite or NaN and nc2 is NaN"),
    ],
)
def test_undefined_and_misleading_measures_are_warned_about(labels, features, message):
    labels = torch.tensor(labels, dtype=torch.long)
    z = torch.randn(len(labels), 3) if features == "random" else torch.ones(len(labels), 3)
    num_classes = int(labels.max()) + 1 if len(labels) else 2
    assert caveats(ClassStatistics(num_classes, 3).update(z, labels)) == message
    if message and len(labels):
        with pytest.warns(UserWarning, match=f"measure: {message}"):
            measure(z, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_measured_without_rounding(dtype):
    labels = torch.arange(5).repeat(20)
    z = (simplex_etf(5, 8)[labels] + 0.05 * torch.randn(100, 8)).to(dtype)
    assert measure(z, labels) == pytest.approx(measure(z.double(), labels), rel=1e-12)


def test_one_class_has_no_between_class_measure():
    geometry = measure(torch.randn(10, 3), torch.zeros(10, dtype=torch.long), num_classes=4)
    assert geometry["effective_rank"] == 0
    assert math.isinf(geometry["nc1"])
    assert math.isnan(geometry["nc2_etf"])


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 12), columns=st.integers(1, 12))
def test_ranks_are_ordered_and_agree_with_the_definition(seed, rows, columns):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    singular = np.linalg.svd(matrix.numpy(), compute_uv=False)
    assert effective_rank(matrix).item() == pytest.approx(entropy_rank(singular))
    assert participation_ratio(matrix) <= effective_rank(matrix) + 1e-9 <= min(rows, columns) + 2e-9
    assert rankme(matrix).item() == pytest.approx(effective_rank(matrix).item(), rel=1e-4)


def test_ranks_of_a_zero_matrix_are_zero():
    for rank in (effective_rank, participation_ratio, rankme):
        assert rank(torch.zeros(4, 3)).item() == 0


@given(seed=st.integers(0, 2**31), num_classes=st.integers(2, 8), feature_dim=st.integers(1, 10))
def test_etf_distance_is_a_function_of_the_participation_ratio(seed, num_classes, feature_dim):
    z = torch.randn(num_classes, feature_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    geometry = measure(z, torch.arange(num_classes))
    expected = math.sqrt(max(0.0, 2 - 2 * math.sqrt(geometry["participation_ratio"] / (num_classes - 1))))
    assert geometry["nc2_etf"] == pytest.approx(expected, abs=1e-7)
