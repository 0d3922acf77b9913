import functools
import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL, HUCL, SCL, UCL
from nc_lightning.callbacks import HardNegativeSampler, NonFiniteGuard
from nc_lightning.data import DigitsDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP, ProjectionHead, ResNet
from nc_lightning.geometry import scl_lower_bound
from nc_lightning.losses import (
    DCLLoss,
    DHELLoss,
    HCLLoss,
    HSCLLoss,
    HUCLLoss,
    NTXentLoss,
    SCLLoss,
    SupConLoss,
    UCLLoss,
)
from nc_lightning.objectives import ContrastiveObjective
from nc_lightning.schedules import HoldThenDecay

OBJECTIVES = [(SCL, SCLLoss), (HSCL, HSCLLoss), (UCL, UCLLoss), (HUCL, HUCLLoss)]
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def make(objective=HSCL, **kwargs):
    return objective(**({"encoder": MLP((32,), (24,)), "num_classes": 10} | kwargs))


@pytest.mark.parametrize(("objective", "loss"), OBJECTIVES)
@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere", "none"])
def test_each_objective_trains_on_its_own_loss(objective, loss, normalization, tmp_path):
    model = make(objective, temperature=0.7, normalization=normalization)
    assert type(model.loss) is loss
    before = [p.clone() for p in model.parameters()]
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, LatentClassDataModule())
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
    assert metrics["loss/collapsed"] == pytest.approx(0.6931472)
    assert ("loss/bound" in metrics) == (normalization != "none" or objective is HUCL)
    if "loss/bound" in metrics:
        assert metrics["loss/optimality_gap"] == pytest.approx(metrics["loss/train"] - metrics["loss/bound"], abs=1e-6)
        assert metrics["loss/optimality_gap"] > 0
    unsupervised = objective in (UCL, HUCL)
    assert ("loss/neural_collapse" in metrics) == (unsupervised and normalization != "none")
    if objective is HUCL and normalization != "none":
        assert metrics["loss/neural_collapse"] > metrics["loss/bound"] + 0.01
    assert ("negatives/hardness" in metrics) == (objective in (HSCL, HUCL))
    assert ("negatives/effective" in metrics) == (objective in (HSCL, HUCL))
    assert ("negatives/false_share" in metrics) == (objective is HUCL)


def test_projections_are_normalized_and_have_c_minus_1_dimensions():
    z = make()(100 * torch.randn(6, 32))
    assert z.shape == (6, 9)
    assert (z.norm(dim=1) <= 1 + 1e-6).all()
    assert make(feature_dim=4)(torch.randn(6, 32)).shape == (6, 4)


def test_the_bound_follows_a_learned_temperature():
    bounds, taus = [], []

    class Noted(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            taus.append(pl_module.loss.tau)

        def on_train_epoch_end(self, trainer, pl_module):
            bounds.append(trainer.callback_metrics["loss/bound"].item())

    loss = SCLLoss(temperature=torch.nn.Parameter(torch.tensor(1.0)))
    model = ContrastiveObjective(loss, MLP((32,), [16]), num_classes=10, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    trainer = Trainer(max_epochs=3, accelerator="cpu", callbacks=[Noted()], **QUIET)
    trainer.fit(model, LatentClassDataModule(batch_size=100, samples_per_class=50))
    expected = [scl_lower_bound(num_classes=10, temperature=tau) for tau in taus]
    assert len(set(expected)) == 3
    assert bounds == pytest.approx(expected, rel=1e-5)


def test_views_share_one_forward_pass():
    class Counting(MLP):
        sizes: list[int] = []

        def forward(self, x):
            self.sizes.append(len(x))
            return super().forward(x)

    model = make(UCL, encoder=Counting((32,), (24,)))
    views = (torch.randn(8, 32), torch.randn(8, 32))
    output = model.training_step((views, torch.arange(8)), 0)
    assert Counting.sizes == [16]
    assert output["z"].shape == (16, 9)
    assert output["labels"].tolist() == [*range(8), *range(8)]


def test_a_plain_loader_works(tmp_path):
    loader = DataLoader(TensorDataset(torch.randn(40, 32), torch.arange(10).repeat(4)), batch_size=20)
    Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(make(), loader)


@pytest.mark.parametrize(
    "projector", [nn.Linear, ProjectionHead, lambda i, o: nn.Linear(i, o, bias=False), nn.Linear(24, 9)]
)
def test_every_form_of_projector_works(projector):
    assert make(projector=projector)(torch.randn(5, 32)).shape == (5, 9)


def test_an_encoder_of_unknown_width_needs_a_projector():
    encoder = nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 24))
    with pytest.raises(ValueError, match="encoder: got Sequential without an integer out_features"):
        make(encoder=encoder)
    assert make(encoder=encoder, projector=nn.Linear(24, 9))(torch.randn(5, 32)).shape == (5, 9)


