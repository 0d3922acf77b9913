"""The monitor measures the samples that training uses, with any sampler, and does not change their order."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.data import ClassBalancedBatchSampler
from nc_lightning.geometry import measure

N = 60
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 4
KEPT = sorted(torch.randperm(N, generator=torch.Generator().manual_seed(1))[:40].tolist())
WEIGHTS = torch.zeros(N).index_fill(0, torch.tensor(KEPT), 0.5)


class Unsized(Sampler):
    """A third-party sampler with its own generator and without a length."""

    def __init__(self, batch=None):
        self.generator, self.batch = torch.Generator().manual_seed(3), batch

    def __iter__(self):
        order = torch.tensor(KEPT)[torch.randperm(len(KEPT), generator=self.generator)]
        yield from order.split(self.batch) if self.batch else order.tolist()


class Own(Unsized):
    def __len__(self):
        return len(KEPT) // (self.batch or 1)


class Endless(Unsized):
    def __iter__(self):
        while True:
            yield from super().__iter__()


class Theirs(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return x

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


SET = TensorDataset(X, Y)


class Filtered(BatchSampler):
    """Extends the sampler of torch and yields a part of its indices."""

    def __iter__(self):
        for batch in super().__iter__():
            if kept := [index for index in batch if index in KEPT]:
                yield kept


class FilteredSubset(SubsetRandomSampler):
    def __iter__(self):
        return (index for index in super().__iter__() if index in KEPT)


SET_OF_KEPT = TensorDataset(X[KEPT], Y[KEPT])
LOADERS = {
    "subset": lambda: DataLoader(SET, 8, sampler=SubsetRandomSampler(KEPT)),
    "subset in batches": lambda: DataLoader(SET, batch_sampler=BatchSampler(SubsetRandomSampler(KEPT), 8, True)),
    "weights": lambda: DataLoader(SET, 8, sampler=WeightedRandomSampler(WEIGHTS, 200)),
    "list": lambda: DataLoader(SET, 8, sampler=KEPT),
    "own": lambda: DataLoader(SET, 8, sampler=Own()),
    "own in batches": lambda: DataLoader(SET, batch_sampler=Own(batch=8)),
    "own, tensors of indices": lambda: DataLoader(SET, batch_size=None, sampler=Own(batch=8)),
    "slices": lambda: DataLoader(SET_OF_KEPT, batch_size=None, sampler=[slice(0, 8), slice(8, 40)]),
    "ranges": lambda: DataLoader(SET_OF_KEPT, batch_size=None, sampler=[range(20), range(20, 40)]),
    "a batch sampler that filters": lambda: DataLoader(SET, batch_sampler=Filtered(RandomSampler(SET), 8, False)),
    "a subset that filters": lambda: DataLoader(SET, 8, sampler=FilteredSubset(range(N))),
    "own without length": lambda: DataLoader(SET, 8, sampler=Unsized()),
    "endless": lambda: DataLoader(SET, 8, sampler=Endless()),
    "subset of the data": lambda: DataLoader(Subset(SET, KEPT), 8, shuffle=True),
}
FIRST = {
    "random order of the first": lambda: DataLoader(SET, 8, sampler=RandomSampler(range(40))),
    "the first in order": lambda: DataLoader(SET, 8, sampler=SequentialSampler(range(40))),
}
WHOLE = {
    "some in each epoch": lambda: DataLoader(SET, 8, sampler=RandomSampler(SET, num_samples=24)),
    "dropped rests": lambda: DataLoader(SET, 7, shuffle=True, drop_last=True),
    "balanced": lambda: DataLoader(SET, batch_sampler=ClassBalancedBatchSampler(Y, 8)),
}


class Order(Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch[0].clone())


def fit(loader, *callbacks):
    torch.manual_seed(0)
    order = Order()
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    limit = {} if hasattr(loader.sampler, "__len__") or loader.batch_size is None else {"limit_train_batches": 5}
    trainer = Trainer(max_epochs=2, callbacks=[order, *callbacks], enable_checkpointing=False, **limit, **options)
    trainer.fit(Theirs(), loader)
    return torch.cat(order.batches)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*LOADERS, *FIRST, *WHOLE])
def test_each_training_sample_is_measured_once(name):
    monitor = GeometryMonitor(num_classes=4)
    kept = KEPT if name in LOADERS else list(range(40 if name in FIRST else N))
    loaders = LOADERS | FIRST | WHOLE
    trained = fit(loaders[name](), monitor)
    assert monitor.statistics["train"].num_samples == len(kept)
    assert monitor.results["train"] == pytest.approx(measure(X[kept], Y[kept]), rel=1e-9, abs=1e-12)
    assert torch.equal(trained, fit(loaders[name]())), "training must read the same batches without a monitor"


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_a_sampler_that_cannot_be_copied_is_reported():
    class Locked(Own):
        def __deepcopy__(self, memo):
            raise TypeError("no")

    monitor = GeometryMonitor(num_classes=4)
    with pytest.warns(UserWarning, match="could not copy the sampler Locked .* measuring all 60 samples"):
        fit(DataLoader(SET, 8, sampler=Locked()), monitor)
    assert monitor.statistics["train"].num_samples == N
