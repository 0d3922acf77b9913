import pytest

from nc_lightning.cli import config_folder
from nc_lightning.cli.config_nesting import MAX_DEPTH, check_nesting


def checked(text, in_folder):
    path = in_folder / "mine.yaml"
    path.write_text(text)
    check_nesting(str(path))


def test_reasonable_configs_pass(tmp_path):
    for path in config_folder().glob("*.yaml"):
        check_nesting(str(path))
    checked("a: &a {b: 1}\nc: *a\nd: [*a, *a]\n", tmp_path)
    checked("[" * MAX_DEPTH + "]" * MAX_DEPTH, tmp_path)


@pytest.mark.parametrize("text", ["a: b: c", "[", "\x00", "*unknown"])
def test_invalid_yaml_is_left_to_the_parser(text, tmp_path):
    checked(text, tmp_path)


def test_non_text_files_are_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ValueError, match="mine.yaml', which is not UTF-8 text"):
        check_nesting(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["[" * 51 + "]" * 51, "[" * 100_000, "{a: " * 51, "- " * 51])
def test_too_deep_configs_are_refused(text, tmp_path):
    with pytest.raises(ValueError, match="mine.yaml', nested deeper than 50 levels"):
        checked(text, tmp_path)


def test_aliases_that_expand_too_far_are_refused(tmp_path):
    with pytest.raises(ValueError, match="whose alias 'b' contains itself"):
        checked("a: &b {c: [*b]}", tmp_path)
    doubling = "\n".join(f"k{n}: &k{n} [{f'*k{n - 1}, ' * 9}1]" if n else "k0: &k0 [1]" for n in range(9))
    with pytest.raises(ValueError, match="with more than 100000 values"):
        checked(doubling, tmp_path)
