"""A version is defined once, and its copies agree; pages have the repository's address if there is one."""

import email
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import headrace as hr
from headrace import _cpu

tomllib = pytest.importorskip("tomllib")  # Python 3.11 has this module

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_build_and_the_citation_have_the_version_of_pyproject():
    version = PROJECT["project"]["version"]
    assert hr.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f'\n  version: "{version}"\n' in (ROOT / "conda" / "recipe.yaml").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev0)?", version)


def test_the_changelog_has_a_section_for_a_version_and_one_for_the_next():
    version = PROJECT["project"]["version"]
    log = (ROOT / "CHANGELOG.md").read_text()
    first = re.findall(r"^## (.*)$", log, re.MULTILINE)[0]
    assert first == "Unreleased" if version.endswith(".dev0") else first.startswith(version)


def test_a_release_s_changes_are_short():
    log = (ROOT / "CHANGELOG.md").read_text()
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", log, re.MULTILINE))
    words = {name: len(re.findall(r"\S*\w\S*", text)) for name, text in sections.items() if name != "Unreleased"}
    words["In short"] = len(re.findall(r"\S*\w\S*", short_of(log)))
    assert len(words) >= 5
    assert max(words.values()) <= 600, words


def test_headings_of_the_changelog_skip_no_level():
    levels = [len(marks) for marks in re.findall(r"^(#+) ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def short_of(log):
    """The summary of the unreleased changes, which a release keeps, or an empty string."""
    return next(iter(re.findall(r"(?ms)^### In short\n\n[^\n]*\n\n(.*?)^## ", log)), "")


def test_pages_have_the_address_of_the_repository_where_there_is_one():
    address = PROJECT["tool"]["headrace"]["repository"]
    for page in ("README.md", "docs/index.md", "CITATION.cff"):
        text = (ROOT / page).read_text()
        assert bool(address) == bool(re.search(r"^(repository-code|.*Repository): ", text, re.MULTILINE)), page
        assert not address or address in text
    assert (PROJECT["project"].get("urls", {}).get("Repository", "")) == address


def test_the_badges_agree_with_pyproject():
    badges = (ROOT / "docs" / "images" / "badges.svg").read_text(encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    alternative = f"Python {versions[0]} to {versions[-1]}, typed, {PROJECT['project']['license']}"
    assert f'aria-label="{alternative}"' in badges
    assert f">{versions[0]} – {versions[-1]}</text>" in badges
    assert f">{PROJECT['project']['license']}</text>" in badges
    assert f"![{alternative}](docs/images/badges.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")


ADDRESS = "https://example.org/some/headrace"


def links(text):
    """Links and pictures of a page of Markdown, as pairs of a picture's mark, or "", and the target."""
    return re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text)


@pytest.fixture
def described(tmp_path):
    """A function that returns the description of a package, for an address of the repository and a version."""
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed")
    for name in ("pyproject.toml", "README.md", "LICENSE", "cmake/long_description.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "python" / "headrace").mkdir(parents=True)

    def description(address, version):
        project = re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', (ROOT / "pyproject.toml").read_text())
        project = re.sub(r"(?m)^\[project.urls\]\n(.+\n)*", "", project)
        urls = f'[project.urls]\nRepository = "{address}"\n\n' if address else ""
        (tmp_path / "pyproject.toml").write_text(project.replace("[project.scripts]", f"{urls}[project.scripts]"))
        code = "from scikit_build_core.build import prepare_metadata_for_build_wheel as made; made('out')"
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
        (found,) = tmp_path.glob(f"out/headrace-{version}.dist-info/METADATA")
        return email.message_from_bytes(found.read_bytes())

    return description


@pytest.mark.parametrize(("version", "at"), [("1.2.3", "v1.2.3"), ("1.2.0.dev0", "main")])
def test_links_of_a_package_s_description_have_the_address_of_the_repository(described, version, at):
    metadata = described(ADDRESS, version)
    assert metadata["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / "README.md").read_text()
    before, after = links(readme), links(metadata.get_payload(decode=True).decode())
    assert len(before) == len(after) > 30
    assert ("!", f"{ADDRESS}/raw/{at}/docs/images/one_pass.svg") in after
    assert ("", f"{ADDRESS}/blob/{at}/docs/training.md#when-they-do-not-fit") in after
    for (picture, old), (same, new) in zip(before, after, strict=True):
        assert picture == same
        if old.startswith(("https:", "#")):
            assert new == old
        else:
            assert new == f"{ADDRESS}/{'raw' if picture else 'blob'}/{at}/{old}"


def test_a_description_without_an_address_is_readme(described):
    assert described("", "1.2.3").get_payload(decode=True).decode() == (ROOT / "README.md").read_text()


def test_a_build_from_a_clone_has_its_commit():
    """Builds in place have no commit, because their sources change."""
    assert re.fullmatch(r"|[0-9a-f]{12}(-dirty)?", _cpu.commit)
    assert hr.info()["commit"] == _cpu.commit


@pytest.fixture
def cut(tmp_path):
    """A function that sets another version in a copy of the files, and returns the script's message if the script
    refuses."""
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
    log = (cut.folder / "CHANGELOG.md").read_text()
    first, second = re.findall(r"^## (.*)$", log, re.MULTILINE)[:2]
    assert first == "Unreleased"
    if headings:
        short = short_of((ROOT / "CHANGELOG.md").read_text()).replace("\n#### ", "\n### ")
        assert f"\n## {second}\n\n{short}" in log
    assert re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", second)


def test_headings_of_a_cut_version_are_below_its_own(cut):
    if not PROJECT["project"]["version"].endswith(".dev0"):
        assert cut("99.0.0.dev0") == ""
    version = tomllib.loads((cut.folder / "pyproject.toml").read_text())["project"]["version"].removesuffix(".dev0")
    log = cut.folder / "CHANGELOG.md"
    older = log.read_text().split("## Unreleased\n", 1)[1].split("\n## ", 1)[1]
    long = "## Unreleased\n\n- Long.\n\n### In short\n\nA sentence.\n\n"
    log.write_text(f"# Changelog\n\n{long}- One.\n\n#### Pages\n\n- Two.\n\n## {older}")
    assert cut(version) == ""
    assert re.search(r"^## .*\)\n\n- One.\n\n### Pages\n\n- Two.\n\n## ", log.read_text(), re.MULTILINE)
    assert log.read_text().endswith(older)


@pytest.mark.parametrize("version", ["0.5", "v0.5.0", "0.0.1", "99.0.0", "0.0.1.dev0"])
def test_another_version_changes_nothing(cut, version):
    before = {path.name: path.read_bytes() for path in cut.folder.rglob("*") if path.is_file()}
    assert re.fullmatch(r"version: expected .*, got .*\n", cut(version))
    assert before == {path.name: path.read_bytes() for path in cut.folder.rglob("*") if path.is_file()}


def test_the_tests_of_wheels_start_on_every_runner():
    wheels = PROJECT["tool"]["cibuildwheel"]
    command = wheels["test-command"]
    assert "'" not in command, "the shell of Windows has no single quotes"
    assert "not emulated" in command, "the emulation of a device would be compiled on each runner"
    folders = re.findall(r"\{project\}/(\S+)", command)
    assert len(folders) >= 8
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert set(wheels["test-groups"]) <= set(PROJECT["dependency-groups"])
    assert wheels["windows"]["environment"]["CXX"] == "clang++"
