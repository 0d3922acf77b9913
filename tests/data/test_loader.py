import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn
from torchvision.transforms import v2

from nc_lightning import HSCL
from nc_lightning.data import ArrayDataModule, ClassBalancedBatchSampler, DigitsDataModule, SimCLR
from nc_lightning.data.loader import BatchLoader, LabeledTensors
from nc_lightning.data.views import Views
from nc_lightning.encoders import MLP
from tests.on_processes import on_processes

LABELS = torch.arange(4).repeat(10)
IMAGES = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def loader(views=None, num_workers=0, epoch=0, rank=0, ranks=1, seed=0):
    sampler = ClassBalancedBatchSampler(LABELS, 8, seed, num_replicas=ranks, rank=rank)
    sampler.set_epoch(epoch)
    views = views or Views(2, SimCLR())
    return BatchLoader(LabeledTensors(IMAGES, LABELS), sampler, views, num_workers=num_workers)


def flat(batches):
    return [tensor for (views, labels) in batches for tensor in (*views, labels)]


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, flat(first), flat(second)))


def test_workers_load_the_same_batches_as_one_process():
    assert same(list(loader()), list(loader(num_workers=2)))


def test_no_two_batches_of_a_run_share_random_numbers():
    seeds = []

    class Recorder(SimCLR):
        def __call__(self, x, generator=None):
            seeds.append(generator.initial_seed())
            return super().__call__(x, generator)

    for epoch in range(3):
        for rank in range(2):
            for num_workers in (0, 1):
                list(loader(Views(1, Recorder()), num_workers, epoch, rank, ranks=2))
    assert len(seeds) == 2 * 3 * 2 * 2
    assert len(set(seeds)) == 3 * 2 * 2  # the workers change nothing
    list(loader(Views(1, Recorder()), seed=1))
    assert len(set(seeds)) == 3 * 2 * 2 + 5
    first, second = loader(Views(2, SimCLR())).views(IMAGES, torch.Generator().manual_seed(0))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("stop", [0, 2, 4])
def test_the_loader_resumes_in_mid_epoch(stop):
    whole, later = list(loader(epoch=3)), list(loader(epoch=4))
    begun = loader(epoch=3)
    iterator = iter(begun)
    for _ in range(stop):
        next(iterator)
    resumed = loader(epoch=3)
    resumed.load_state_dict(begun.state_dict())
    assert same(list(resumed), whole[stop:])
    resumed.sampler.set_epoch(4)
    assert same(list(resumed), later)
    # limit_train_batches may end an epoch before its last batch; the next epoch is complete.
    over = loader(epoch=4)
    over.load_state_dict(begun.state_dict())
    assert same(list(over), later)


def test_views_can_be_made_by_a_custom_transform():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    views = Views(2, v2.RandomHorizontalFlip(0.5))
    first, second = list(loader(views)), list(loader(views))
    assert same(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first[0][0][0], first[0][0][1])
    always = Views(1, v2.RandomHorizontalFlip(1.0), torch.full((3,), 0.5), torch.full((3,), 0.25))
    assert torch.allclose(always(IMAGES), ((IMAGES / 255).flip(3) - 0.5) / 0.25)


class _StopAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
            raise KeyboardInterrupt


def fit(tmp_path, *callbacks, ckpt_path=None, make=DigitsDataModule):
    seed_everything(0)
    data = make()
    model = HSCL(encoder=MLP(data.input_shape, [16]), num_classes=data.num_classes)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return model, trainer


def images(tmp_path):
    import numpy as np

    x, y = IMAGES.permute(0, 2, 3, 1).numpy(), LABELS.numpy()
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return lambda: ArrayDataModule(str(tmp_path / "images.npz"), views=2, augmentation=SimCLR(), batch_size=8)


@pytest.mark.parametrize("kind", ["digits", "augmented"])
def test_a_run_stopped_in_mid_epoch_ends_with_the_same_weights(tmp_path, kind):
    make = images(tmp_path) if kind == "augmented" else DigitsDataModule
    whole, _ = fit(tmp_path, make=make)
    steps_per_epoch = 4 if kind == "augmented" else 5
    path = tmp_path / "stopped.ckpt"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, _StopAt(steps_per_epoch + 2, path), make=make)
    resumed, trainer = fit(tmp_path, ckpt_path=path, make=make)
    assert trainer.global_step == 3 * steps_per_epoch
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_overfit_batches_repeats_its_batches(tmp_path):
    seen = []

    class Recorder(nn.Module):
        out_features = 64

        def forward(self, x):
            if self.training:
                seen.append(x.sum().item())
            return x.flatten(1)

    data = DigitsDataModule(batch_size=100)
    model = HSCL(encoder=Recorder(), num_classes=10)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=2, overfit_batches=2, enable_checkpointing=False, **quiet)
    with pytest.warns(UserWarning, match="overfit"):
        trainer.fit(model, data)
    assert len(seen) == 4
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


def _batches(rank):
    data = DigitsDataModule(batch_size=100)
    data.setup()
    loaders = {name: getattr(data, f"{name}_dataloader")() for name in ("train", "val", "geometry")}
    return {name: list(loader) for name, loader in loaders.items()}


@pytest.mark.slow
def test_two_processes_share_the_batches_of_one(gloo):
    first, second = on_processes(2, _batches)
    alone = DigitsDataModule(batch_size=200)
    alone.setup()
    for a, b, (x, labels) in zip(first["train"], second["train"], alone.train_dataloader(), strict=True):
        assert len(a[1]) == len(b[1]) == 100
        # Batches are distributed round-robin, so that both processes get every class equally often.
        assert torch.equal(torch.stack([a[0], b[0]], 1).flatten(0, 1), x)
        assert torch.equal(torch.stack([a[1], b[1]], 1).flatten(), labels)
        assert a[1].bincount().tolist() == b[1].bincount().tolist() == [10] * 10
    for name in ("val", "geometry"):
        seen = sorted(row.sum().item() for share in (first, second) for x, _ in share[name] for row in x)
        whole = [row.sum().item() for x, _ in getattr(alone, f"{name}_dataloader")() for row in x]
        assert seen == sorted(whole)  # each input once: nothing is padded
