import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from nc_lightning import SCL
from nc_lightning.callbacks import CollapseWatch, GeometryMonitor
from nc_lightning.cli import main
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import Ideal

TRAINER = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), current_epoch=4)
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def measured(rank, num_classes=11, feature_dim=20, own=None):
    statistics = SimpleNamespace(num_classes=num_classes, feature_dim=feature_dim)
    measurement = {"results": {"train": {"effective_rank": rank}}, "statistics": {"train": statistics}}
    return SimpleNamespace(epoch=5, own_ideals=lambda module: own or {}, **measurement)


def warnings_at(watch, ranks, trainer=TRAINER, **kwargs):
    """Return the indices of the measurements at which the watch warns."""
    told = []
    for index, rank in enumerate(ranks):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.on_geometry_measured(trainer, None, measured(rank, **kwargs))
        told += [index] * len(caught)
    return told


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([6.9, 6.9, 6.9, 6.9, 6.9], [2]),  # once
        ([7.0] * 5, []),
        ([6.9, 6.9, 7.1, 6.9, 6.9], []),  # not in a row
        ([6.9, float("nan"), 6.9, 6.9], [3]),  # undefined counts as neither
    ],
)
def test_it_warns_once_when_the_rank_stays_low(ranks, told):
    assert warnings_at(CollapseWatch(share=0.7, patience=3), ranks) == told


def test_the_ideal_rank_is_limited_by_the_dimension():
    assert warnings_at(CollapseWatch(patience=1), [3.0], num_classes=11, feature_dim=4) == []
    assert warnings_at(CollapseWatch(patience=1), [3.0], num_classes=11, feature_dim=5) == [0]


def test_a_minimum_with_few_dimensions_is_not_dimensional_collapse():
    own = {"effective_rank": Ideal(3.2, 0.1, "3.2")}
    assert warnings_at(CollapseWatch(patience=1), [2.3], own=own) == []
    assert warnings_at(CollapseWatch(patience=1), [2.2], own=own) == [0]
    with pytest.warns(UserWarning, match=r"use 2\.2 of 3\.2 dimensions"):
        CollapseWatch(patience=1).on_geometry_measured(TRAINER, None, measured(2.2, own=own))


def test_the_warning_gives_the_rank_and_the_remedy():
    with pytest.warns(UserWarning, match="dimensional collapse") as caught:
        CollapseWatch(patience=1).on_geometry_measured(TRAINER, None, measured(2.04))
    text = str(caught[0].message)
    for part in ("at epoch 5", "use 2.0 of 10 dimensions", "70%", "beta", "unit_ball", "balanced", "learning rate"):
        assert part in text


def test_only_measurements_of_training_count():
    validating = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.VALIDATING), current_epoch=0)
    assert warnings_at(CollapseWatch(patience=1), [1.0], validating) == []
    unlabeled = SimpleNamespace(results={"train": {"feature_effective_rank": 1.0}}, statistics={})
    CollapseWatch(patience=1).on_geometry_measured(TRAINER, None, unlabeled)
    CollapseWatch(patience=1).on_geometry_measured(TRAINER, None, SimpleNamespace(results={}, statistics={}))


def test_the_count_survives_a_checkpoint():
    watch, resumed = CollapseWatch(patience=3), CollapseWatch(patience=3)
    assert warnings_at(watch, [1.0, 1.0]) == []
    resumed.load_state_dict(watch.state_dict())
    assert warnings_at(resumed, [1.0, 1.0]) == [0]
    again = CollapseWatch(patience=3)
    again.load_state_dict(resumed.state_dict())
    assert warnings_at(again, [1.0] * 4) == []


def test_a_run_that_collapses_is_warned_about():
    data = DigitsDataModule(batch_size=100)
    model = SCL(encoder=MLP(data.input_shape, [8]), num_classes=10, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    with torch.no_grad():
        model.projector.weight[3:] = 0
        model.projector.bias.zero_()
    trainer = Trainer(max_epochs=4, limit_train_batches=1, callbacks=[GeometryMonitor(), CollapseWatch()], **QUIET)
    with pytest.warns(UserWarning, match=r"dimensional collapse: at epoch 3 .* of 9 dimensions") as caught:
        trainer.fit(model, data)
    assert sum("dimensional collapse" in str(warning.message) for warning in caught) == 1


@pytest.mark.slow
def test_nc_train_watches_for_collapse_and_is_silent_in_a_good_run(in_tmp):
    options = ["--trainer.max_epochs=6", "--geometry.every_n_epochs=2", "--trainer.enable_progress_bar=false"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cli = main(["fit", "--config=hscl.yaml", "--trainer.logger=false", *options])
    assert any(isinstance(callback, CollapseWatch) for callback in cli.trainer.callbacks)
    assert not [warning for warning in caught if "dimensional collapse" in str(warning.message)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 0}, "share: got 0, expected a finite number > 0"),
        ({"share": 1.5}, "share: got 1.5, expected one of the ideal rank in"),
        ({"patience": 0}, "patience: got 0, expected an integer >= 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CollapseWatch(**arguments)
