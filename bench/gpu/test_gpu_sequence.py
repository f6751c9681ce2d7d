"""Commands that continue the report of a command that was cut off, in any state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import report
from bench.gpu import __main__ as gpu
from bench.gpu import cases as gpu_cases
from bench.gpu import steps as gpu_steps
from bench.gpu.test_gpu import _alive, _surroundings, dry, program  # noqa: F401 (the first is a fixture)
from bench.peers import run as peers_run
from bench.peers.client import ROOT

OURS = gpu_cases.OURS
MORE = ("--steps", "floors,workloads,tests", "--workloads", "radial", "--libraries", OURS)


@pytest.fixture
def steps(monkeypatch):
    """The list of the steps that ran; each step only records its name."""
    ran = []

    def done(name: str, *more: object):
        def step(*_: object):
            ran.append(name)
            return ({"status": "done", "seconds": 1.0}, *more) if more else {"status": "done", "seconds": 1.0}

        return step

    card = {"card": "X1", "headrace": "1.0", "info": "", "installed": ""}
    monkeypatch.setattr(gpu_steps, "card_step", done("card", card))
    monkeypatch.setattr(gpu_steps, "floors_step", done("floors", {"copy": 1e12, "products": 1e13}))
    monkeypatch.setattr(gpu_steps, "tests_step", done("tests"))
    right = gpu.measure

    def measure(workload, *arguments):
        ran.append(workload.verb)
        return right(workload, *arguments)

    monkeypatch.setattr(gpu, "measure", measure)
    return ran


def test_the_names_of_workloads_are_different():
    """A command recognises measured workloads by their names."""
    names = [case.workload.name for case in gpu_cases.CASES]
    assert len({*names}) == len(names)


def test_finished_steps_are_not_repeated(tmp_path, steps):
    status, first, _ = dry(tmp_path, *MORE)
    assert status == 0
    assert steps == ["card", "floors", "forward", "forward", "inverse", "tests"]
    steps.clear()
    status, again, text = dry(tmp_path, *MORE)
    assert status == 0
    assert steps == ["card"]
    assert again["rows"] == first["rows"]
    assert len(again["calls"]) == 2
    assert "- commands so far: " in text
    steps.clear()
    status, anew, _ = dry(tmp_path, *MORE, "--anew")
    assert len(steps) == 6
    assert len(anew["calls"]) == 1


def test_a_step_without_enough_time_is_left_to_the_next_command(tmp_path, steps, monkeypatch, capsys):
    monkeypatch.setitem(gpu_steps.LEAST, "tests", 1e9)
    status, results, _ = dry(tmp_path, *MORE)
    assert (status, "tests" in results["steps"], len(results["rows"])) == (3, False, 3)
    assert (
        "Still to be run: tests (this was command 1, of 3 that it may take). Give it again." in capsys.readouterr().err
    )
    monkeypatch.setitem(gpu_steps.LEAST, "tests", 1.0)
    steps.clear()
    assert dry(tmp_path, *MORE)[0] == 0
    assert steps == ["card", "tests"]


def test_a_step_that_the_commands_time_ended_is_run_again_and_one_that_its_own_ended_is_not(
    tmp_path, steps, monkeypatch
):
    granted = []

    def late(_device: str, _threads: int, limit: float) -> dict:
        granted.append(limit)
        return {"status": "late", "seconds": limit, "code": None}

    monkeypatch.setattr(gpu_steps, "tests_step", late)
    monkeypatch.setitem(gpu_steps.LEAST, "tests", 1.0)
    more = ("--steps", "tests")
    status, results, text = dry(tmp_path, *more, "--budget", "50")
    assert (status, results["steps"]["tests"]["status"]) == (3, "begun")
    assert "- tests: begun, and to be run again" in text
    status, results, _ = dry(tmp_path, *more)
    assert (status, results["steps"]["tests"]["status"]) == (2, "late")
    assert dry(tmp_path, *more)[0] == 2
    assert len(granted) == 2
    assert granted[0] < 50
    assert granted[1] == gpu_steps.LIMITS["tests"]


@pytest.mark.parametrize("where", ["floors", "tests"])
def test_a_step_that_is_cut_off_twice_is_left_out(tmp_path, steps, monkeypatch, where):
    """A step may be cut off by a hanging machine, for example: the third command goes on after that step."""

    def cut_off(*_: object) -> None:
        steps.append("cut off")
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_steps, f"{where}_step", cut_off)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            dry(tmp_path, *MORE)
    assert steps.count("forward") == (0 if where == "floors" else 2)
    status, results, text = dry(tmp_path, *MORE)
    assert status == 2
    assert steps.count("cut off") == 2
    assert results["steps"][where] == {"status": "cut off", "reason": "the command ended during it 2 times"}
    assert (len(results["rows"]), results["steps"]["workloads"]["status"]) == (3, "done")
    assert f"- {where}: cut off; the command ended during it 2 times" in text


def test_a_workload_that_is_cut_off_twice_is_left_out(tmp_path, steps, monkeypatch):
    right = gpu.measure

    def cut_off(workload, *arguments):
        if workload.verb == "inverse":
            raise KeyboardInterrupt
        return right(workload, *arguments)

    monkeypatch.setattr(gpu, "measure", cut_off)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            dry(tmp_path, *MORE)
    status, results, text = dry(tmp_path, *MORE)
    assert status == 2
    assert steps == ["card", "floors", "forward", "forward", "card", "card", "tests"]
    assert results["steps"]["workloads"]["status"] == "failed"
    assert "no time of radial 16 4 inverse 4194304" in text


def test_a_report_of_another_card_is_not_gone_on_with(tmp_path, steps, monkeypatch, capsys):
    dry(tmp_path, "--steps", "floors")
    other = {"card": "X2", "headrace": "1.0", "info": "", "installed": ""}
    monkeypatch.setattr(gpu_steps, "card_step", lambda *_: ({"status": "done"}, other))
    assert dry(tmp_path, "--steps", "floors")[0] == 2
    assert "is of X1: --anew, or another --output" in capsys.readouterr().err
    assert dry(tmp_path, "--steps", "floors", "--anew")[0] == 0


def test_the_report_is_copied_whenever_it_is_written(tmp_path, steps, monkeypatch):
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_steps, "tests_step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        dry(tmp_path, *MORE, "--copy", str(tmp_path / "copy"))
    for suffix in ("json", "md"):
        copied = tmp_path / "copy" / f"report.{suffix}"
        assert copied.read_text() == (tmp_path / f"report.{suffix}").read_text()


def test_a_report_is_replaced_as_a_whole(tmp_path, monkeypatch):
    report.write(tmp_path / "report", {"whole": True}, "text")

    def torn(self: Path, _text: str) -> None:
        self.write_bytes(b"{")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", torn)
    with pytest.raises(KeyboardInterrupt):
        report.write(tmp_path / "report", {"whole": False}, "text")
    assert json.loads((tmp_path / "report.json").read_text()) == {"whole": True}


def test_a_terminated_command_ends_its_processes(tmp_path):
    """An external time limit sends SIGTERM; the report has then been written, and the next command can continue it."""
    text = f"echo $$ > {tmp_path}/child; exec sleep 600"
    program(tmp_path / "compute-sanitizer", text)
    command = [sys.executable, "-m", "bench.gpu", "--dry-run", "--output", str(tmp_path / "report"), *MORE[2:]]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen([*command, "--steps", "sanitizer"], cwd=ROOT, env=env)
    end = time.perf_counter() + 120
    while not (tmp_path / "child").exists() and time.perf_counter() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    child = int((tmp_path / "child").read_text())
    end = time.perf_counter() + 60
    while _alive(child) and time.perf_counter() < end:
        time.sleep(0.05)
    assert not _alive(child)
    results = json.loads((tmp_path / "report.json").read_text())
    assert results["steps"]["compute-sanitizer memcheck"]["status"] == "begun"


def test_peers_in_this_interpreter_see_its_path(tmp_path, monkeypatch):
    seen = {}

    class FakeWorker:
        def __init__(self, library, _threads, python, path, *_: object):
            seen[library] = python, path.get("PYTHONPATH")

        def ask(self, _word: str) -> dict:
            return {"present": True}

    monkeypatch.setattr(peers_run, "Worker", FakeWorker)
    monkeypatch.setenv("PYTHONPATH", "/packages")
    for python, path in ((sys.executable, "/packages"), ("/other/python", None)):
        gpu.Crew("cuda", 1, python).present([OURS, "zuko"], 60.0)
        assert seen == {OURS: (sys.executable, "/packages"), "zuko": (python, path)}


def test_a_compiler_gets_more_time_than_a_call(monkeypatch):
    class FakeWorker:
        limit = 0.0

        def __init__(self, *_: object):
            pass

        def ask(self, _word: str) -> dict:
            return {"present": True}

    monkeypatch.setattr(peers_run, "Worker", FakeWorker)
    monkeypatch.setattr(gpu, "REQUEST", 60.0)  # the fixture sets a longer limit
    found, _ = gpu.Crew("cuda", 1, sys.executable).present(["zuko", "zuko_compiled"], 500.0)
    assert found["zuko_compiled"].limit == 200.0
    assert found["zuko"].limit == 60.0


def test_the_build_is_for_this_card_and_by_all_cores(monkeypatch):
    environments = []
    monkeypatch.setattr(
        gpu_steps,
        "run_command",
        lambda command, limit, env: environments.append(env) or {"code": 0, "seconds": 1.0, "output": ""},
    )
    gpu_steps.build_step(1.0, None)
    gpu_steps.build_step(1.0, "90-real")
    assert all(
        "--threads 0 --split-compile 0" in env["CUDAFLAGS"] and env["HEADRACE_CUDA"] == "ON" for env in environments
    )
    assert [env.get("CUDAARCHS") for env in environments] == [None, "90-real"]


def test_a_build_without_a_report_file_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.arguments(["--build"])
    assert "--build needs an --output" in capsys.readouterr().err
    assert gpu.arguments(["--build", "--output", "x"]).build
