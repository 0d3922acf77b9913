import math
import pickle
import warnings

import pytest
import torch
from matplotlib.figure import Figure
from torch.utils.data import DistributedSampler
from torchmetrics import MetricCollection

from nc_lightning.geometry import (
    CenterDistances,
    ClassStatistics,
    class_mean_spectrum,
    ideal,
    lidar,
    measure,
    nc3,
    nc4_mismatches,
    simplex_etf,
    uniformity,
)
from nc_lightning.metrics import (
    NC1,
    NC2,
    NC3,
    NC4,
    Alignment,
    EffectiveRank,
    LiDAR,
    NeuralCollapse,
    SelfCluster,
    Spectrum,
    Uniformity,
)
from tests.on_processes import on_processes

TWO_LOOKS = ("within_class_variation", "ncc_accuracy")


def features(noise=0.1, num_classes=6, dim=8, n=90):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(num_classes, (n,), generator=generator)
    return simplex_etf(num_classes, dim)[labels] + noise * torch.randn(n, dim, generator=generator), labels


def measure_statistics(z, labels):
    return ClassStatistics(6, z.shape[1]).update(z, labels)


def assert_same(actual, expected, skip=()):
    for key, value in expected.items():
        if key not in skip:
            assert float(actual[key]) == pytest.approx(float(value), rel=1e-12, abs=1e-12, nan_ok=True), key


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_one_update_has_every_measure():
    z, labels = features()
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    metric.update(z, labels)
    assert set(metric.compute()) == set(measure(z, labels))
    assert_same(metric.compute(), measure(z, labels, 6))
    assert_same(metric.compute(), measure(z, labels, 6))  # computing changes nothing
    metric.reset()
    assert math.isnan(metric.compute()["nc1"])


def test_the_order_of_batches_does_not_matter():
    z, labels = features()
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    for part in torch.randperm(90).split(13):
        metric.update(z[part], labels[part])
    assert_same(metric.compute(), measure(z, labels, 6), skip=TWO_LOOKS)
    assert all(math.isnan(metric.compute()[key]) for key in TWO_LOOKS)


def test_forward_returns_the_value_of_the_batch_and_accumulates_all():
    z, labels = features()
    metric = NC1(num_classes=6, feature_dim=8)
    batches = [metric(z[part], labels[part]).item() for part in torch.arange(90).split(30)]
    assert batches[0] == pytest.approx(measure(z[:30], labels[:30], 6)["nc1"])
    assert metric.compute().item() == pytest.approx(measure(z, labels, 6)["nc1"])


def test_the_members_of_a_collection_stay_separate():
    z, labels = features()
    sizes = {"num_classes": 6, "feature_dim": 8}
    collection = MetricCollection({"rank": EffectiveRank(**sizes), "nc1": NC1(**sizes), "nc2": NC2(**sizes)})
    for part in torch.arange(90).split(30):
        collection.update(z[part], labels[part])
    values, expected = collection.compute(), measure(z, labels, 6)
    assert values["rank"].item() == pytest.approx(expected["effective_rank"])
    assert values["nc1"].item() == pytest.approx(expected["nc1"])
    assert values["nc2_etf"].item() == pytest.approx(expected["nc2_etf"])


def test_a_metric_survives_pickling_state_dict_and_casts():
    z, labels = features()
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    metric.update(z.float(), labels)
    assert metric.state_dict() == {}
    assert metric.half().statistics.means.dtype == torch.float64
    assert_same(pickle.loads(pickle.dumps(metric)).compute(), metric.compute())


def test_with_given_centers_any_batching_is_exact():
    z, labels = features()
    first = NC1(num_classes=6, feature_dim=8)
    first.update(z, labels)
    metric = NeuralCollapse(num_classes=6, feature_dim=8, centers=first.statistics)
    for part in torch.randperm(90).split(13):
        metric.update(z[part], labels[part])
    assert_same(metric.compute(), measure(z, labels, 6))
    held_out = NeuralCollapse(num_classes=6, feature_dim=8, centers=first.statistics)
    held_out.update(z.roll(1, 1), labels)
    assert held_out.compute()["ncc_accuracy"] < 0.9 < metric.compute()["ncc_accuracy"]


