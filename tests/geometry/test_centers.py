import pytest
import torch

from nc_lightning.geometry import CenterDistances, ClassStatistics, ncc_accuracy, simplex_etf


def test_held_out_samples_are_classified_by_the_given_centers():
    labels = torch.arange(3).repeat(5)
    centers = ClassStatistics(3, 2).update(simplex_etf(3, 2)[labels], labels)
    swapped = labels.roll(1)
    assert ncc_accuracy(CenterDistances(centers).update(simplex_etf(3, 2)[labels], labels)) == 1
    assert ncc_accuracy(CenterDistances(centers).update(simplex_etf(3, 2)[labels], swapped)) == 0


def test_a_common_offset_does_not_flip_decisions():
    labels = torch.arange(10).repeat(5)
    z = 1e-3 * simplex_etf(10, 9)[labels] + 1e5
    stats = ClassStatistics(10, 9).update(z, labels)
    assert ncc_accuracy(CenterDistances(stats).update(z, labels)) == 1


def test_absent_classes_are_not_candidates():
    stats = ClassStatistics(3, 1).update(torch.tensor([[5.0], [9.0]]), torch.tensor([0, 2]))
    seen = CenterDistances(stats).update(torch.tensor([[0.1]]), torch.tensor([0]))  # nearer to the origin than to 5
    assert ncc_accuracy(seen) == 1


def test_missing_centers_are_refused():
    with pytest.raises(ValueError, match="centers: got statistics without a sample"):
        CenterDistances(ClassStatistics(3, 2))
