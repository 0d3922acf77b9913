import threading

import pytest
import torch

from nc_lightning.losses import HSCLLoss, InfoNCE, SCLLoss
from nc_lightning.losses.engines import threads
from nc_lightning.losses.engines.threads import Team, num_threads

N, FEATURE_DIM, NUM_CLASSES = 2900, 4, 7
"""The fewest hundreds of samples that are divided."""


@pytest.fixture
def data():
    return torch.randn(N, FEATURE_DIM, dtype=torch.float64), torch.randint(0, NUM_CLASSES, (N,))


def value_and_gradient(loss, z, labels, count):
    torch.set_num_threads(count)
    leaf = z.clone().requires_grad_()
    value = loss(leaf, labels)
    value.backward()
    return value.detach(), leaf.grad


@pytest.fixture
def started(monkeypatch):
    """Sizes of the teams that have run."""
    sizes, run = [], Team.run
    monkeypatch.setattr(Team, "run", lambda team, part: (sizes.append(team.size), run(team, part))[1])
    return sizes


@pytest.mark.parametrize(
    "loss", [HSCLLoss(beta=5.0, temperature=0.5), SCLLoss(temperature=1e-3)], ids=["triangle", "row blocks"]
)
def test_threads_compute_the_value_and_gradient_of_one(data, started, loss):
    expected = value_and_gradient(loss, *data, 1)
    assert started == []
    actual = [value_and_gradient(loss, *data, count) for count in (2, 3, 3)]
    assert torch.get_num_threads() == 3
    assert started == [2, 3, 3]
    for one in actual:
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(actual[1], actual[2], strict=True)), "runs of equal threads differ"


def test_small_losses_and_other_devices_are_not_divided():
    torch.set_num_threads(3)
    large = torch.empty(2897, 0)
    assert num_threads(large, large) == 3
    assert num_threads(large[:-1], large[:-1]) == 1
    assert num_threads(large.to("meta"), large.to("meta")) == 1
    torch.set_num_threads(64)
    assert num_threads(large, large) == threads.MOST_THREADS


def test_operations_divide_the_threads_that_are_left():
    torch.set_num_threads(5)
    assert Team(2).run(lambda _: torch.get_num_threads()) == [2, 2]
    assert torch.get_num_threads() == 5


def test_sums_do_not_depend_on_which_thread_is_first():
    def part(member):
        values, totals = torch.tensor([[1e16, 1.0, -1e16][member]] * 2), []
        for _ in range(20):
            total = values.clone()
            team.sum_(total, member)
            totals.append(total)
            values += 0.5
        return torch.stack(totals)

    team = Team(3)
    one, *others = team.run(part)
    assert all(torch.equal(one, other) for other in others)
    torch.testing.assert_close(one[0], torch.tensor([1e16, 1.0, -1e16]).sum().expand(2))


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_one_thread_ends_all_and_is_raised(failing):
    def part(member):
        if member == failing:
            raise ArithmeticError("of one member")
        team.sum_(torch.zeros(1), member)

    torch.set_num_threads(3)
    team = Team(3)
    with pytest.raises(ArithmeticError, match="of one member"):
        team.run(part)
    assert torch.get_num_threads() == 3
    assert threading.active_count() < 10


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_threads_take_over_the_mode(data, started, mode):
    expected = value_and_gradient(HSCLLoss(), *data, 1)[0]
    torch.set_num_threads(2)
    with mode():
        value = HSCLLoss()(data[0].requires_grad_(), data[1])
        modes = Team(2).run(lambda _: (torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
    assert started == [2, 2]
    assert modes == [(False, mode is torch.inference_mode)] * 2
    assert not value.requires_grad
    torch.testing.assert_close(value, expected)


def test_losses_of_several_threads_of_a_user(data):
    """They would wait for each other forever if they shared a pool of workers."""
    loss = HSCLLoss(link=InfoNCE("sum"))
    expected = value_and_gradient(loss, *data, 3)
    found = []
    calls = [
        threading.Thread(target=lambda: found.append(value_and_gradient(loss, *data, 3)), daemon=True) for _ in range(4)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join(timeout=60)
    assert len(found) == 4
    for one in found:
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("error:Dynamo does not know")
def test_a_compiled_loss_is_divided(data, started):
    expected = value_and_gradient(HSCLLoss(), *data, 1)
    actual = value_and_gradient(torch.compile(HSCLLoss(), backend="eager"), *data, 2)
    assert started == [2]
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
