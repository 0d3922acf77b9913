"""Labels of any integer type give the results of int64 labels; others are refused in one line."""

import inspect

import numpy as np
import pytest
import torch
from torchmetrics import Metric

import nc_lightning.metrics
from nc_lightning.callbacks.measurement.feature_sample import FeatureSample
from nc_lightning.cli import measure as nc_measure
from nc_lightning.data import concatenate_views
from nc_lightning.geometry import CenterDistances, ClassStatistics, measure
from nc_lightning.losses import HSCLLoss, HUCLLoss, SCLLoss, UCLLoss, similarity_histograms

DTYPES = [torch.uint8, torch.int8, torch.int16, torch.int32]
LABELS = torch.arange(5).repeat(8)
Z = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) + torch.eye(5, 4)[LABELS]
VIEWS = torch.arange(20).repeat(2)


def losses(labels, instances):
    for loss in (SCLLoss, HSCLLoss, UCLLoss, HUCLLoss):
        for positives in ("label", "view"):
            for options in ({}, {"num_negatives": 8}):
                torch.manual_seed(0)
                made = loss(positives=positives, **options)
                yield made(Z, labels, instances).item()


def metrics(labels):
    given = {"num_classes": 5, "feature_dim": 4, "centers": ClassStatistics(5, 4).update(Z, LABELS)}
    given["classifier"] = (torch.eye(5, 4), None)
    for metric in vars(nc_lightning.metrics).values():
        if inspect.isclass(metric) and issubclass(metric, Metric):
            taken = inspect.signature(metric).parameters
            made = metric(**{key: value for key, value in given.items() if key in taken})
            made.update(Z, labels)
            yield repr(made.compute())


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_integer_type_gives_the_values_of_int64(dtype):
    given, views = LABELS.to(dtype), VIEWS.to(dtype)
    assert list(losses(given, views)) == list(losses(LABELS, VIEWS))
    assert list(metrics(given)) == list(metrics(LABELS))
    assert measure(Z, given) == pytest.approx(measure(Z, LABELS), nan_ok=True, rel=0, abs=0)
    seen, expected = (CenterDistances(ClassStatistics(5, 4).update(Z, y)).update(Z, y) for y in (given, LABELS))
    assert torch.equal(seen.correct, expected.correct)
    assert torch.equal(seen.distances, expected.distances)
    samples = [FeatureSample(5, 10) for _ in range(2)]
    for sample, labels in zip(samples, (given, LABELS), strict=True):
        sample.update(Z, labels, Z)
    assert torch.equal(samples[0].labels, samples[1].labels)
    assert torch.equal(samples[0].z, samples[1].z)
    for one, other in zip(similarity_histograms(Z, given), similarity_histograms(Z, LABELS), strict=True):
        assert repr(one) == repr(other)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_unknown_labels_may_have_any_integer_type(dtype):
    unknown = torch.where(LABELS == 3, -1, LABELS)
    assert list(losses(unknown.to(dtype), VIEWS.to(torch.uint8))) == list(losses(unknown, VIEWS))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_other_forms_are_refused_in_one_line(dtype):
    _, labels, _ = concatenate_views((Z, LABELS.to(dtype)))
    for call in (lambda: SCLLoss()(Z, labels), lambda: measure(Z, labels), lambda: list(metrics(labels))):
        with pytest.raises(TypeError, match=rf"labels: got {dtype}, expected an integer tensor of shape \(N,\)"):
            call()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint64])
def test_files_may_hold_labels_of_any_integer_type(tmp_path, dtype, capsys):
    outputs = []
    for kind in (dtype, np.int64):
        np.savez(tmp_path / "features.npz", features=Z.numpy(), labels=LABELS.numpy().astype(kind))
        nc_measure.main([str(tmp_path / "features.npz"), "--json"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != ""
