import warnings

import pytest
import torch

from nc_lightning.data import augmentation
from tests.pretend_device import DEVICE, Generator


@pytest.fixture(autouse=True)
def _pretend(monkeypatch):
    """Use generators of the pretend device; without torch's hook, only `test_torch_has_the_hook` fails."""
    if DEVICE is None:
        pytest.skip("this torch does not support devices made in Python: see test_torch_has_the_hook")
    monkeypatch.setattr(torch, "Generator", Generator)
    # A DataLoader pins memory in a thread, in which no `Machine` is active.
    monkeypatch.setattr(torch.utils.data._utils.pin_memory, "pin_memory", lambda data, device=None: data)
    warnings.filterwarnings("ignore")
    yield
    for cached in (
        augmentation.constant,
        augmentation._pixels,
        augmentation._gaussian_exponents,
        augmentation._color_basis,
    ):
        cached.cache_clear()  # tensors of a machine without values have only a shape