def test_a_forward_pass_sizes_the_projector():
    assert make(encoder=nn.Sequential(nn.Linear(32, 24), nn.ReLU()))(torch.randn(5, 32)).shape == (5, 9)


@pytest.mark.parametrize(("interval", "steps"), [("epoch", 3), ("step", 30)])
def test_the_scheduler_steps_at_the_configured_interval(interval, steps, tmp_path):
    model = make(
        optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        lr_interval=interval,
    )
    trainer = Trainer(max_epochs=3, default_root_dir=tmp_path, limit_train_batches=10, **QUIET)
    trainer.fit(model, LatentClassDataModule())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.9**steps)


def test_the_default_optimizer_is_that_of_the_paper():
    optimizer = make().configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-3


def test_a_schedule_that_ends_too_early_is_refused_before_training(tmp_path):
    model = make(lr_scheduler=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1e-3, total_steps=2))
    with pytest.raises(ValueError, match="lr_scheduler: got total_steps = 2, expected at least 3, the epochs"):
        Trainer(max_epochs=3, default_root_dir=tmp_path, **QUIET).fit(model, LatentClassDataModule())


@pytest.mark.parametrize(("interval", "length"), [("epoch", 4), ("step", 20)])
def test_a_schedule_receives_the_length_of_training(interval, length, tmp_path):
    model = make(lr_scheduler=HoldThenDecay, lr_interval=interval)
    trainer = Trainer(max_epochs=4, limit_train_batches=5, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, LatentClassDataModule())
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == length
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_user_sampler_is_kept(tmp_path):
    sampler = HardNegativeSampler(beta=3.0)
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[sampler], **QUIET)
    model = make(beta=9.0)
    trainer.fit(model, LatentClassDataModule())
    assert [c for c in trainer.callbacks if isinstance(c, HardNegativeSampler)] == [sampler]
    assert model.loss.beta == 3.0


def test_hyperparameters_are_plain_and_a_checkpoint_loads(tmp_path):
    model = make(HSCL, beta=3.0, temperature=0.5, lr_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1))
    plain = (int, float, str, bool, type(None))
    assert all(isinstance(value, plain) for value in model.hparams.values())
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*(many workers|logging interval|LeafSpec|Detected call of).*")
        trainer.fit(model, LatentClassDataModule())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = HSCL.load_from_checkpoint(tmp_path / "model.ckpt", encoder=MLP((32,), (24,)), weights_only=True)
    x = torch.randn(4, 32)
    assert torch.equal(loaded.eval()(x), model.eval()(x))
    assert (loaded.loss.beta, loaded.loss.temperature) == (3.0, 0.5)


