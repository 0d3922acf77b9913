import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.io import part_files
from nc_lightning.io.part_files import PartFiles, assemble, mapped_texts


def appended(folder, rank, indices, batch_size=3):
    """Rows that name their index and their rank."""
    files = PartFiles(folder, rank)
    for start in range(0, len(indices), batch_size):
        own = np.array(indices[start : start + batch_size])
        rows = np.stack([own, np.full(len(own), rank)], 1)
        files.append("train", {"z": rows.astype(np.float32), "indices": own})
    files.close()
    return files.parts.get("train", {})


@settings(max_examples=40, deadline=None)
@given(shares=st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=3).filter(any))
def test_rows_are_in_the_order_of_the_data_set_once(tmp_path_factory, shares):
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_files, "BLOCK_ROWS", 4)
        arrays = assemble([appended(folder, rank, share) for rank, share in enumerate(shares)], folder)
    expected = []
    for index in range(31):
        has_it = [rank for rank, share in enumerate(shares) if index in share]
        if has_it:
            number = sum(bool(share) for share in shares[: has_it[0]])  # shares without rows do not count
            expected += [[index, has_it[0]]] * shares[has_it[0]].count(index)
            assert number <= has_it[0]
    assert arrays["z"].tolist() == expected
    assert arrays["indices"].tolist() == [index for index, _ in expected]


def test_rows_without_indices_alternate_between_the_processes(tmp_path):
    arrays = assemble([appended(tmp_path, rank, [-1] * count) for rank, count in enumerate((4, 3))], tmp_path)
    assert arrays["z"][:, 1].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert arrays["indices"].tolist() == list(range(7))


def test_what_is_in_order_is_not_copied(tmp_path):
    assemble([appended(tmp_path, 0, range(9))], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0", "0-1"]


def test_texts_are_mapped(tmp_path):
    texts = mapped_texts(["ä/b.png", "c", "long/name.png"], np.array([2, 0, 0]), tmp_path / "texts")
    assert texts.tolist() == ["long/name.png", "ä/b.png", "ä/b.png"]
    assert isinstance(texts, np.memmap)


def test_rows_of_another_shape_or_number_are_refused(tmp_path):
    files = PartFiles(tmp_path, 0)
    files.append("val", {"z": np.ones((3, 2))})
    with pytest.raises(ValueError, match=r"predict: got z of shape \(3, 4\) after \(3, 2\), expected rows of equal"):
        files.append("val", {"z": np.ones((3, 4))})
    with pytest.raises(ValueError, match="predict: got 3 of z, 2 of labels in a batch of val, expected equal numbers"):
        files.append("val", {"z": np.ones((3, 2)), "labels": np.ones(2)})
