"""Workflows, hooks, issue forms and the citation agree with the project."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import nc_lightning

REPOSITORY = Path(__file__).parent.parent
WORKFLOWS = sorted(REPOSITORY.glob(".github/workflows/*.yml"))
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text()
MAKEFILE = (REPOSITORY / "Makefile").read_text().replace("$(VENV)", ".venv")
FILES = [
    *WORKFLOWS,
    *sorted(REPOSITORY.glob(".github/ISSUE_TEMPLATE/*.yml")),
    *(REPOSITORY / name for name in (".pre-commit-config.yaml", ".readthedocs.yaml", "CITATION.cff")),
]


def steps(workflow):
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        if "uses" in job:  # another workflow of this repository
            assert (REPOSITORY / job["uses"]).is_file()
        yield from job.get("steps", [])


def script(workflow, name):
    """What a step of that name runs."""
    (found,) = (step["run"] for step in steps(REPOSITORY / ".github/workflows" / workflow) if step.get("name") == name)
    return found


def bash(text, folder, **environment):
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def targets():
    """Targets that the Makefile has a rule for; `make --dry-run docs` would be content with the folder docs."""
    return {target for rule in re.findall(r"^([\w./-][^:=]*):(?!=)", MAKEFILE, re.MULTILINE) for target in rule.split()}


def extras():
    table = PYPROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return set(re.findall(r"^([a-z]+) = \[", table, re.MULTILINE))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_yaml_can_be_read(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_is_there(path):
    commands = [step["run"] for step in steps(path) if "run" in step]
    for command in commands:
        for target in re.findall(r"\bmake ([\w./-]+)", command):
            assert target in targets(), target
        for name in re.findall(r"(?<![\w/])(?:tests|examples)/[\w/.]+", command):
            assert (REPOSITORY / name).exists(), name


def test_extras_are_there():
    named = [
        extra
        for path in (*FILES, REPOSITORY / "CONTRIBUTING.md")
        for group in re.findall(r"(?<=[.\w]\[)[a-z]+(?:,[a-z]+)*(?=\]['\"])", path.read_text())
        for extra in group.split(",")
    ]
    assert named
    assert set(named) <= extras()


def test_the_oldest_dependencies_are_the_lower_bounds(tmp_path):
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    done = bash(script("ci.yml", "Pin each dependency to its lower bound"), tmp_path)
    table = PYPROJECT.partition("\ndependencies = [")[2].partition("\n]")[0]
    bounds = [re.match(r' *"([a-z0-9-]+)(?:\[.*?\])?>=([\d.]+)', line) for line in table.splitlines()]
    bounds = [bound for bound in bounds if bound is not None]
    assert len(bounds) == len(re.findall(r'^ *"', table, re.MULTILINE)), "each dependency has a lower bound"
    assert done.stdout.splitlines() == [f"{bound[1]}=={bound[2]}" for bound in bounds]


def test_a_release_needs_its_version_and_its_heading(tmp_path):
    check = script("release.yml", "The tag is the version, and CHANGELOG.md has a heading for it")
    (tmp_path / "nc_lightning").mkdir()
    (tmp_path / "nc_lightning/__init__.py").write_text('__version__ = "1.2.3"\n')
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n")
    assert bash(check, tmp_path, GITHUB_REF_NAME="v1.2.3").returncode == 0
    assert "tag: got v1.2.4, expected v1.2.3" in bash(check, tmp_path, GITHUB_REF_NAME="v1.2.4").stderr
    changelog.write_text("## [Unreleased]\n\n## [1.203]\n")
    assert "expected a heading ## [1.2.3]" in bash(check, tmp_path, GITHUB_REF_NAME="v1.2.3").stderr


def test_hooks_run_the_tools_of_make_lint():
    lint = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = [re.match(r"\.venv/bin/([\w-]+(?: check| format)?)", hook["entry"])[1] for hook in hooks]
    assert tools == re.findall(r"\$\(BIN\)/([\w-]+(?: check| format)?)", lint)


def test_citation():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys(), "what the schema of CFF requires"
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == nc_lightning.__version__
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == ["Jiang", "Nguyen", "Aeron", "Ishwar"]
