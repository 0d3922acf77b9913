"""Functions of features take numpy arrays and lists as well as tensors, with the same result."""

import inspect

import numpy as np
import pytest
import torch

from nc_lightning import evaluation, geometry, metrics
from nc_lightning.checks import as_features, as_labels
from nc_lightning.geometry import CenterDistances, ClassStatistics

generator = torch.Generator().manual_seed(0)
Z = torch.randn(60, 5, generator=generator, dtype=torch.float64)
LABELS = torch.arange(3).repeat(20)
Z[torch.arange(60), LABELS] += 4
ARRAYS = {"z": Z, "queries": Z, "bank": Z, "matrix": Z, "labels": LABELS, "bank_labels": LABELS, "query_labels": LABELS}
ARRAYS |= {"weight": Z[:3], "bias": Z[0, :3], "ood_mean": Z[0], "eigenvalues": Z[0].abs().sort(descending=True).values}
ARRAYS |= {"similarities": Z.sort(descending=True).values, "train": (Z, LABELS), "test": (Z, LABELS)}
STATS = ClassStatistics(3, 5).update(Z, LABELS)
OTHERS = {"stats": STATS, "centers": CenterDistances(STATS), "num_classes": 3, "k": 4, "shots": 2, "temperature": 0.1}
OTHERS |= {"normalization": "unit_sphere"}
FORMS = {"arrays": lambda x: x.numpy(), "lists": lambda x: x.tolist()}


def functions():
    for module in (geometry, evaluation):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and "ndarray" in str(inspect.signature(function)):
                yield function


def arguments(function, form):
    given = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if function is evaluation.class_votes and name == "labels":
            given[name] = form(torch.arange(60 * 5).reshape(60, 5) % 3)
        elif name in ("train", "test"):
            given[name] = tuple(map(form, ARRAYS[name]))
        elif name in ARRAYS:
            given[name] = form(ARRAYS[name])
        elif parameter.default is inspect.Parameter.empty:
            given[name] = (1,) if function is evaluation.evaluate_features and name in ("ks", "shots") else OTHERS[name]
    return given


def as_plain(result):
    if isinstance(result, torch.Tensor):
        return result.tolist()
    if isinstance(result, ClassStatistics):
        return [result.means.tolist(), result.scatter.tolist()]
    if isinstance(result, (tuple, list)):
        return [as_plain(part) for part in result]
    return result


def test_the_functions_are_found():
    names = {function.__name__ for function in functions()}
    assert {"measure", "unit_ball", "unit_sphere", "normalize", "effective_rank", "uniformity", "nc3", "nc5"} <= names
    assert {"knn_predict", "linear_probe", "retrieval", "evaluate_features", "few_shot_accuracy"} <= names
    for module in (geometry, evaluation):
        for name in module.__all__:
            signature = inspect.signature(getattr(module, name)) if callable(getattr(module, name)) else None
            taken = {*getattr(signature, "parameters", ())} & {"z", "labels", "queries", "bank", "matrix", "weight"}
            assert not taken or name in names, name


CASES = [(function, form) for function in functions() for form in FORMS]
CASES.remove((evaluation.evaluate_features, "lists"))  # its parts are there


@pytest.mark.parametrize(("function", "form"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_arrays_and_lists_give_what_tensors_give(function, form):
    if function.__name__ == "evaluate_features" and form == "lists":
        pytest.skip("its parts are tested")
    expected = as_plain(function(**arguments(function, lambda x: x)))
    assert as_plain(function(**arguments(function, FORMS[form]))) == expected


@pytest.mark.parametrize("form", ["arrays", "lists"])
def test_statistics_and_metrics_take_them_too(form):
    z, labels = FORMS[form](Z), FORMS[form](LABELS)
    stats = ClassStatistics(3, 5).update(z, labels)
    assert torch.equal(stats.scatter, STATS.scatter)
    assert (
        CenterDistances(stats).update(z, labels).correct.sum() == CenterDistances(STATS).update(Z, LABELS).correct.sum()
    )
    for kind in (metrics.NeuralCollapse, metrics.Alignment):
        ours, expected = kind(3, 5), kind(3, 5)
        ours.update(z, labels)
        expected.update(Z, LABELS)
        assert str(ours.compute()) == str(expected.compute())
    lidar, uniformity = metrics.LiDAR(5), metrics.Uniformity()
    lidar.update(z, labels)
    uniformity.update(z)
    assert lidar.compute() > 0 > uniformity.compute()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_arrays_keep_their_dtype(dtype):
    given = Z.numpy().astype(dtype)
    tensor = as_features(given)
    assert tensor.numpy().dtype == given.dtype.newbyteorder("=")
    assert np.array_equal(tensor.numpy(), given)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.uint64, ">i4"])
def test_whole_numbers_are_features_of_float64(dtype):
    array = (8 * Z).abs().numpy().astype(dtype)
    expected = geometry.measure(torch.from_numpy(array.astype(np.float64)), LABELS)
    assert geometry.measure(array, LABELS) == geometry.measure(array.tolist(), LABELS) == expected
    assert as_features(array).dtype == torch.float64


def test_a_tensor_is_returned_itself_and_an_array_is_not_copied():
    assert as_features(Z) is Z
    assert as_labels(LABELS) is LABELS
    array = np.zeros((3, 2))
    as_features(array)[0] = 7
    assert array[0, 0] == 7
    array.setflags(write=False)
    as_features(array)[0] = 8  # without torch's warning
    assert array[0, 0] == 7


def test_integers_of_any_size_are_labels_and_read_only_arrays_are_copied():
    for dtype in (np.int8, np.uint16, np.uint64, ">i4"):
        assert as_labels(np.arange(3, dtype=dtype)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: geometry.measure(torch.zeros((3, 2)).long(), [0, 1, 1]), TypeError, "z: got torch.int64, expected a"),
        (
            lambda: geometry.measure(np.zeros((3, 2)), ["a", "b", "b"]),
            TypeError,
            "labels: got <U1, expected integers",
        ),
        (lambda: geometry.measure(np.zeros((3, 2)), [0.5, 1.0, 1.0]), TypeError, "labels: got float64, expected integ"),
        (lambda: geometry.measure([[1.0, 2.0], [3.0]], [0, 1]), ValueError, "z: got rows of several lengths, expected"),
        (lambda: geometry.measure([["a", "b"]], [0]), TypeError, "z: got <U1, expected numbers of shape (N, d)"),
        (lambda: geometry.measure([1.0, 2.0], [0, 1]), ValueError, "z: got shape (2,), expected (N, d)"),
        (lambda: evaluation.knn_predict([[1.0]], [[1.0]], ["a"], 2, 1), TypeError, "bank_labels: got <U1, expected in"),
    ],
)
def test_other_values_are_refused_in_one_line(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
