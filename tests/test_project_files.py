"""The files around the code: each can be read, they agree with each other, and links between pages lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
LONGEST = 30
"""Words of a sentence that a newcomer reads."""


YAML = sorted(
    [
        ROOT / "CITATION.cff",
        ROOT / "prefect.yaml",
        ROOT / ".pre-commit-config.yaml",
        ROOT / "mkdocs.yml",
        *(ROOT / ".github").rglob("*.yml"),
        *(ROOT / "docs").rglob("*.yaml"),
    ]
)


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_a_file_is_a_table_that_can_be_read(path: Path) -> None:
    assert isinstance(parsed(path), dict)


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = parsed(ROOT / "CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Görgün", "Schiele", "Fischer"]
    assert "arXiv:2503.22399" in {identifier["value"] for identifier in paper["identifiers"]}


def test_the_changelog_has_this_version_first() -> None:
    headings = re.findall(r"^## (\S+?),? ?", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert re.search(
        rf"^## {re.escape(PROJECT['version'])}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings


def test_the_workflow_runs_every_python_that_the_classifiers_name() -> None:
    named = {text.rpartition(" :: ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)}
    jobs = parsed(ROOT / ".github/workflows/ci.yml")["jobs"]
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == named
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert {"make ${{ matrix.versions == 'tested' && 'test' || 'suite' }}", "make docs"} <= set(commands)
    lowest = min(named, key=lambda text: Version(text))
    assert PROJECT["requires-python"] == f">={lowest}"


def bounds() -> Iterator[Requirement]:
    """What the project and the extras of its tests ask for."""
    for text in PROJECT["dependencies"]:
        yield Requirement(text)
    for extra, texts in PROJECT["optional-dependencies"].items():
        if extra != "docs":
            yield from (one for one in map(Requirement, texts) if one.name != PROJECT["name"])


def pins(path: Path) -> Iterator[Requirement]:
    for line in path.read_text().splitlines():
        if text := line.partition("#")[0].strip():
            yield Requirement(text)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def version_of(pin: Requirement) -> Version:
    [exact] = pin.specifier
    assert exact.operator == "==", pin
    return Version(exact.version)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lowest_versions_are_those_of_the_bounds(python: str) -> None:
    """Each lower bound has one pin for each Python, within the bound and of the same minor version or with a reason."""
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    told = {normal(Requirement(line.partition("#")[0]).name) for line in lines if "==" in line and "  #" in line}
    environment: Mapping[str, str] = {"python_version": python}
    lowest = {
        normal(pin.name): version_of(pin)
        for pin in pins(ROOT / "constraints-lowest.txt")
        if pin.marker is None or pin.marker.evaluate(dict(environment))
    }
    for requirement in bounds():
        floors = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==")]
        if not floors:
            continue
        name = normal(requirement.name)
        assert name in lowest, f"add {name}=={floors[0]} to constraints-lowest.txt"
        assert lowest[name] in requirement.specifier, requirement
        assert lowest[name].release[:2] == (*floors[0].release, 0)[:2] or name in told, (
            f"{name}=={lowest[name]} is above its bound {requirement.specifier}: lower it, or say why beside it"
        )


def test_the_tested_versions_are_within_the_bounds() -> None:
    tested = {normal(pin.name): version_of(pin) for pin in pins(ROOT / "constraints.txt")}
    for requirement in bounds():
        assert tested[normal(requirement.name)] in requirement.specifier, requirement


def test_the_workflow_and_the_makefile_know_the_same_versions() -> None:
    """No job empties a file that a test reads: which versions are installed is a variable of make."""
    workflow, makefile = ((ROOT / name).read_text("utf-8") for name in (".github/workflows/ci.yml", "Makefile"))
    chosen = re.findall(r"echo CONSTRAINTS=(\S+)", workflow)
    assert sorted(chosen) == ["/dev/null", "constraints-lowest.txt", "constraints.txt"]
    assert "> constraints" not in workflow
    assert "CONSTRAINTS ?= constraints.txt" in makefile
    assert "-c constraints" not in makefile


def links(text: str) -> list[str]:
    """What a page's links and pictures lead to, outside blocks of code."""
    prose = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    return re.findall(r"\]\(([^)\s]+)[^)]*\)", prose)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_to_files(page: Path) -> None:
    for link in links(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        target = unquote(link.partition("#")[0])
        assert not target or (page.parent / target).exists(), f"{page.name} links to {link}"


def test_links_are_seen_and_those_in_code_are_not() -> None:
    text = "[a](b.md#c) ![d](e.jpg 'title')\n```\n[no](no.md)\n```\n`[no](no.md)` [f](https://g)"
    assert links(text) == ["b.md#c", "e.jpg", "https://g"]


def sentences(text: str) -> list[str]:
    """Sentences of a page's prose: code, tables and addresses aside; a heading, a paragraph and a list item end one."""
    text = re.sub(r"^---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("    ", "|", ":::"))]
    prose = "\n".join("" if line.startswith("#") else re.sub(r"^ *([-*]|\d+\.) ", "\n", line) for line in lines)
    prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", prose)
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", prose)]
    return [one for block in blocks for one in re.split(r"(?<=[.!?])[*_)”]* ", block) if one]


def words(sentence: str) -> int:
    """Words, with what stands in code marks counting as one."""
    return len(re.sub(r"`[^`]*`", "code", sentence).split())


def too_long(text: str) -> list[str]:
    return [one for one in sentences(text) if words(one) > LONGEST]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_no_sentence_is_long(page: Path) -> None:
    assert too_long(page.read_text("utf-8")) == []


def test_a_long_sentence_is_seen() -> None:
    long = f"Word{' word' * LONGEST}."
    assert too_long(f"# Title\n\nShort one. {long}\n") == [long]
    assert too_long(f"- item\n- {long}") == [long]
    assert too_long(f"```\n{long}\n```\n| {long} |") == []


def test_what_a_page_fetches_from_elsewhere_is_seen() -> None:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.fetched('<script async src="https://a/b.js"></script><img src=//c/d.png>') == [
        "https://a/b.js",
        "//c/d.png",
    ]
    assert hooks.fetched('<link rel="stylesheet" href="https://a/b.css">') == ["https://a/b.css"]
    assert hooks.fetched("<style>@import url('https://fonts/x.css')</style>") == ["https://fonts/x.css"]
    assert hooks.fetched("const a = (await import('https://a/m.mjs')).default") == ["https://a/m.mjs"]
    own = '<script src="../a.js"></script><img src="data:image/png;base64,x"><link rel="canonical" href="https://a/">'
    assert hooks.fetched(f'{own}<a href="https://a/b">follow</a>') == []


def test_the_page_of_versions_says_those_of_the_code() -> None:
    """Each row names its file and the name in it; where it says a number, that is the one."""
    text = (ROOT / "docs" / "decisions" / "versions.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w+) \| .*?`([\w/.]+)`, `(\w+)`.*? \| (.*?) \|", text, re.MULTILINE)
    assert len(rows) == 7
    for _, file, name, now in rows:
        code = (ROOT / file).read_text("utf-8")
        found = re.search(rf"^(?:{name}\b.*? = |def {name}\b)(.*)$", code, re.MULTILINE)
        assert found, f"{name} is not in {file}"
        for number in re.findall(r"\d+(?:\.\d+)*", now):
            assert number in found.group(1), f"{file} has {name} = {found.group(1)}"