def test_a_checkpoint_of_another_objective_is_refused(tmp_path):
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    trainer.fit(make(SCL), LatentClassDataModule())
    trainer.save_checkpoint(tmp_path / "scl.ckpt")
    with pytest.raises(ValueError, match="checkpoint: got one of SCL, expected one of UCL"):
        UCL.load_from_checkpoint(tmp_path / "scl.ckpt", encoder=MLP((32,), (24,)), weights_only=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_dim": 0}, "feature_dim: got 0"),
        ({"num_classes": 1}, "num_classes: got 1, expected an integer >= 2"),
        ({"lr_interval": "day"}, "lr_interval: got 'day', expected one of step, epoch"),
        ({"beta": -1}, "beta: got -1"),
        ({"temperature": 0}, "temperature: got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_non_finite_numbers_stop_training_and_their_origin_is_reported(tmp_path):
    x = torch.randn(40, 32)
    x[25, 3] = torch.nan
    loader = DataLoader(TensorDataset(x, torch.arange(10).repeat(4)), batch_size=20)
    with pytest.raises(ValueError, match="data: got NaN or infinite inputs in batch 1 of epoch 0"):
        Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(make(), loader)


def test_a_user_guard_is_kept(tmp_path):
    guard = NonFiniteGuard("skip")
    for objective in (SCL, HSCL, UCL, HUCL):
        trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[guard], **QUIET)
        trainer.fit(make(objective), LatentClassDataModule())
        assert [c for c in trainer.callbacks if isinstance(c, NonFiniteGuard)] == [guard]


@pytest.mark.parametrize("loss", [SCLLoss, SupConLoss, NTXentLoss, DCLLoss, HCLLoss, DHELLoss])
def test_any_loss_can_be_injected(loss):
    model = ContrastiveObjective(loss=loss(), encoder=MLP((32,)), num_classes=4)
    views = (torch.randn(8, 32), torch.randn(8, 32))
    result = model.training_step((views, torch.arange(4).repeat(2)), 0)
    z, labels, instances = result["z"], torch.arange(4).repeat(4), torch.arange(8).repeat(2)
    assert result["loss"].item() == pytest.approx(loss()(z, labels, instances).item())
    assert (model.loss.lower_bound(4, batch_size=16) is None) == (loss not in (SCLLoss, SupConLoss))


def test_weight_decay_excludes_biases_and_norms():
    model = HSCL(
        encoder=MLP((4,), [8]), num_classes=5, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.5)
    )
    decayed, others = model.configure_optimizers().param_groups
    assert [group["weight_decay"] for group in (decayed, others)] == [0.5, 0.0]
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {named[id(p)] for p in decayed["params"]} == {"encoder.layers.1.weight", "projector.weight"}
    assert len(decayed["params"]) + len(others["params"]) == len(named)


def trained(precision="32-true", **kwargs):
    """Features and weights after two steps of a ResNet."""
    torch.manual_seed(0)
    # Not Adam: its first steps are the signs of the gradients, even of tiny ones.
    model = HSCL(encoder=ResNet((3, 8, 8)), num_classes=4, optimizer=lambda p: torch.optim.SGD(p, lr=0.01), **kwargs)
    x, labels = torch.randn(16, 3, 8, 8), torch.arange(4).repeat(4)
    trainer = Trainer(max_epochs=2, precision=precision, accelerator="cpu", **QUIET)
    trainer.fit(model, DataLoader(TensorDataset(x, labels), batch_size=16))
    with torch.no_grad():
        return model.eval()(x), model


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("switch", "tolerance"),
    [
        ({"channels_last": True}, 1e-3),
        ({"precision": "bf16-mixed"}, 0.1),
        ({"compile": True}, 1e-3),
        ({"channels_last": True, "compile": True, "precision": "bf16-mixed"}, 0.1),
    ],
    ids=str,
)
def test_performance_switches_change_results_only_within_precision(switch, tolerance, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))  # inductor is slow
    check_switch(switch, tolerance)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("switch", "tolerance"),
    [
        ({"compile": True}, 1e-3),
        ({"channels_last": True, "compile": True, "precision": "bf16-mixed"}, 0.1),
    ],
    ids=str,
)
def test_inductor_changes_results_only_within_precision(switch, tolerance):
    check_switch(switch, tolerance)


def check_switch(switch, tolerance):
    (expected, plain), (z, switched) = trained(), trained(**switch)
    assert z.dtype == torch.float32
    assert (z - expected).norm() <= tolerance * expected.norm()
    assert plain.state_dict().keys() == switched.state_dict().keys()  # checkpoints of each load into the other
    convolution = switched.encoder.layers.layer1[0].conv1.weight
    assert convolution.is_contiguous(memory_format=torch.channels_last) == switch.get("channels_last", False)
    assert (switched.encoder._compiled_call_impl is not None) == switch.get("compile", False)


