"""Workflows of the repository: their actions, their rights, and the existence of the commands that they run."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def commands(text):
    """The commands of `run` in a workflow, one a line."""
    return [line.strip() for line in re.findall(r"^ *- run: (.*)$", text, re.MULTILINE)]


def faults(text):
    """Faults of a workflow: actions by a name that can move, rights beyond reading, and steps of .ci/run that do not
    exist."""
    actions = re.findall(r"uses: (.*)", text)
    result = [action for action in actions if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v?[\d.]+", action)]
    top = re.findall(r"^permissions:\n((?:  .*\n)+)", text, re.MULTILINE)
    result += [] if top == ["  contents: read\n"] else [f"permissions {top}"]
    steps = subprocess.run([ROOT / ".ci" / "run", "list"], capture_output=True, text=True, check=True).stdout.split()
    for command in commands(text):
        name, *arguments = command.split("  #")[0].split()
        if name == ".ci/run":
            result += [step for step in arguments if step not in (*steps, "gate", "nightly")]
    return result


def test_each_workflow_reads_alone_and_names_its_actions_by_commit():
    assert [path.name for path in WORKFLOWS] == ["checks.yml", "wheels.yml"]
    assert {path.name: faults(path.read_text()) for path in WORKFLOWS} == {"checks.yml": [], "wheels.yml": []}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683", "actions/checkout@v4"),
        ("contents: read", "contents: write"),
        (".ci/run quick", ".ci/run quickly"),
    ],
)
def test_a_fault_of_a_workflow_is_reported(old, new):
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    assert old in text
    assert faults(text.replace(old, new, 1))


def test_secrets_and_identities_are_those_of_jobs_for_tags_or_the_schedule():
    text = (ROOT / ".github" / "workflows" / "wheels.yml").read_text()
    jobs = dict(re.findall(r"^  (\w+):\n((?:    .*\n)+)", text.partition("\njobs:\n")[2], re.MULTILINE))
    assert {"sdist", "wheels", "publish", "nightly"} == set(jobs)
    guarded = {name for name, job in jobs.items() if "secrets." in job or "id-token: write" in job}
    conditions = {name: re.search(r"^    if: (.*)$", jobs[name], re.MULTILINE)[1] for name in guarded}
    assert conditions == {
        "publish": "startsWith(github.ref, 'refs/tags/v')",
        "nightly": "github.event_name == 'schedule' && vars.NIGHTLY_WHEELS == 'yes'",
    }
    assert all("\n    environment: " in jobs[name] for name in guarded)


def test_a_pull_request_runs_lint_and_the_tests_of_readme():
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    assert "pull_request:" in text
    assert commands(text)[0] == ".ci/run quick"
