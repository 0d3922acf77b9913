import itertools
import math

import pytest
import torch

from nc_lightning.geometry import scl_lower_bound, scl_optimum, ucl_lower_bound
from nc_lightning.losses import InfoNCE

# Closed forms, to twelve and nine digits.
SCL = {2: 0.126928011043, 3: 0.201413277983, 10: 0.284571981986, 100: 0.310555122080, 1000: 0.312992575374}
UCL = {
    (3, 1): 0.365324579, (3, 2): 0.378624835, (3, 3): 0.383436067, (3, 256): 0.393331836, (3, None): 0.393451077,
    (10, 1): 0.325429502, (10, 2): 0.329159672, (10, 256): 0.333766501, (10, None): 0.333807037,
    (100, 1): 0.314381043, (100, 3): 0.314882010, (100, 256): 0.315200936, (100, None): 0.315205093,
}  # fmt: skip


@pytest.mark.parametrize("num_classes", SCL)
def test_scl(num_classes):
    assert scl_lower_bound(num_classes) == pytest.approx(SCL[num_classes], abs=1e-12)
    assert scl_lower_bound(num_classes, num_negatives=256) == scl_lower_bound(num_classes)


def test_scl_at_another_temperature():
    assert scl_lower_bound(100, temperature=0.5) == pytest.approx(0.124541186670, abs=1e-12)


@pytest.mark.parametrize(("num_classes", "num_negatives"), UCL)
def test_ucl(num_classes, num_negatives):
    assert ucl_lower_bound(num_classes, num_negatives=num_negatives) == pytest.approx(
        UCL[num_classes, num_negatives], abs=1e-9
    )


@pytest.mark.parametrize(("num_classes", "k"), [(2, 1), (3, 2), (4, 3)])
def test_ucl_by_enumeration_of_the_negatives_classes(num_classes, k):
    u = -num_classes / (num_classes - 1)
    total = 0.0
    for classes in itertools.product(range(num_classes), repeat=k):  # the anchor is of class 0
        total += math.log(1 + sum(1.0 if c == 0 else math.exp(u) for c in classes) / k) / num_classes**k
    assert ucl_lower_bound(num_classes, num_negatives=k) == pytest.approx(total, abs=1e-12)


def test_many_negatives_tend_to_the_limit():
    assert ucl_lower_bound(10, num_negatives=20_000) == pytest.approx(ucl_lower_bound(10), abs=1e-6)


def test_collision_of_a_batch():
    assert ucl_lower_bound(10, collision=7 / 79) == pytest.approx(0.328318790, abs=1e-9)
    assert ucl_lower_bound(10, num_negatives=3, collision=0) == pytest.approx(scl_lower_bound(10))
    assert ucl_lower_bound(10, num_negatives=3, collision=1) == pytest.approx(math.log(2))


@pytest.mark.parametrize("bound", [scl_lower_bound, ucl_lower_bound])
def test_bad_arguments_are_refused(bound):
    with pytest.raises(ValueError, match="num_classes: got 1"):
        bound(1)
    with pytest.raises(ValueError, match="temperature: got 0"):
        bound(3, temperature=0)
    with pytest.raises(ValueError, match="num_negatives: got 0"):
        bound(3, num_negatives=0)
    with pytest.raises(ValueError, match=r"collision: got 1.5, expected a probability"):
        ucl_lower_bound(3, collision=1.5)


def test_too_few_dimensions_are_refused():
    assert scl_lower_bound(10, feature_dim=9) == scl_lower_bound(10)
    for bound in (scl_lower_bound, ucl_lower_bound):
        with pytest.raises(ValueError, match="feature_dim: got 8, expected at least 9 for 10 classes: no simplex"):
            bound(10, feature_dim=8)


def test_unbalanced_classes_are_refused_except_for_one_unsupervised_negative():
    equal, skewed = [0.25] * 4, (0.5, 0.3, 0.2)
    assert scl_lower_bound(4, priors=equal) == scl_lower_bound(4)
    assert ucl_lower_bound(4, priors=equal) == ucl_lower_bound(4)
    assert ucl_lower_bound(3, num_negatives=1, priors=skewed) == pytest.approx(0.376078, abs=1e-6)
    assert scl_lower_bound(3, priors=skewed) == scl_optimum(skewed).loss < scl_lower_bound(3)
    for k in (None, 2):
        with pytest.raises(ValueError, match="expected equal ones; others have a bound for num_negatives=1 only"):
            ucl_lower_bound(3, num_negatives=k, priors=skewed)
    for wrong in ([0.5, 0.5], [0.5, 0.6, -0.1], [0.5, 0.3, 0.1]):
        with pytest.raises(ValueError, match="expected 3 probabilities that sum to 1"):
            scl_lower_bound(3, priors=wrong)


def test_unbalanced_classes_can_fall_below_the_bound():
    similarity = torch.tensor([[1.0, -1, -1], [-1, 1, 1], [-1, 1, 1]])  # two small classes share a mean
    priors = torch.tensor([0.98, 0.01, 0.01])
    value = 0.0
    for anchor in range(3):
        for negative in set(range(3)) - {anchor}:
            weight = priors[anchor] * priors[negative] / (1 - priors[anchor])
            value += weight.item() * math.log1p(math.exp(similarity[anchor, negative] - 1))
    assert value == pytest.approx(0.127042, abs=1e-6)
    assert value < scl_lower_bound(3, num_negatives=1)
    assert value >= scl_lower_bound(3, num_negatives=1, priors=priors.double().tolist())


def test_counts_of_a_batch():
    assert scl_lower_bound(4, counts=[7, 7, 7, 7]) == scl_lower_bound(4)
    assert scl_lower_bound(3, counts=[4, 2, 1]) == scl_optimum(counts=[4, 2, 1]).loss
    assert scl_lower_bound(4, counts=[4, 2, 0, 1]) == scl_optimum(counts=[4, 2, 1]).loss
    summed = InfoNCE("sum")
    assert scl_lower_bound(3, counts=[5, 5, 5], link=summed) == scl_lower_bound(3, num_negatives=10, link=summed)
    with pytest.raises(ValueError, match="counts: got 2 numbers, expected one for each of the 3 classes"):
        scl_lower_bound(3, counts=[5, 5])
    with pytest.raises(ValueError, match="priors, counts: got both or none of them, expected one"):
        scl_lower_bound(2, priors=[0.5, 0.5], counts=[5, 5])


def test_positives_by_view_are_refused():
    assert ucl_lower_bound(4, positives="label") == ucl_lower_bound(4)
    with pytest.raises(ValueError, match="positives: got 'view', expected 'label'"):
        ucl_lower_bound(4, positives="view")
