import pytest
import torch

from nc_lightning.data import concatenate_views


def test_a_single_view_is_unchanged():
    x, y = torch.randn(4, 2), torch.arange(4)
    for batch in ((x, y), [x, y], ((x,), y)):
        assert concatenate_views(batch)[:2] == (x, y)
        assert concatenate_views(batch)[2].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3), "batch: got a Tensor, expected"),
        ((torch.zeros(3),), "batch: got a tuple of 1, expected"),
        ((torch.zeros(3), [1, 2, 3]), "batch: got labels of type list"),
        ((torch.zeros(3), torch.zeros(2)), "batch: got views of 3 inputs and 2 labels"),
        (((torch.zeros(2), torch.zeros(3)), torch.zeros(2)), "batch: got views of 2, 3 inputs and 2 labels"),
        (((), torch.zeros(2)), "batch: got views of none inputs"),
    ],
)
def test_bad_batches_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        concatenate_views(batch)
