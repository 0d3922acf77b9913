import pytest
import torch
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from nc_lightning.distributed.batch_norm import BatchNormSync
from tests.on_processes import on_processes

SHAPES = {nn.BatchNorm1d: (12, 3), nn.BatchNorm2d: (12, 3, 4, 2), nn.BatchNorm3d: (12, 3, 2, 2, 2)}
DEALS = {2: [5, 7], 3: [1, 11, 0]}


def step(kind, options, synced, deal=None, rank=0):
    """Return outputs, gradients and running statistics of two training steps and one evaluation step."""
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(kind(3, **options)).double()
    model = BatchNormSync().apply(model) if synced else model
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(3, generator=generator, dtype=torch.float64))
    gradients, outputs = [], []
    for _ in range(2):
        x, weight = (torch.randn(SHAPES[kind], generator=generator, dtype=torch.float64) for _ in range(2))
        if deal is not None:
            x, weight = x.split(deal)[rank], weight.split(deal)[rank]
        x.requires_grad_()
        y = model(x)
        (y.sin() * weight).sum().backward()
        gradients.append(x.grad)
        outputs.append(y.detach())
    x = torch.ones_like(x)
    outputs.append(model.eval()(x).detach())
    parameters = [] if model[0].weight is None else [model[0].weight.grad, model[0].bias.grad]
    return outputs, gradients, parameters, [b.clone() for b in model.buffers()]


def _steps(rank, cases, deal, synced):
    return [step(*case, synced, deal, rank) for case in cases]


CASES = [(kind, {}) for kind in SHAPES] + [
    (nn.BatchNorm1d, {"affine": False}),
    (nn.BatchNorm1d, {"momentum": None}),
    (nn.BatchNorm2d, {"track_running_stats": False}),
]


def same(found, deal, expected):
    """Return whether the processes together equal one: shares concatenated, parameter gradients summed."""
    for i in range(3 if expected[3] else 2):  # without running statistics, evaluation normalizes each batch by itself
        if not torch.allclose(torch.cat([f[0][i] for f in found]), expected[0][i], rtol=0, atol=1e-12):
            return False
    for i in range(2):
        if not torch.allclose(torch.cat([f[1][i] for f in found]), expected[1][i], rtol=0, atol=1e-12):
            return False
    for i, gradient in enumerate(expected[2]):
        if not torch.allclose(sum(f[2][i] for f in found), gradient, rtol=0, atol=1e-12):
            return False
    return all(
        torch.allclose(f[3][i], buffer, rtol=0, atol=1e-12) for f in found for i, buffer in enumerate(expected[3])
    )


@pytest.mark.slow
@pytest.mark.parametrize("world_size", DEALS)
def test_several_processes_normalize_like_one(gloo, world_size):
    found = on_processes(world_size, _steps, CASES, DEALS[world_size], True)
    for i, case in enumerate(CASES):
        assert same([f[i] for f in found], DEALS[world_size], step(*case, synced=False)), case


@pytest.mark.slow
def test_unsynchronized_shares_are_normalized_differently(gloo):
    found = on_processes(2, _steps, CASES[:1], DEALS[2], False)
    assert not same([f[0] for f in found], DEALS[2], step(*CASES[0], synced=False))


def _half(rank):
    model = BatchNormSync().apply(nn.Sequential(nn.BatchNorm1d(3)))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(rank))
    with torch.autocast("cpu", torch.bfloat16):
        return model(x.bfloat16()), model(x)


@pytest.mark.slow
def test_half_precision_is_normalized_in_float32(gloo):
    for half, whole in on_processes(2, _half):
        assert half.dtype == torch.bfloat16
        assert torch.allclose(half.float(), whole, atol=0.05)


def test_one_process_normalizes_like_torch_and_conversion_is_reversible():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm1d(2, affine=False))
    keys, parameters = list(model.state_dict()), list(model.parameters())
    x = torch.randn(4, 3, 2, 2)
    expected = nn.Sequential(nn.BatchNorm2d(3))(x)
    synced = BatchNormSync().apply(model)
    assert type(synced[1]) is not nn.BatchNorm2d
    assert torch.equal(synced[1](x), expected)
    assert list(synced.state_dict()) == keys
    assert all(a is b for a, b in zip(synced.parameters(), parameters, strict=True))
    back = BatchNormSync().revert(synced)
    assert [type(module) for module in back] == [nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d]


def test_sync_batch_norm_of_torch_is_reverted_by_torch():
    model = TorchSyncBatchNorm().apply(nn.Sequential(nn.BatchNorm1d(3)))
    assert not isinstance(BatchNormSync().revert(model)[0], nn.SyncBatchNorm)
