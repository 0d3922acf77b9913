import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops_over_features import all_metrics, entropy_rank, make_cases

from nc_lightning.geometry import (
    ClassStatistics,
    effective_rank,
    ideal,
    measure,
    participation_ratio,
    rankme,
    simplex_etf,
    statistics_measures,
)

NAMES = {
    "nc1": "nc1_quotient_peer",
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
    "feature_effective_rank": "feat_erank_sigma_centred",
    "feature_participation_ratio": "feat_participation_ratio",
    "feature_nesum": "feat_nesum",
    "feature_stable_rank": "feat_stable_rank_uncentred",
    "feature_rank": "feat_rank_centred_1e-5",
    "feature_alpha_req": "feat_alpha_weighted",
    "rankme": "rankme",
    "ncc_accuracy": "ncc_accuracy_distance",
}
CASES = make_cases()


@pytest.mark.parametrize("name", CASES)
def test_reference_cases(name):
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


def test_ideal_collapse_meets_every_ideal_and_a_wrong_label_none_of_nc1():
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


def test_no_sample_is_nan_and_no_error():
    values = statistics_measures(ClassStatistics(3, 2))
    assert all(math.isnan(float(value)) for value in values.values())
    with pytest.raises(ValueError, match="z: got 0 samples"):
        measure(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))


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
