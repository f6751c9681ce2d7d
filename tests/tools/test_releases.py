"""A version stands in one place, and what repeats it agrees; pages have the repository's address where there is one."""

import re
from pathlib import Path

import pytest

import headrace as hr
from headrace import _cpu

tomllib = pytest.importorskip("tomllib")  # of Python 3.11

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_build_and_the_citation_have_the_version_of_pyproject():
    version = PROJECT["project"]["version"]
    assert hr.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev0)?", version)


def test_the_changelog_has_a_section_for_a_version_and_one_for_what_comes_after():
    version = PROJECT["project"]["version"]
    log = (ROOT / "CHANGELOG.md").read_text()
    first = re.findall(r"^## (.*)$", log, re.MULTILINE)[0]
    assert first == "Unreleased" if version.endswith(".dev0") else first.startswith(version)


def test_pages_have_the_address_of_the_repository_where_there_is_one():
    address = PROJECT["tool"]["headrace"]["repository"]
    for page in ("README.md", "docs/index.md", "CITATION.cff"):
        text = (ROOT / page).read_text()
        assert bool(address) == bool(re.search(r"^(repository-code|.*Repository): ", text, re.MULTILINE)), page
        assert not address or address in text
    assert (PROJECT["project"].get("urls", {}).get("Repository", "")) == address


def test_a_build_from_a_clone_has_its_commit():
    """Builds in place have none, because their sources change."""
    assert re.fullmatch(r"|[0-9a-f]{12}(-dirty)?", _cpu.commit)
    assert hr.info()["commit"] == _cpu.commit
