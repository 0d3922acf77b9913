import re

from tests.tiers import left_out

pytest_plugins = ["pytester"]


def test_a_fixed_choice_of_the_requested_number_of_cases_is_kept():
    cases = list(range(48))
    for count in (1, 12, 48, 100):
        out = left_out("a test", cases, count)
        assert len(out) == max(48 - count, 0)
        assert out == left_out("a test", cases, count)
    assert left_out("a test", cases, 12) != left_out("another test", cases, 12)


def test_each_case_runs_in_exactly_one_tier(pytester, repository):
    pytester.makeini("[pytest]\nmarkers =\n    exhaustive\n    some\n")
    pytester.makeconftest("from tests.tiers import mark_cases as pytest_collection_modifyitems")
    pytester.syspathinsert(repository)
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.some(4)\n"
        "@pytest.mark.parametrize('a', range(5))\n"
        "@pytest.mark.parametrize('b', range(6))\n"
        "def test_many(a, b): pass\n"
        "def test_one(): pass\n"
    )
    makefile = (repository / "Makefile").read_text()
    ran = []
    for target in ("test", "test-exhaustive"):
        tier = re.search(rf"^{target}:.*\n.*-m (.+)$", makefile, re.MULTILINE)[1]
        ran.append(pytester.inline_run("-m", tier.strip('"')).listoutcomes()[0])
    assert [len(passed) for passed in ran] == [5, 26]
    assert not {report.nodeid for report in ran[0]} & {report.nodeid for report in ran[1]}
