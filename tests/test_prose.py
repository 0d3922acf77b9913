"""What a reader has to read twice, and what CONTRIBUTING.md says instead, comes back nowhere."""

import re
import tokenize
from pathlib import Path

import pytest

HABITS = {
    r"^\s*\w+(?: \([^)]*\))?: Of ": "begin with the noun: 'seed: Seed of the shuffle.'",
    r"\bbeside\b": "next to, alongside, with, compared with, against",
    r"\b(?:go|goes|going|went|gone) on\b": "resume, continue",
    r"\banew\b": "again, from scratch, restart",
    r"\bin the place of\b": "instead of",
    r"\bas of\b": "see, as in; since",
    r"\blest\b": "so that ... not",
    r"\b(?:is|are|was|were|be) at it\b": "runs, is running",
    r"\bbehind (?:itself|themselves)\b": "consumed, done",
    r"\bby the word of\b": "decides",
    r"\bsuch as are\b": "a relative clause",
    r"\bbut for\b": "except",
    r"\bby which\b": "a shorter clause: 'the number it is called by'",
    r"\bof which\b": "whose, or two sentences",
    r"\b[Tt]ell (?:which|whether|if|how)\b": "return, check, report",
    r"\bhave to be told\b|\b(?:is|are|was|were) told\b": "reported, logged, passed",
    r"\bwhatever\b": "name what it is",
    r"\bso many\b": "a number, or as many as",
    r"\bsomebody(?: else)?(?:'s)?\b": "third-party, any, user",
    r"\bof one'?s own\b": "custom, user-defined, your own",
}
SAMPLES = [
    "        seed: Of the shuffling.",
    "trained beside, on detached features",
    "A run goes on",
    "begins anew",
    "in the place of ours",
    "as of the loss",
    "lest weights be copied",
    "another process is at it",
    "has it behind itself",
    "by the word of the first",
    "such as are given",
    "all but for one",
    "the name by which it is found",
    "the bound, of which half is",
    "Tell which of them",
    "the first is told",
    "whatever it holds",
    "evaluates so many batches",
    "the module of somebody else",
    "links of one's own",
    "def test_a_run_goes_on():",
]
BRITISH = re.compile(
    r"colour|centre|centring|labell|behaviour|grey|neighbour|favour|cancell|modell"
    r"|(?:normal|standard|optim|initial|regular|synchron|recogn|minim|maxim|summar|visual|organ)is(?:e|ing|ation)",
    re.IGNORECASE,
)


def texts(repository):
    """Return every file that people read, without this one."""
    found = [
        path for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile") for path in [repository / name]
    ]
    for folder in ("nc_lightning", "configs", "docs", "examples", "benchmarks", "tests"):
        for ending in ("py", "md", "yaml", "ipynb", "j2"):
            found += (repository / folder).rglob(f"*.{ending}")
    return sorted(path for path in found if path.name != Path(__file__).name and "_build" not in path.parts)


def without_quotes(path):
    """Return the text of a file; CONTRIBUTING.md quotes the habits."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r'"[^"]*"|`[^`]*`', "", text) if path.name == "CONTRIBUTING.md" else text


def habits_in(text):
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace("_", " ") if "def test_" in line else line
        for habit, better in HABITS.items():
            if re.search(habit, words):
                yield number, line.strip(), better


def test_no_habit_comes_back(repository):
    found = [
        f"{path.relative_to(repository)}:{number}: {line!r}: {better}"
        for path in texts(repository)
        for number, line, better in habits_in(without_quotes(path))
    ]
    assert not found, f"{len(found)} places\n" + "\n".join(found)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_habit_is_seen(sample):
    assert len(list(habits_in(sample))) == 1


def test_names_are_spelt_as_in_torch(repository):
    found = set()
    for path in texts(repository):
        if path.suffix == ".py":
            with path.open("rb") as file:
                names = (token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME)
                found |= {f"{path.relative_to(repository)}: {name}" for name in names if BRITISH.search(name)}
    assert not found, "\n".join(sorted(found))
