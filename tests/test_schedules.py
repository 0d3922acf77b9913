import pytest
import torch

from nc_lightning.schedules import HoldThenDecay


def rates(total_steps, steps, state=None):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = HoldThenDecay(optimizer, 0.5, total_steps)
    if state is not None:
        schedule.load_state_dict(state)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen, schedule


def test_holds_then_falls_to_zero():
    seen, schedule = rates(total_steps=8, steps=8)
    assert seen == pytest.approx([2, 2, 2, 2, 2, 1.5, 1, 0.5])
    assert schedule.get_last_lr() == [0]


def test_a_longer_training_can_take_over():
    _, schedule = rates(total_steps=4, steps=4)
    seen, _ = rates(total_steps=8, steps=4, state=schedule.state_dict())
    assert seen[1:] == pytest.approx([1.5, 1, 0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.5, 0), "total_steps: got 0"), ((1.0,), "hold: got 1.0, expected a share"), ((-1,), "hold: got -1")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        HoldThenDecay(torch.optim.SGD([torch.zeros(1)], lr=1.0), *arguments)


def test_nobody_told_the_length():
    with pytest.raises(ValueError, match="total_steps: got None outside of an objective"):
        rates(total_steps=None, steps=1)
