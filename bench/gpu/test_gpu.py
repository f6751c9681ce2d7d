"""The command for a card, tested without a card: its steps, its arithmetic, and parts that are absent, fail or hang."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from bench.gpu import __main__ as gpu
from bench.gpu import card as gpu_card
from bench.gpu import cases as gpu_cases
from bench.gpu import report as gpu_report
from bench.gpu import steps as gpu_steps
from bench.gpu.cases import OURS, Case
from bench.peers.adapter import UnsupportedError
from bench.peers.adapters import headrace as headrace_peer
from bench.peers.client import ROOT, Worker, WorkerError
from bench.peers.devices import Stopwatch
from bench.peers.run import Cell
from bench.peers.worker import Service
from bench.workloads import MAF_43, MAF_64, PLANAR, RADIAL, Workload, existing_weights
from headrace import _core
from headrace._core import cuda_unavailable
from headrace._core import device as _device

PEERS = tuple(library for library in gpu_cases.LIBRARIES if library not in gpu_cases.OWN)


@pytest.fixture(scope="module", autouse=True)
def _surroundings():
    """Child processes import this process's headrace, installed or not; time limits suit a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(hr.__file__).parents[1]))
        patch.setattr(gpu, "BUDGET", 1e4)
        patch.setattr(gpu, "REQUEST", 1e3)
        patch.setattr(gpu, "HELLO", 1e3)
        for step in ("card", "tests", "floors"):
            patch.setitem(gpu_steps.LIMITS, step, 1e3)
        yield


