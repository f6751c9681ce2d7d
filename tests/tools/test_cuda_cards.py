"""The cards for which a build makes the module for CUDA, on simulated machines with different cards."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CMAKE = shutil.which("cmake")
DEFAULT = "80-real;90-real;90-virtual"

pytestmark = [
    pytest.mark.skipif(CMAKE is None, reason="cmake is not installed"),
    pytest.mark.skipif(sys.platform == "win32", reason="the programs that it fakes are shell scripts"),
]


@pytest.fixture
def machine(tmp_path):
    """A function that makes a machine's environment from the driver's list of cards, or from None if nvidia-smi
    fails."""

    def make(cards, **environment):
        devices, programs = tmp_path / "dev", tmp_path / "programs"
        devices.mkdir()
        programs.mkdir()
        if cards != []:
            (devices / "nvidia0").touch()
        smi = programs / "nvidia-smi"
        smi.write_text(
            "#!/bin/sh\nexit 9\n" if cards is None else "#!/bin/sh\n" + "".join(f"echo '{c}'\n" for c in cards)
        )
        smi.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name != "CUDAARCHS"}
        return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", **environment}, f"-DHEADRACE_DEVICES={devices}"

    return make


CARDS = [
    (["7.5, Tesla T4"], "native", "Tesla T4 of compute capability 7.5"),
    (["7.0, Tesla V100-SXM2-16GB", "6.0, Tesla P100-PCIE-16GB", "6.0, Tesla P100-PCIE-16GB"], "native",
     "Tesla V100-SXM2-16GB of compute capability 7.0, Tesla P100-PCIE-16GB of compute capability 6.0"),
    (["8.0, NVIDIA A100-SXM4-40GB"], "80-real", ""),
    (["7.5, Tesla T4", "8.6, NVIDIA GeForce RTX 3090", "12.0, NVIDIA GeForce RTX 5090"], "86-real;120-real", ""),
    (["9.0, NVIDIA H100", "9.0, NVIDIA H100"], "90-real", ""),
    (["No devices were found"], "native", ""),  # CMake asks the compiler for "native"
    (None, "native", ""),
    ([], DEFAULT, ""),
]  # fmt: skip


@pytest.mark.parametrize(("cards", "architectures", "too_old"), CARDS)
def test_architectures_are_those_of_the_cards_that_kernels_run_on(machine, tmp_path, cards, architectures, too_old):
    environment, devices = machine(cards)
    script = tmp_path / "script.cmake"
    script.write_text(
        f"include({ROOT}/cuda/architectures.cmake)\nfile(WRITE {tmp_path}/found "
        '"${CMAKE_CUDA_ARCHITECTURES}|${cuda_too_old}")\n'
    )
    subprocess.run([CMAKE, devices, "-P", script], env=environment, check=True)
    assert (tmp_path / "found").read_text().split("|") == [architectures, too_old]


@pytest.mark.parametrize("given", ["environment", "argument"])
def test_architectures_that_are_named_are_left_alone(machine, tmp_path, given):
    environment, devices = machine(["7.5, Tesla T4"], **({"CUDAARCHS": "90-real"} if given == "environment" else {}))
    arguments = ["-DCMAKE_CUDA_ARCHITECTURES=90-real"] if given == "argument" else []
    script = tmp_path / "script.cmake"
    script.write_text(
        f"include({ROOT}/cuda/architectures.cmake)\nfile(WRITE {tmp_path}/found "
        '"${CMAKE_CUDA_ARCHITECTURES}$ENV{CUDAARCHS}|${cuda_too_old}")\n'
    )
    subprocess.run([CMAKE, devices, *arguments, "-P", script], env=environment, check=True)
    assert (tmp_path / "found").read_text() == "90-real|"


@pytest.mark.parametrize(
    ("cards", "wish"),
    [(["7.5, Tesla T4"], "AUTO"), (["7.5, Tesla T4"], "ON"), (None, "AUTO")],
    ids=["listed-AUTO", "listed-ON", "asked of the compiler-AUTO"],
)
def test_an_old_card_does_not_end_a_build_without_explicit_cuda(machine, tmp_path, cards, wish):
    """Where nvidia-smi is missing, nvcc finds no card on this machine, and takes the oldest architecture that it
    supports."""
    if cards is None and shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    if cards is None and list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a card")
    environment, devices = machine(cards)
    command = [CMAKE, "-S", ROOT, "-B", tmp_path / "build", devices, f"-DHEADRACE_CUDA={wish}", "-DHEADRACE_NATIVE=ON",
               f"-DPython_EXECUTABLE={sys.executable}"]  # fmt: skip
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    output = " ".join((run.stdout + run.stderr).split())
    named = "Tesla T4 of compute capability 7.5" if cards else "a card of compute capability"
    assert f"{named}" in output
    assert "need compute capability 8.0" in output
    assert (run.returncode == 0) == (wish == "AUTO")
    if wish == "AUTO":
        assert "the module _cuda is not built" in output
        help_of = [CMAKE, "--build", tmp_path / "build", "--target", "help"]
        targets = subprocess.run(help_of, capture_output=True, text=True, check=True).stdout
        assert "_cpu" in targets
        assert "_cuda" not in targets
