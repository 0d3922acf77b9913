import contextlib
import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nc_lightning.losses import ContrastiveLoss, Hardening, HSCLLoss, InfoNCE, SCLLoss
from nc_lightning.losses.engines.division import Division
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


def test_small_losses_are_not_divided():
    torch.set_num_threads(3)
    large = torch.empty(2897, 0)
    assert num_threads(large, large) == 3
    assert num_threads(large[:-1], large[:-1]) == 1


@pytest.mark.parametrize(("available", "size"), [(1, 1), (2, 2), (8, 8), (11, 5), (12, 6), (15, 5), (64, 8)])
def test_operations_divide_the_threads_that_are_left(available, size):
    torch.set_num_threads(available)
    large = torch.empty(2897, 0)
    assert num_threads(large, large) == size
    assert Team(size).run(lambda _: torch.get_num_threads()) == [available // size] * size
    assert torch.get_num_threads() == available


class Random(Hardening):
    """Draws random numbers, as a function of a user may."""

    def log_eta(self, similarity, negatives):
        return torch.rand_like(similarity)


def test_a_hardening_is_not_called_by_several_threads(data, started):
    torch.set_num_threads(2)
    values = [torch.manual_seed(0) and ContrastiveLoss(hardening=Random())(*data) for _ in range(2)]
    assert torch.equal(*values)
    assert started == []


def test_modes_and_profilers_see_all_operations(data):
    counts = []
    for count in (1, 2):
        torch.set_num_threads(count)
        with FlopCounterMode(display=False) as flops:
            HSCLLoss()(*data)
        with torch.profiler.profile() as profile:
            HSCLLoss()(*data)
        products = sum(event.count for event in profile.key_averages() if event.key == "aten::mm")
        counts.append((flops.get_total_flops(), products))
    assert counts[0][0] > 0
    assert counts[0][1] > 0
    assert counts[0] == counts[1]


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
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_an_error_in_one_thread_ends_all_and_is_raised(failing, error):
    def part(member):
        if member == failing:
            raise error("of one member")
        for _ in Division(member, 3, team).steps(itertools.count()):
            time.sleep(0.001)

    torch.set_num_threads(3)
    team, before = Team(3), threading.active_count()
    with pytest.raises(error, match="of one member"):
        team.run(part)
    assert torch.get_num_threads() == 3
    assert threading.active_count() == before


def test_a_thread_that_cannot_be_started_is_an_error(monkeypatch):
    start = threading.Thread.start

    def start_one(thread):
        monkeypatch.setattr(threading.Thread, "start", fail)
        start(thread)

    def fail(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start_one)
    torch.set_num_threads(3)
    team = Team(3)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        team.run(lambda member: team.sum_(torch.zeros(1), member))
    assert torch.get_num_threads() == 3


def test_an_error_holds_no_memory():
    held = []

    def part(member):
        large = torch.zeros(1)
        held.append(weakref.ref(large))
        raise ArithmeticError

    gc.disable()
    try:
        with contextlib.suppress(ArithmeticError):
            Team(2).run(part)
        assert [one() for one in held] == [None] * len(held)
        assert held
    finally:
        gc.enable()


def test_a_loss_after_the_end_of_the_main_thread(tmp_path):
    """Executors of the standard library accept nothing from then on."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import threading, torch
from nc_lightning.losses import SCLLoss
z, labels = torch.randn(2900, 2), torch.arange(2900) % 7
def late():
    threading.main_thread().join()
    torch.set_num_threads(2)
    print(SCLLoss()(z, labels).isfinite())
threading.Thread(target=late).start()
"""
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ended.stdout == "tensor(True)\n"


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
