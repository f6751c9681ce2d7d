"""The commands of README and CONTRIBUTING that the nightly step `commands` runs: all but a list with reasons."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "shown_commands.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="a source distribution has no .ci")


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("shown_commands", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_left_out_are_shown_and_have_a_reason(script, page):
    shown, left_out = script.shown(page), script.NOT_RUN[page]
    assert not set(left_out) - set(shown), "no longer shown"
    assert all(reason.strip() for reason in left_out.values())
    assert script.to_run(page) == [command for command in shown if command not in left_out]


def test_the_commands_that_failed_once_are_run(script):
    assert any("--group docs" in command and "sphinx-build" in command for command in script.to_run("README.md"))
    recipe = script.to_run("CONTRIBUTING.md")
    assert recipe[0].startswith("python3 -m venv .venv")
    assert any("--group dev" in command for command in recipe)
    assert any(command.startswith("cmake --preset dev && cmake --build") for command in recipe)


def test_every_way_of_showing_a_command_is_read(script, monkeypatch, tmp_path):
    (tmp_path / "PAGE.md").write_text(
        "Run `pip install x` or `headrace info`; `headrace` alone and `hr.load` are none.\n\n"
        "`.ci/run lint` finds what it is made for.\n\n"
        "    cmake --preset dev\n\n"
        "| all | `pytest -n auto` |\n\n"
        "```sh\npython -m venv here\n```\n\n"
        "```python\npip = 3\n```\n\n"
        "<!-- tests -->\n\n    python3 -m venv .venv && that\n\n<!-- end -->\n"
    )
    monkeypatch.setattr(script, "ROOT", tmp_path)
    want = [
        "tests",
        "pip install x",
        "headrace info",
        ".ci/run lint",
        "cmake --preset dev",
        "pytest -n auto",
        "python -m venv here",
    ]
    assert script.shown("PAGE.md") == want
    monkeypatch.setattr(script, "NOT_RUN", {"PAGE.md": {"tests": "elsewhere", "pytest -n auto": "long"}})
    assert script.to_run("PAGE.md") == [*want[1:5], want[6]]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_commands_to_run_are_a_script(page):
    made = subprocess.run(["python3", str(SCRIPT), page], capture_output=True, text=True, check=True).stdout
    subprocess.run(["bash", "-n"], input=made, text=True, check=True)


def test_the_nightly_steps_run_the_commands():
    nightly = re.search(r'^only_nightly="(.*)"$', (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)[1]
    assert "commands" in nightly.split()
    assert re.search(r"^commands\(\) \{$", (ROOT / ".ci" / "steps").read_text(), flags=re.MULTILINE)
