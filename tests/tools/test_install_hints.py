"""Commands in messages and pages install headrace from its source, by one constant, never by an unregistered name."""

import re
import subprocess
from pathlib import Path

import pytest

from headrace._base import install as _install

ROOT = Path(__file__).parents[2]
TEXTS = (".py", ".md", ".toml", ".txt", ".hpp", ".cpp", ".cuh", ".cu", ".yml", ".yaml", ".cmake", ".pyi")
# The options of an install command, and the first requirement after them.
COMMAND = re.compile(r"pip3? install(?: +-[-\w=]+)* +(\"[^\"]*\"|'[^']*'|[\w.\[\],]+)")


def files():
    """Tracked files, and untracked ones that git does not ignore."""
    named = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(named, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in found if name.endswith(TEXTS) and (ROOT / name).is_file()]


def requirements(text):
    """Packages that the commands in a text install, with the brackets of extras."""
    return [found.strip("\"'") for found in COMMAND.findall(text)]


def wrong(text):
    """Packages that a text installs under headrace's name although it is unregistered, or with extras in the wrong
    form."""
    bad = [one for one in requirements(text) if re.match(r"headrace\b", one) and _install.PROJECT != "headrace"]
    bad += re.findall(r"--no-binary[ =]headrace", text) if _install.PROJECT == "." else []
    bad += re.findall(r"(?<![\w./-])headrace\[\w[\w,]*\]", text) if _install.PROJECT != "headrace" else []
    return bad + [one for one in requirements(text) if one.startswith(".[") and _install.PROJECT != "."]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_pages_and_messages_install_no_package_by_an_unregistered_name():
    texts = files()
    assert len(texts) > 500
    found = {str(file.relative_to(ROOT)): wrong(file.read_text()) for file in texts if file != Path(__file__)}
    assert not {name: bad for name, bad in found.items() if bad}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_every_extra_that_is_named_exists():
    project = (ROOT / "pyproject.toml").read_text()
    section = project.split("[project.optional-dependencies]\n")[1].split("\n[dependency-groups]")[0]
    extras, named = set(re.findall(r"^(\w+) = \[", section, flags=re.MULTILINE)), set()
    for file in files():
        text = file.read_text()
        named |= {one for found in re.findall(r"pip install [\"']?\.\[([\w,]+)\]", text) for one in found.split(",")}
        named |= set(re.findall(r"\binstall\([\"'](\w+)[\"']\)", text)) if "python/headrace" in str(file) else set()
    assert named <= extras
    assert len(named) > 10


@pytest.mark.parametrize(
    "text",
    [
        'pip install "headrace[plot]"',
        "pip install 'headrace[torch]'",
        "pip install headrace",
        "HEADRACE_JAX=1 pip install --no-binary headrace headrace",
        "pip install --upgrade headrace",
        "pip install -q --no-binary=headrace .",
        "install headrace[cuda12] or others",
    ],
)
def test_refused_commands(text):
    assert wrong(text)


@pytest.mark.parametrize(
    "text",
    [
        'pip install ".[plot]"',
        "pip install . && headrace demo",
        "pip install --group docs",
        'pip install "jax[cuda13]"',
    ],
)
def test_accepted_commands(text):
    assert not wrong(text)


def test_a_release_changes_one_constant(monkeypatch):
    assert _install.install("plot") == 'pip install ".[plot]" in the clone of headrace'
    assert _install.rebuild("HEADRACE_SETS=ALL") == "HEADRACE_SETS=ALL pip install ."
    monkeypatch.setattr(_install, "PROJECT", "headrace")
    assert _install.install("plot") == 'pip install "headrace[plot]"'
    assert _install.rebuild("HEADRACE_CUDA=ON") == "HEADRACE_CUDA=ON pip install --no-binary headrace headrace"
    assert not wrong('pip install "headrace[plot]"')
    # After a release, a command that installs from the source is an error, so that pages are updated.
    assert wrong('pip install ".[plot]"')