def test_a_classifier_adds_nc3_and_nc4():
    z, labels = features()
    classifier = torch.nn.Linear(8, 6)
    stats = measure_statistics(z, labels)
    with torch.no_grad():
        classifier.weight.copy_(stats.means + 0.5 * torch.randn(6, 8))
    expected = nc4_mismatches(z, classifier.weight, classifier.bias, CenterDistances(stats)).double().mean().item()
    metric = NeuralCollapse(6, 8, centers=stats, classifier=classifier)
    single = [NC3(6, 8, classifier=classifier), NC4(6, 8, classifier=classifier, centers=stats)]
    for part in torch.randperm(90).split(13):
        for each in (metric, *single):
            each.update(z[part], labels[part])
    values = metric.compute()
    assert values["nc4"].item() == pytest.approx(expected)
    assert 0 < expected < 1
    assert values["nc3"].item() == pytest.approx(nc3(stats, classifier.weight).item())
    assert [each.compute().item() for each in single] == pytest.approx([values["nc3"].item(), expected])
    assert not list(metric.parameters())
    assert metric.state_dict() == single[0].state_dict() == {}
    with torch.no_grad():
        classifier.weight.copy_(stats.centered_class_means)  # the classifier is read when the metric is computed
    single[0].update(z[:0], labels[:0])
    assert single[0].compute() < 1e-6
    with pytest.raises(ValueError, match=r"weight: got shape \(6, 8\), expected \(5, 8\)"):
        NC3(5, 8, classifier=classifier)
    with pytest.raises(ValueError, match=r"centers: got statistics of \(num_classes, feature_dim\) = \(6, 8\)"):
        NC4(5, 8, classifier=(torch.zeros(5, 8), None), centers=stats)


def test_only_metrics_with_equal_settings_share_a_state():
    z, labels = features()
    sizes = {"num_classes": 6, "feature_dim": 8}
    weight = torch.randn(6, 8)
    stats = measure_statistics(z, labels)
    others = {
        "sized": NC1(**sizes, dataset_size=1000),
        "one": NC4(**sizes, classifier=(weight, None), centers=stats),
        "two": NC4(**sizes, classifier=(weight, torch.tensor([0, 0, 0, 0, 0, 99.0])), centers=stats),
        "alignment": Alignment(**sizes),
        "self cluster": SelfCluster(**sizes),
    }
    shared = {"nc1": NC1(**sizes), "nc2": NC2(**sizes), "rank": EffectiveRank(**sizes)}
    collection = MetricCollection({**shared, **others})
    # "sized" has the same statistics as "nc1": a collection comparing only these would merge the two.
    unit = torch.nn.functional.normalize(z)
    for part in torch.arange(90).split(30):
        collection.update(unit[part], labels[part])
    groups = sorted(sorted(group) for group in collection.compute_groups.values())
    assert groups == [["alignment", "self cluster"], ["nc1", "nc2", "rank"], ["one"], ["sized"], ["two"]]
    values = collection.compute()
    assert values["one"] != values["two"]
    expected = measure(unit, labels, 6)
    assert values["nc1"].item() == pytest.approx(expected["nc1"])
    assert values["rank"].item() == pytest.approx(expected["effective_rank"])


@pytest.mark.parametrize("metric_class", [NeuralCollapse, NC1, EffectiveRank, Alignment, SelfCluster])
def test_merged_states_equal_one_state(metric_class):
    z, labels = features()
    a, b, whole = (metric_class(6, 8) for _ in range(3))
    a.update(z[:50], labels[:50])
    b.update(z[50:], labels[50:])
    whole.update(z, labels)
    a.merge_state(b)
    values, expected = a.compute(), whole.compute()
    if metric_class is NeuralCollapse:
        assert_same(values, expected, skip=TWO_LOOKS)
    else:
        assert values.item() == pytest.approx(expected.item(), rel=1e-12)
    with pytest.raises(ValueError, match="incoming_state: got a metric with other settings"):
        a.merge_state(NC1(6, 8, dataset_size=3))