def program(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def dry(folder: Path, *more: str) -> tuple[int, dict, str]:
    """The exit status, the JSON and the Markdown of a dry run."""
    status = gpu.main(["--dry-run", "--output", str(folder / "report"), "--threads", "1", *more])
    return status, json.loads((folder / "report.json").read_text()), (folder / "report.md").read_text()


# ---- the whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all steps, with a fake compute-sanitizer, whose tools find no error, find an error, hang, or die."""
    folder = tmp_path_factory.mktemp("whole")
    say = 'echo "========= ERROR SUMMARY: $1 errors"'
    text = f"""case "$2" in
        memcheck) set 0; {say};;
        racecheck) echo begun; sleep 600;;
        initcheck) set 3; {say}; exit 9;;
        *) exit 1;;
    esac"""
    program(folder / "compute-sanitizer", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        patch.setitem(gpu_steps.LIMITS, "sanitizer", 3.0)
        return dry(folder, "--build", "--libraries", ",".join(gpu_cases.OWN))


def test_a_dry_run_goes_through_all_steps(whole):
    status, results, text = whole
    assert status == 2  # errors that the sanitizer reports
    assert list(results["steps"]) == [
        *("build", "card", "floors", "workloads", "tests"),
        *(f"compute-sanitizer {tool}" for tool in gpu_steps.TOOLS),
    ]
    assert results["steps"]["build"]["status"] == "absent"
    assert all(results["steps"][name]["status"] == "done" for name in ("card", "tests", "floors", "workloads"))
    assert re.search(r"\d+ (skipped|passed)", results["steps"]["tests"]["summary"])
    assert text.startswith("# Dry run on the CPU: these numbers mean nothing\n")
    assert results["date"][:10] in text


def test_the_report_has_the_verdict_of_each_sanitizer_tool(whole):
    _, results, text = whole
    memory, race, init, sync = (results["steps"][f"compute-sanitizer {tool}"] for tool in gpu.TOOLS)
    assert (memory["status"], memory["verdict"]) == ("done", "ERROR SUMMARY: 0 errors")
    assert (race["status"], race["verdict"], race["tail"]) == ("late", None, ["begun"])
    assert 3 <= race["seconds"] < 60
    assert (init["status"], init["verdict"]) == ("failed", "ERROR SUMMARY: 3 errors")
    assert (sync["status"], sync["code"]) == ("failed", 1)
    assert "- compute-sanitizer racecheck: ended by its limit in 3 s" in text


def test_every_workload_is_measured_beside_its_floor(whole):
    _, results, text = whole
    rows = results["rows"]
    names = [gpu_cases.tiny(case.workload).name for case in gpu_cases.CASES]
    assert [row["name"] for row in rows[: len(names)]] == names
    # A step of a fit is a difference of two times; it is missing where a busy machine makes the difference negative.
    assert [row["name"] for row in rows[len(names) :]] in ([], ["ascent 4 1 fit 64"])
    for row in rows:
        cell = row["cells"][OURS]
        assert cell["seconds"] > 0
        assert row["name"] in text
        floor = row["floor"]
        assert floor["seconds"] == max(floor["arithmetic"], floor["memory"])
        assert floor["memory"] == pytest.approx(row["bytes"] / results["floors"]["copy"])
        assert floor["arithmetic"] == pytest.approx(row["operations"] / results["floors"]["products"])
    networks = [row for row in rows if "headrace_tf32" in row["cells"]]
    assert {row["name"].split()[0] for row in networks} == {"maf", "realnvp"}
    assert all("headrace_jax" in row["cells"] for row in networks)
    assert all(row["ratio"] is None for row in networks)  # variants of headrace are no peers
    for row in rows[: len(names)]:
        assert 0 < row["device_seconds"] <= row["cells"][OURS]["seconds"]
        assert row["share"] == pytest.approx(row["floor"]["seconds"] / row["device_seconds"])


class FakeEvent:
    """An event of the simulated device (fake_cuda.py), whose wait waits for the device's default stream."""

    def __init__(self, machine: object) -> None:
        self.machine = machine

    def record(self) -> None:
        """Record nothing, because a wait for the event waits for all queued work."""

    def synchronize(self) -> None:
        self.machine.wait(0)


@pytest.fixture
def service(monkeypatch):
    """headrace's service of a worker on a simulated device, whose clock counts a millisecond for every call."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "fakes")
    import fake_cuda

    machine = fake_cuda.Machine()
    cupy = machine.cupy
    cupy.asnumpy = lambda array: array.get() if isinstance(array, cupy.ndarray) else np.asarray(array)
    monkeypatch.setattr(_core, "cuda", machine.core)
    monkeypatch.setattr(_core, "_missing", "")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    watch = Stopwatch(lambda: FakeEvent(machine), lambda _start, _stop: 1.0)
    monkeypatch.setattr(headrace_peer, "cupy_stopwatch", lambda: watch)
    threads = hr.get_num_threads()
    _device.device_at.cache_clear()
    made = Service(OURS, 1, "cuda")
    assert made.hello({})["present"]
    yield made
    machine.finish()
    _device.device_at.cache_clear()
    hr.set_num_threads(threads)


def test_every_workload_runs_on_arrays_of_the_device(service):
    cupy = sys.modules["cupy"]
    for case in gpu_cases.CASES:
        workload = gpu_cases.tiny(case.workload)
        assert service.prepare({"workload": workload.to_dict(), "warm_up": 1.0})["estimate"] > 0
        reply = service.time({"verb": workload.verb, "seconds": 0.0, "calls": 3})
        assert (reply["calls"], reply["device_median"]) == (1, pytest.approx(1e-3))
        argument = next(service.arguments[workload.verb])
        assert isinstance(argument, int if workload.verb == "sample" else cupy.ndarray), workload.name
    assert service.peak({"seconds": 0.01}) == {"gflops": None}


def test_networks_in_tf32_are_chosen_by_the_workload(service):
    fast, workload = Service("headrace_tf32", 1, "cuda"), gpu_cases.tiny(gpu_cases.MAF)
    assert fast.hello({})["present"]
    for made, matmul in ((fast, "tf32"), (service, "exact")):
        made.prepare({"workload": workload.to_dict(), "warm_up": 1.0})
        assert made.model.log_prob.__self__.matmul == matmul
    for device, hidden in (("cpu", workload.hidden), ("cuda", ())):
        with pytest.raises(UnsupportedError, match="tf32 is for networks on a CUDA device"):
            headrace_peer.build(replace(workload, hidden=hidden), device, matmul="tf32")


# ---- what is absent, fails or hangs ----------------------------------------------------------------------------------


def test_absent_libraries_are_listed_with_reasons(tmp_path):
    python = program(tmp_path / "python", f'exec "{sys.executable}" -S -m bench.no_such_module')
    more = ("--steps", "workloads", "--workloads", "log_prob", "--peer-python", str(python))
    status, results, text = dry(tmp_path, *more, "--libraries", f"{OURS},zuko,nflows,flowjax")
    assert status == 0
    for library in ("zuko", "nflows", "flowjax"):
        assert not results["libraries"][library]["present"]
        assert f"- {library}: absent ({library}: the worker ended" in text
    assert all(OURS in row["cells"] and row["ratio"] is None for row in results["rows"])
    assert results["rows"][0]["floor"] is None  # the step that measures the rates did not run


def test_a_library_that_hangs_costs_its_limit_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "HELLO", 8.0)
    python = program(tmp_path / "python", "exec sleep 600")
    more = ("--steps", "workloads", "--workloads", "planar", "--libraries", f"{OURS},flowjax")
    begin = time.perf_counter()
    status, results, _ = dry(tmp_path, *more, "--peer-python", str(python))
    assert time.perf_counter() - begin < 120
    assert status == 0
    assert results["libraries"]["flowjax"]["reason"] == "flowjax: no reply to 'hello' within 8 s"
    assert len(results["rows"]) == 3
    assert all(OURS in row["cells"] for row in results["rows"])


def test_a_worker_that_died_is_started_anew_and_given_up_in_the_end(monkeypatch):
    monkeypatch.setattr(gpu, "MOST_FAILURES", 2)
    crew = gpu.Crew("dry", 1, sys.executable)
    workload = gpu_cases.tiny(MAF_64)
    try:
        for _ in range(2):
            workers, missing = crew.present([OURS], 60.0)
            assert not missing
            assert gpu.measure(workload, workers, gpu.DRY_PLAN)["cells"][OURS].blocks
            workers[OURS].process.kill()
            workers[OURS].process.wait()
            result = gpu.measure(workload, workers, gpu.DRY_PLAN)
            assert result["failed"] == [OURS]
            assert "the worker ended" in result["missing"][OURS]
            crew.drop(OURS)
        assert crew.present([OURS], 60.0) == ({}, {OURS: "given up after 2 failures"})
    finally:
        crew.close()


def test_a_worker_that_dies_loses_one_workload(tmp_path, monkeypatch):
    right, seen = gpu.measure, []

    def dying(workload: Workload, workers: dict[str, Worker], plan: gpu.TimingPlan) -> dict:
        seen.append(workload)
        if len(seen) == 1:
            workers[OURS].process.kill()
            workers[OURS].process.wait()
        return right(workload, workers, plan)

    monkeypatch.setattr(gpu, "measure", dying)
    monkeypatch.setattr(gpu_report, "is_met", lambda *_: True)
    more = ("--steps", "workloads", "--workloads", "realnvp", "--libraries", OURS)
    status, results, text = dry(tmp_path, *more)
    first, *others = results["rows"]
    assert status == 2
    assert (first["cells"], first["failed"]) == ({}, [OURS])
    assert f"- {first['name']}: {OURS}: {OURS}: the worker ended" in text
    assert others
    assert all(row["cells"][OURS]["blocks"] for row in others)
    assert all(row["met"] is None for row in results["rows"])  # aims are not judged on a simulated card


def test_a_request_has_a_limit(tmp_path):
    worker = Worker("headrace", 1, str(program(tmp_path / "python", "exec sleep 600")), limit=0.2)
    with pytest.raises(WorkerError, match="no reply to 'hello' within 0 s"):
        worker.ask("hello")
    worker.close()


def test_a_truncated_reply_of_a_worker_is_an_error(tmp_path):
    worker = Worker("headrace", 1, str(program(tmp_path / "python", "printf '{\"present\": tr'")))
    with pytest.raises(WorkerError, match="the worker ended"):
        worker.ask("hello")
    worker.close()


def test_a_command_ends_with_all_that_it_started(tmp_path):
    text = f"trap '' TERM\nsleep 600 & echo $! > {tmp_path}/child\necho before\nwait"
    done = gpu_steps.run_command([str(program(tmp_path / "stubborn", text))], 3.0)
    assert done["code"] is None
    assert done["output"] == "before\n"
    assert done["seconds"] < 30
    child, gone = int((tmp_path / "child").read_text()), time.perf_counter() + 5
    while _alive(child) and time.perf_counter() < gone:
        time.sleep(0.01)
    assert not _alive(child)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # a process that has ended, and for which nothing has waited yet


def test_a_program_that_cannot_be_run_has_failed(tmp_path):
    done = gpu_steps.run_command([str(tmp_path / "nothing")], 1.0)
    assert gpu_steps.ended(done)["status"] == "failed"
    assert "No such file" in done["output"]


def test_the_sanitizer_sees_every_family_of_kernels():
    files = [str(path) for path in ROOT.glob("tests/device/test_cuda_*.py")]
    done = gpu_steps.run_command(
        gpu_steps.pytest_command(files, "-k", gpu_steps.SELECTION, "--collect-only", "-qq"), 300.0
    )
    found = re.findall(r"test_cuda_(\w+)\.py::", done["output"])
    assert set(found) == {"adam", "ascent", "coupling", "points", "program", "sequences", "tensor_cores", "vector_ops"}
    assert 40 < len(found) < 100


def test_a_missing_sanitizer_is_reported(monkeypatch):
    monkeypatch.setattr(gpu_steps.shutil, "which", lambda *_, **__: None)
    step = gpu_steps.sanitizer_step("memcheck", 1.0)
    assert step["status"] == "absent"
    assert gpu_report.step_line("memcheck", step).startswith(
        "- memcheck: not run; compute-sanitizer is neither on the PATH"
    )


def test_an_unexpected_error_loses_one_workload(tmp_path, monkeypatch, capsys):
    right = gpu.measure

    def wrong(workload: Workload, *more: object) -> dict:
        if workload.family == "planar":
            raise ZeroDivisionError("of the test")
        return right(workload, *more)

    monkeypatch.setattr(gpu, "measure", wrong)
    more = ("--steps", "workloads", "--workloads", "(planar|radial) .* forward", "--libraries", OURS)
    status, results, text = dry(tmp_path, *more)
    assert status == 2
    assert [row["name"] for row in results["rows"]] == ["radial 4 2 forward 64"] * 2
    assert "- planar 4 2 forward 64: failed; ZeroDivisionError: of the test" in text
    assert "of the test" in capsys.readouterr().err


def test_time_that_is_used_up_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LEAST", 1e9)
    more = ("--steps", "workloads", "--workloads", "planar", "--libraries", OURS)
    status, results, text = dry(tmp_path, *more)
    assert status == 3
    assert results["rows"] == []
    assert "workloads" not in results["steps"]  # the step has not begun
    monkeypatch.setattr(gpu, "LEAST", 5.0)
    right = gpu.measure

    def slow(*arguments: object) -> dict:
        monkeypatch.setattr(gpu, "LEAST", 1e9)
        return right(*arguments)

    monkeypatch.setattr(gpu, "measure", slow)
    status, results, text = dry(tmp_path, *more)
    assert (status, len(results["rows"])) == (3, 1)
    assert results["steps"]["workloads"]["status"] == "begun"
    assert "Not run yet, since the time was used up: planar" in text


def test_the_report_is_written_after_each_step(tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_steps, "floors_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dry(tmp_path, "--steps", "floors,workloads")
    results = json.loads((tmp_path / "report.json").read_text())
    assert results["steps"]["card"]["status"] == "done"
    assert results["steps"]["floors"]["status"] == "begun"


@pytest.mark.skipif(not cuda_unavailable(), reason="there is a device")
def test_without_a_device_the_command_prints_the_reason_and_its_steps(capsys):
    assert gpu.main([]) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"NO CUDA DEVICE TO MEASURE: {cuda_unavailable()}")
    for part in (
        "pip install",
        "--build",
        "floors, workloads, tests, sanitizer",
        "in 3 commands of",
        *(c.workload.name for c in gpu_cases.CASES),
    ):
        assert part in text


@pytest.mark.skipif(not cuda_unavailable(), reason="there is a device")
def test_workers_without_a_device_report_it():
    crew = gpu.Crew("cuda", 1, sys.executable)
    _, missing = crew.present([OURS], 60.0)
    crew.close()
    assert cuda_unavailable() in missing[OURS]


def test_wrong_arguments_are_refused(capsys):
    for argv, words in (
        (["--steps", "tests,nothing"], "--steps: expected some of floors, workloads"),
        (["--libraries", "numpy"], "--libraries: expected some of headrace"),
        (["--dry-run"], "--dry-run needs an --output"),
        (["--dry-run", "--output", "x", "--workloads", "maf 65"], "--workloads: expected a part of maf 64"),
    ):
        with pytest.raises(SystemExit):
            gpu.main(argv)
        assert words in capsys.readouterr().err


# ---- arithmetic ------------------------------------------------------------------------------------------------------

RATES = {"copy": 2e12, "products": 4e13}


def cell(*seconds: float, device: float | None = None, foreseen: bool = False) -> Cell:
    blocks = [{"median": s, "device_median": device, "disturbed": False} for s in seconds]
    return Cell(seconds[0], len(blocks), foreseen, [] if foreseen else blocks)


def row(case: Case, floors: dict | None = None, **cells: Cell) -> dict:
    result = {"cells": cells, "missing": {}}
    return gpu_report.row_of(case, result, RATES if floors is None else floors)


def test_ratios_are_of_the_host_s_time():
    case = Case(replace(MAF_64, verb="sample", rows=100_000), ratio=30)
    found = row(case, headrace=cell(1.0, 2.0, 3.0, device=0.5), zuko=cell(70.0, 60.0, 50.0), nflows=cell(80.0))
    assert (found["best_peer"], found["ratio"], found["met"]) == ("zuko", 30.0, True)
    assert found["band"] == [50 / 3, 70.0]
    assert found["device_seconds"] == 0.5
    assert found["share"] == pytest.approx(case.workload.operations / 4e13 / 0.5)
    less = row(case, headrace=cell(2.01), zuko=cell(60.0))
    assert less["met"] is False
    assert less["share"] == pytest.approx(case.workload.operations / 4e13 / 2.01)  # without a device's clock


def test_estimated_times_are_marked_and_not_judged():
    case = Case(replace(MAF_64, verb="sample"), ratio=30)
    found = row(case, headrace=cell(1.0), zuko=cell(100.0, foreseen=True))
    assert (found["ratio"], found["met"]) == (100.0, None)
    assert "≈ 100 s" in gpu_report.table_row(found, ["zuko"])


def test_rows_without_peers_or_rates_are_not_judged():
    case = Case(MAF_64, ratio=2)
    assert row(case, headrace=cell(1.0))["met"] is None
    assert row(case, zuko=cell(1.0))["ratio"] is None
    found = row(Case(PLANAR, share=0.7), floors={}, headrace=cell(1.0))
    assert found["floor"] is found["share"] is found["met"] is None
    assert gpu_report.table_row(found, [])[2:5] == ["-", "-", "-"]
    assert row(Case(PLANAR, share=0.7), {"copy": 2e12, "products": None}, headrace=cell(1.0))["floor"] is None


def test_shares_are_of_the_devices_time_and_of_the_copy():
    workload = replace(PLANAR, transforms=1, rows=1000)
    memory = 4 * 1000 * (2 * 16 + 1) / 2e12
    case = Case(workload, share=0.7)
    fast, slow = (row(case, headrace=cell(1.0, device=memory / share)) for share in (0.701, 0.699))
    assert fast["floor"]["memory"] == pytest.approx(memory)
    assert fast["floor"]["bound"] == "memory"
    assert fast["share"] == pytest.approx(0.701)
    assert (fast["met"], slow["met"]) == (True, False)


def test_a_share_of_the_copy_is_not_judged_where_the_arithmetic_alone_takes_longer():
    found = row(Case(PLANAR, share=0.7), {"copy": 2e12, "products": 1e12}, headrace=cell(1.0, device=1.0))
    assert (found["floor"]["bound"], found["met"]) == ("arithmetic", None)


def test_a_step_of_a_fit_is_the_difference_of_two():
    short, long = (replace(fit, rows=1000) for fit in gpu_cases.FITS)
    rows = [row(Case(short), headrace=cell(0.5)), row(Case(long), headrace=cell(2.5))]
    found = gpu_report.fit_row(rows, (short, long), RATES)
    assert found["name"] == "ascent 10 1 fit 1000"
    assert found["cells"][OURS]["seconds"] == pytest.approx(2.0 / 100)
    assert found["bytes"] == 2 * 4 * 10 * 1000
    assert found["met"] is False
    assert gpu_report.fit_row(rows[:1], (short, long), RATES) is None
    assert gpu_report.fit_row(rows[::-1], (long, short), RATES) is not None
    worse = [row(Case(short), headrace=cell(2.5)), row(Case(long), headrace=cell(0.5))]
    assert gpu_report.fit_row(worse, (short, long), RATES) is None  # the difference is noise


def test_bytes_and_operations():
    weights = existing_weights("maf", 64, (256, 256), 5)
    maf = replace(MAF_64, rows=1000)
    assert (maf.flops, maf.operations) == (2 * 1000 * weights,) * 2
    assert maf.nbytes == 4 * (1000 * 65 + weights)
    assert replace(maf, verb="sample").nbytes == 4 * (1000 * 64 + weights)
    assert replace(MAF_43, verb="train", rows=10).nbytes == 4 * (430 + 7 * existing_weights("maf", 43, (512, 512), 5))
    assert replace(RADIAL, rows=10).operations == 10 * 32 * (6 * 16 + 2 * 32)
    assert Workload("coupling_map", 8, (), 1, "forward", 10).nbytes == 4 * 10 * (8 + 16 + 8 + 1)
    chain = Workload("dual_ascent", 10, (), 2, "inverse", 100)
    assert chain.flops == 100 * 2 * 2 * 100
    assert chain.operations == chain.flops + 2 * 100 * 2 * 10 * 22
    weights = (
        2 * 3 * 2 * 32 * 32 - 32 * 32 + 2 * 2 * 32 + 32 * 32 + 32 * 31
    )  # two layers, of which the last one has no residual
    assert Workload("wavenet", 100, (), 2, "sample", 7).flops == 2 * 7 * 100 * weights
    assert gpu_cases.ASCENT.nbytes == 2 * 4 * 10 * 10_000_000


def test_chains_with_an_aim_are_bound_by_memory_on_a_card_like_the_h100():
    published = {"copy": 3.35e12, "products": 67e12}  # the data sheet's rates of the SXM module
    for case in gpu_cases.CASES:
        if case.share is not None:
            assert gpu_report.floor_of(case.workload, published)["bound"] == "memory", case.workload.name


# ---- the card --------------------------------------------------------------------------------------------------------


def test_the_name_of_a_report():
    name = gpu_report.stem("NVIDIA H100 80GB HBM3", "2031-02-03 04:05")
    assert str(name.relative_to(ROOT)) == "bench/results/gpu_nvidia-h100-80gb-hbm3_2031-02-03"


def test_the_output_of_nvidia_smi_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path / "nvidia-smi", 'echo "NVIDIA X1, 999.10, 1980 MHz, 1980 MHz, 2619 MHz, 700.00 W, 81559 MiB"')
    found = gpu_card.smi()
    assert (found["name"], found["driver_version"], found["clocks.mem"]) == ("NVIDIA X1", "999.10", "2619 MHz")
    program(tmp_path / "nvidia-smi", "echo no driver; exit 9")
    assert gpu_card.smi() == {}


def test_facts_and_rates_of_a_dry_run():
    for word, keys in (("facts", {"card", "headrace", "installed", "versions"}), ("floors", {"copy", "products"})):
        command = [sys.executable, "-m", "bench.gpu.card", word, "dry"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert keys <= set(json.loads(done.stdout))


def test_rates_without_a_library_for_products(monkeypatch):
    def absent(_device: str) -> float:
        raise ImportError("no cuBLAS")

    monkeypatch.setattr(gpu_card, "own_rate", absent)
    monkeypatch.setattr(gpu_card, "torch_rate", absent)
    found = gpu_card.products_rate("cuda")
    assert found["products"] is None
    assert found["products_missing"] == {"CuPy": "ImportError: no cuBLAS", "PyTorch": "ImportError: no cuBLAS"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x PASSED\n===== 3 passed, 1 skipped in 2.00s =====\n", "3 passed, 1 skipped in 2.00s"),
        ("a PASSED [ 1%]\nb FAILED [ 2%]\nc PASSED [ 3%]\n", "so far 2 passed, 1 failed"),
        ("", "so far 0 passed"),
    ],
)
def test_pytests_summary(text, line):
    assert gpu_steps.summary_line(text) == line
