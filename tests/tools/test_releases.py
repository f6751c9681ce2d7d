"""A version stands in one place, and what repeats it agrees; pages have the repository's address where there is one."""

import re
import shutil
import subprocess
import sys
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
    assert f'\n  version: "{version}"\n' in (ROOT / "conda" / "recipe.yaml").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev0)?", version)


def test_the_changelog_has_a_section_for_a_version_and_one_for_what_comes_after():
    version = PROJECT["project"]["version"]
    log = (ROOT / "CHANGELOG.md").read_text()
    first = re.findall(r"^## (.*)$", log, re.MULTILINE)[0]
    assert first == "Unreleased" if version.endswith(".dev0") else first.startswith(version)


def test_a_release_s_changes_are_short():
    log = (ROOT / "CHANGELOG.md").read_text()
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", log, re.MULTILINE))
    words = {name: len(re.findall(r"\S*\w\S*", text)) for name, text in sections.items() if name != "Unreleased"}
    assert len(words) >= 4
    assert max(words.values()) <= 600, words


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


@pytest.fixture
def cut(tmp_path):
    """Gives a copy of the files that have the version another one; what the script wrote where it refuses."""
    script = ROOT / ".ci" / "cut_version.py"
    if not script.exists():
        pytest.skip("a source distribution has no .ci")
    for name in (".ci/cut_version.py", "pyproject.toml", "CITATION.cff", "CHANGELOG.md", "conda/recipe.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def run(version):
        command = [sys.executable, str(tmp_path / ".ci" / script.name), version]
        return subprocess.run(command, capture_output=True, text=True).stderr

    run.folder = tmp_path
    return run


def test_a_version_is_cut_and_the_next_one_developed(cut):
    version = PROJECT["project"]["version"].removesuffix(".dev0")
    after = f"{version.split('.')[0]}.{int(version.split('.')[1]) + 1}.0.dev0"
    headings = [] if PROJECT["project"]["version"] == version else ["Unreleased"]
    for one in ([version] if headings else []) + [after]:
        assert cut(one) == ""
        assert tomllib.loads((cut.folder / "pyproject.toml").read_text())["project"]["version"] == one
        assert f"\nversion: {one}\n" in (cut.folder / "CITATION.cff").read_text()
        assert f'\n  version: "{one}"\n' in (cut.folder / "conda" / "recipe.yaml").read_text()
    first, second = re.findall(r"^## (.*)$", (cut.folder / "CHANGELOG.md").read_text(), re.MULTILINE)[:2]
    assert first == "Unreleased"
    assert re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", second)


@pytest.mark.parametrize("version", ["0.5", "v0.5.0", "0.0.1", "99.0.0", "0.0.1.dev0"])
def test_another_version_changes_nothing(cut, version):
    before = {path.name: path.read_bytes() for path in cut.folder.rglob("*") if path.is_file()}
    assert re.fullmatch(r"version: expected .*, got .*\n", cut(version))
    assert before == {path.name: path.read_bytes() for path in cut.folder.rglob("*") if path.is_file()}