def test_gradient_accumulation_adds_no_negatives(tmp_path):
    data = DigitsDataModule()
    model = HSCL(encoder=MLP(data.input_shape, [8]), num_classes=10)
    trainer = Trainer(fast_dev_run=2, accumulate_grad_batches=2, logger=False, enable_progress_bar=False)
    with pytest.warns(UserWarning, match="accumulate_grad_batches: got 2, which adds no negatives"):
        trainer.fit(model, data)


def test_held_out_data_without_positives_have_no_loss(tmp_path):
    x, labels = torch.randn(40, 32), torch.arange(10).repeat(4)
    training = DataLoader(TensorDataset(x, labels), batch_size=20)
    for positives, known, logged in (("label", labels, True), ("view", labels, False), ("label", -labels - 1, False)):
        model = make(HSCL, positives=positives)
        held_out = DataLoader(TensorDataset(x, known), batch_size=20)
        trainer = Trainer(max_epochs=1, **QUIET)
        trainer.fit(model, training, held_out)
        assert ("loss/val" in trainer.callback_metrics) == logged


def test_labels_that_are_not_used_are_reported_once(caplog):
    data = DigitsDataModule(views=2)
    for objective, positives, told in ((UCL, "view", 1), (HUCL, "view", 1), (UCL, "label", 0), (HSCL, "view", 0)):
        caplog.clear()
        model = objective(encoder=MLP(data.input_shape, [8]), num_classes=10, positives=positives)
        with caplog.at_level("INFO"):
            Trainer(fast_dev_run=2, **QUIET).fit(model, data)
        assert caplog.text.count("the loss does not use the labels") == told


OUTPUTS = {
    "maps": (lambda x: x.new_zeros(5, 8, 3, 3), r"features of shape \(5, 8, 3, 3\)"),
    "tokens": (lambda x: x.new_zeros(5, 1, 8), r"features of shape \(5, 1, 8\)"),
    "another width": (lambda x: x[:, :6], r"features of shape \(5, 6\)"),
    "tuple": (lambda x: (x, x), "a tuple"),
    "dict": (lambda x: {"features": x}, "a dict"),
    "nothing": (lambda x: None, "a NoneType"),
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("projector", [nn.Linear, ProjectionHead, nn.Identity()])
def test_an_encoder_that_returns_no_features_is_refused_in_one_line(output, projector):
    class Theirs(nn.Module):
        out_features = 8

        def forward(self, x):
            return OUTPUTS[output][0](x)

    model = HSCL(encoder=Theirs(), num_classes=3, projector=projector)
    if isinstance(projector, nn.Identity):
        if output == "another width":
            assert model(torch.ones(5, 8)).shape == (5, 6)
            return
        message = f"projector: got {OUTPUTS[output][1]} from Identity, expected a tensor .N, d.$"
    else:
        message = f"encoder: got {OUTPUTS[output][1]} from Theirs, expected a tensor .N, 8.$"
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(5, 8))


@pytest.mark.parametrize("given", [lambda x: x, MLP, "resnet18", None])
def test_encoders_that_are_not_modules_are_refused_in_one_line(given):
    got = repr(given) if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
    with pytest.raises(ValueError, match=f"encoder: got {got}, expected a torch.nn.Module"):
        HSCL(encoder=given, num_classes=3)
    with pytest.raises(ValueError, match="projector: got .*, expected a torch.nn.Module"):
        HSCL(encoder=MLP((6,), (5,)), num_classes=3, projector=None if given is MLP else lambda i, o: given)


def test_an_error_in_evaluation_restores_the_loss():
    model, calls = make(), []

    def fails(z, labels, instances, sync=None):
        calls.append((sync, model.loss.sync))
        raise RuntimeError("no memory")

    model.loss.compute, model._evaluation_sync = fails, "local"
    with pytest.raises(RuntimeError, match="no memory"):
        model.validation_step((torch.randn(6, 32), torch.arange(6) % 3), 0)
    assert calls == [("local", "global")]
    assert model.loss.sync == "global"