def test_repeated_samples_count_once_within_a_process():
    z, labels = features()
    padded, plain = NC1(6, 8, dataset_size=70), NC1(6, 8)
    for part in torch.arange(90).split(40):
        padded.update(z[part], labels[part])
    plain.update(z[:70], labels[:70])
    assert padded.compute().item() == pytest.approx(plain.compute().item(), rel=1e-12)


@pytest.mark.parametrize("nc1", [1.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_one_pass_is_as_accurate_as_two(nc1, offset):
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(20).repeat(30)
    noise = torch.randn(600, 16, generator=generator, dtype=torch.float64)
    z = (torch.randn(20, 16, generator=generator, dtype=torch.float64)[labels] + nc1**0.5 * noise + offset).float()
    exact = z.double()
    means = torch.stack([exact[labels == c].mean(0) for c in range(20)])
    within = (exact - means[labels]).square().sum() / 600
    between = (means - means.mean(0)).square().sum() / 20
    whole, left, right = (NC1(20, 16) for _ in range(3))
    order = torch.randperm(600)
    for i, part in enumerate(order.split(37)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            whole.update(z[part], labels[part])
            (left if i % 3 else right).update(z[part], labels[part])
    left.merge_state(right)
    assert whole.compute().item() == pytest.approx((within / between).item(), rel=1e-12)
    assert left.compute().item() == pytest.approx((within / between).item(), rel=1e-12)


def panels(axes):
    return [panel for panel in (axes, *axes.child_axes) if panel.axison]


def test_a_plot_has_a_dot_and_the_ideal_of_each_measure():
    z, labels = features()
    for metric in (NC1(6, 8), NC2(6, 8), EffectiveRank(6, 8), NeuralCollapse(6, 8)):
        axes = Figure().subplots()
        metric.update(z, labels)
        assert metric.plot(ax=axes) == (None, axes)
        values = metric.compute() if len(metric.keys) > 1 else {metric.keys[0]: metric.compute()}
        shown = {}
        for panel in panels(axes):
            keys = [label.get_text() for label in panel.get_yticklabels()]
            dots, ideals = panel.get_lines()
            listed = [text.get_text() for text in panel.texts][: 2 * len(keys)]
            for row, key in enumerate(keys):
                shown[key] = dots.get_xdata()[row]
                goal = ideal(key, 6, 8)
                assert listed[2 * row + 1] == ("" if goal is None else goal.text)
                if goal is not None and goal.value:
                    assert ideals.get_xdata()[row] == goal.value
        assert shown.keys() == set(metric.keys)
        for key, value in shown.items():
            assert value == pytest.approx(max(float(values[key]), 1e-8) if value > 0 else float(values[key]))


def test_values_over_steps_have_a_panel_for_each_measure():
    z, labels = features()
    metric = NC2(6, 8)
    metric.update(z, labels)
    value, axes = metric.compute(), Figure().subplots()
    metric.plot([value, {key: v / 2 for key, v in value.items()}], ax=axes)
    found = {panel.get_title().partition(" ")[0]: panel.get_lines()[0].get_ydata() for panel in panels(axes)}
    assert {key: list(v) for key, v in found.items()} == {
        k: pytest.approx([v.item(), v.item() / 2]) for k, v in value.items()
    }
    rank, axes = EffectiveRank(6, 8), Figure().subplots()
    rank.plot([torch.tensor(3.0), torch.tensor(4.0)], ax=axes)
    line, goal = axes.get_lines()
    assert list(line.get_ydata()) == [3.0, 4.0]
    assert goal.get_ydata()[0] == 5


def test_the_spectrum_is_returned():
    z, labels = features()
    metric = Spectrum(6, 8)
    metric.update(z[:0], labels[:0])
    with pytest.warns(UserWarning, match="Spectrum: there is no sample"):
        assert metric.compute().isnan().tolist() == [True] * 6
    metric.update(z, labels)
    assert torch.equal(metric.compute(), class_mean_spectrum(measure_statistics(z, labels)))
    axes = Figure().subplots()
    metric.plot(ax=axes)
    spectrum, ideal_one = axes.get_lines()
    assert list(spectrum.get_ydata()) == pytest.approx(metric.compute().clamp(min=1e-8).tolist())
    assert list(ideal_one.get_ydata()) == [1.0] * 5


def test_every_metric_declares_whether_higher_is_better():
    assert NC1.higher_is_better is NC2.higher_is_better is NC3.higher_is_better is NC4.higher_is_better is False
    assert EffectiveRank.higher_is_better is True
    assert Alignment.higher_is_better is SelfCluster.higher_is_better is Uniformity.higher_is_better is False


def test_undefined_values_are_nan_with_one_warning():
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    metric.update(torch.ones(4, 8), torch.arange(4) % 2)
    with pytest.warns(UserWarning, match="NeuralCollapse: 4 of 6 classes are absent, .*; all class means coincide"):
        values = metric.compute()
    assert math.isnan(values["nc1"])
    assert values["effective_rank"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update(torch.ones(4, 8), torch.arange(4) % 2)
        metric.compute()


def test_a_large_state_is_warned_about():
    with pytest.warns(UserWarning, match=r"NC1: keeps 257 MiB, C d \+ d\^2 numbers for num_classes = 4"):
        NC1(num_classes=4, feature_dim=5800)


def test_wrong_labels_are_detected():
    z, labels = features(noise=0.01)
    metric = NC1(num_classes=6, feature_dim=8)
    metric.update(z, labels.roll(1))
    assert metric.compute() > 100 * measure(z, labels)["nc1"]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="feature_dim: got 0"):
        NeuralCollapse(num_classes=3, feature_dim=0)
    with pytest.raises(ValueError, match="labels: got label 3"):
        NC1(num_classes=3, feature_dim=2).update(torch.zeros(1, 2), torch.tensor([3]))


def _values(rank):
    z, labels = features()
    # The shards are uneven, and the second process never gets class 0.
    mine = torch.nonzero((labels == 0) | (torch.arange(90) < 25)).squeeze(1)
    mine = mine if rank == 0 else torch.tensor([i for i in range(90) if i not in set(mine.tolist())])
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    for part in mine.split(11):
        metric.update(z[part], labels[part])
    values = metric.compute()
    metric.update(z[mine], labels[mine])  # syncing does not change the state of this process
    assert metric.statistics.num_samples == 2 * len(mine)
    padded = list(DistributedSampler(list(range(89)), num_replicas=2, rank=rank, shuffle=False))
    sized, alignment = NeuralCollapse(6, 8, dataset_size=89), Alignment(6, 8, dataset_size=89)
    for part in torch.tensor(padded).split(11):
        sized.update(z[part], labels[part])
        alignment.update(z[part], labels[part])
    assert len(padded) == 45
    spread = Uniformity()
    spread.update(z[mine])
    views = LiDAR(8)
    views.update(z[mine], labels[mine])  # instances are numbered within a process
    more = {
        "lidar": views.compute(),
        "sized": sized.compute(),
        "alignment": alignment.compute(),
        "uniformity": spread.compute(),
    }
    return {"plain": values, **more}


def _lidar(z, labels):
    """LiDAR of the groups of both processes; those of a class on the first and on the second are two instances."""
    on_first = (labels == 0) | (torch.arange(90) < 25)
    instances = (labels + 6 * ~on_first).unique(return_inverse=True)[1]
    return lidar(ClassStatistics(12, 8).update(z, instances)).item()


@pytest.mark.slow
def test_two_processes_give_the_value_of_one(gloo):
    z, labels = features()
    whole = Alignment(6, 8)
    whole.update(z[:89], labels[:89])
    for values in on_processes(2, _values):
        assert_same(values["plain"], measure(z, labels, 6), skip=TWO_LOOKS)
        assert_same(values["sized"], measure(z[:89], labels[:89], 6), skip=TWO_LOOKS)
        assert values["alignment"].item() == pytest.approx(whole.compute().item(), rel=1e-12)
        assert values["lidar"].item() == pytest.approx(_lidar(z, labels), rel=1e-12)
        assert values["uniformity"].item() == pytest.approx(uniformity(z).item(), rel=1e-12)
