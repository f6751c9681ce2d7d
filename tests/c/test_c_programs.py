"""Programs in C and C++ that are compiled with the flags of headrace.config, CMake and pkg-config."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import c_library
import cases
import headrace as hr
import sequence_cases
from headrace import _cpu
from headrace.config.__main__ import library_folder

pytestmark = [pytest.mark.programs, pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")]

ROOT = Path(__file__).parents[2]
C = ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
CXX = ["c++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


@functools.cache  # most programs need the same flags
def config(*options):
    """The output of ``python -m headrace.config``."""
    run = [sys.executable, "-m", "headrace.config", *options]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()


def run(*command, **given):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=c_library.environment(), **given)


def compiled(compiler, source, output, *more):
    done = run(*compiler, source, *config("--cflags", "--libs"), *more, "-o", output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "flow.safetensors"
    made = cases.randomise(hr.MAF(3, 2, transforms=2, hidden=(16,)), 0.2, "c programs")
    made.save(path)
    return made, path


def test_every_function_from_c(tmp_path, flow):
    program = compiled(C, ROOT / "tests/c/calls.c", tmp_path / "calls", "-pthread")
    done = run(program, flow[1], ROOT / "tests/files/0.5.0/sequences/chain-float32.safetensors")
    assert done.stdout == "0 failed\n", done.stdout + done.stderr
    assert done.returncode == 0


def test_the_example_in_c(tmp_path):
    made = cases.randomise(hr.NSF(3, transforms=1, hidden=(8,)), 0.2, "c example")
    made.save(tmp_path / "flow.safetensors")
    program = compiled(C, ROOT / "examples/c/draw.c", tmp_path / "draw")
    done = run(program, tmp_path / "flow.safetensors", 40, 9)
    assert done.returncode == 0, done.stderr
    table = np.array([line.split(",") for line in done.stdout.splitlines()], float)
    np.testing.assert_array_equal(table[:, :3], made.sample(40, seed=9, dtype="float64"))
    np.testing.assert_array_equal(table[:, 3], made.sample_and_log_prob(40, seed=9)[1])
    refused = run(program, tmp_path / "none", 40, 9)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"draw: error: {tmp_path}/none: expected a file that can be read\n",
    )


def test_the_example_of_a_signal(tmp_path):
    flow = sequence_cases.wavenet("c signal", layers=4, standardize=(0.0, 300.0), dtype="float32")
    flow.save(tmp_path / "flow.safetensors")
    program = compiled(C, ROOT / "examples/c/signal.c", tmp_path / "signal")
    signal = np.round(300 * np.sin(np.arange(1200) / 9)).astype("<i2")

    def piped(*arguments):
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, input=signal.tobytes(), capture_output=True, env=c_library.environment())

    done = piped("score", tmp_path / "flow.safetensors")
    assert done.returncode == 0, done.stderr
    x = signal.astype("float32")[None, :, None]
    np.testing.assert_array_equal(np.array(done.stdout.split(), "float32"), flow.log_prob_steps(x)[0])
    done = piped("continue", tmp_path / "flow.safetensors", 700, 3)
    assert done.returncode == 0, done.stderr
    stream = flow.stream()
    stream.push(x)
    want = stream.pull(700, seed=3)[0, :, 0]
    got = np.frombuffer(done.stdout, "<i2")
    assert np.abs(want).max() < 32767
    np.testing.assert_array_equal(got, np.trunc(want + np.copysign(np.float32(0.5), want)))
    hr.MAF(1).save(tmp_path / "rows.safetensors")
    refused = piped("score", tmp_path / "rows.safetensors")
    message = b"signal: error: flow: expected one of sequences, got one of rows, which has no streams\n"
    assert (refused.returncode, refused.stderr) == (1, message)
    assert piped("score").returncode == 2


@pytest.mark.costly
def test_streams_in_cpp(tmp_path):
    flow = sequence_cases.wavenet("c++ streams", context=1, covariates=2, hop=4, dtype="float32")
    flow.save(tmp_path / "flow.safetensors")
    program = compiled(CXX, ROOT / "tests/c/streams.cpp", tmp_path / "streams")
    done = run(program, tmp_path / "flow.safetensors")
    assert done.returncode == 0, done.stderr
    x, frames = np.sin(np.arange(24) / 3).astype("float32")[None, :, None], np.array([[1.0, -1.0]] * 8, "float32")
    stream = flow.stream(context=np.array([0.5]), covariates=frames)
    want = [*stream.push(x)[0], *stream.copies(2).pull(4, seed=7).ravel()]
    np.testing.assert_allclose(np.array(done.stdout.split(), "float32"), want, rtol=1e-5, atol=1e-5)


@pytest.mark.costly
def test_containers_in_cpp(tmp_path):
    made = cases.randomise(hr.MAF(3, 2, transforms=2, hidden=(16,), dtype="float64"), 0.2, "containers")
    made.save(tmp_path / "flow.safetensors")
    sequence_cases.wavenet("c++ streams", context=1, dtype="float32").save(tmp_path / "steps.safetensors")
    program = compiled(CXX, ROOT / "tests/c/containers.cpp", tmp_path / "containers")
    done = run(program, tmp_path / "flow.safetensors", tmp_path / "steps.safetensors")
    assert done.returncode == 0, done.stdout + done.stderr
    x, log_prob = made.sample_and_log_prob(2, np.array([0.5, -0.25]), seed=7, first_row=20)
    np.testing.assert_array_equal(np.array(done.stdout.split(), float), [*x.ravel(), *log_prob])


def fortran():
    """The command of a Fortran compiler: HEADRACE_FORTRAN, or gfortran where it is installed."""
    command = os.environ.get("HEADRACE_FORTRAN") or shutil.which("gfortran")
    return command.split() if command else pytest.skip("no Fortran compiler")


def test_the_example_in_fortran(tmp_path):
    made = cases.randomise(hr.NSF(3, transforms=1, hidden=(8,)), 0.2, "fortran example")
    made.save(tmp_path / "flow.safetensors")
    compiler = [*fortran(), "-std=f2018", "-Wall", "-Wextra", "-Werror", "-O1", f"-J{tmp_path}"]
    program = tmp_path / "draw"
    done = run(*compiler, ROOT / "examples/c/draw.f90", *config("--libs"), "-o", program)
    assert done.returncode == 0, done.stderr
    done = run(program, tmp_path / "flow.safetensors", 40, 9)
    assert done.returncode == 0, done.stderr
    table = np.array([line.split(",") for line in done.stdout.splitlines()], float)
    np.testing.assert_array_equal(table[:, :3], made.sample(40, seed=9, dtype="float64"))
    np.testing.assert_array_equal(table[:, 3], made.sample_and_log_prob(40, seed=9)[1])
    refused = run(program, tmp_path / "none", 40, 9)
    message = f"draw: error: {tmp_path}/none: expected a file that can be read\n"
    assert (refused.returncode, refused.stderr) == (1, message)
    refused = run(program, tmp_path / "flow.safetensors")
    assert (refused.returncode, refused.stderr) == (1, "draw: error: expected DENSITY.safetensors ROWS SEED\n")


def r():
    """The command of R: HEADRACE_R, or R where it is installed."""
    command = os.environ.get("HEADRACE_R") or shutil.which("R")
    return [command, "--no-echo", "--vanilla"] if command else pytest.skip("no R")


def test_the_example_in_r(tmp_path):
    made = cases.randomise(hr.NSF(3, transforms=1, hidden=(8,)), 0.2, "r example")
    made.save(tmp_path / "flow.safetensors")
    asked = run(*r(), "-e", 'cat(R.home("include"))')
    assert asked.returncode == 0, asked.stderr
    # R's header has the settings of the compiler that built R, which may support C23's enumerations, unlike this
    # compiler.
    (tmp_path / "Rconfig.h").write_text("#include_next <Rconfig.h>\n#undef HAVE_ENUM_BASE_TYPE\n")
    shared = [*C, "-shared", "-fPIC", "-isystem", tmp_path, "-isystem", asked.stdout]
    compiled(shared, ROOT / "examples/c/headrace_r.c", tmp_path / "headrace_r.so")

    def draw(*given):
        script = [*r(), f"--file={ROOT / 'examples/c/draw.R'}", "--args", *map(str, given)]
        return subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, env=c_library.environment())

    done = draw("flow.safetensors", 40, 9)
    assert done.returncode == 0, done.stderr
    table = np.array([line.split(",") for line in done.stdout.splitlines()], float)
    np.testing.assert_array_equal(table[:, :3], made.sample(40, seed=9, dtype="float64"))
    np.testing.assert_array_equal(table[:, 3], made.sample_and_log_prob(40, seed=9)[1])
    nothing = draw("flow.safetensors", 0, 9)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "")
    refused = draw("none", 40, 9)
    assert (refused.returncode, refused.stderr) == (1, "draw: error: none: expected a file that can be read\n")
    refused = draw("flow.safetensors", 40, -1)
    message = "draw: error: seed: expected a whole number from 0 to 2^53\n"
    assert (refused.returncode, refused.stderr) == (1, message)
    assert draw("flow.safetensors").stderr == "draw: error: expected DENSITY.safetensors ROWS SEED\n"


@pytest.mark.costly
def test_the_example_in_cpp(tmp_path, flow):
    program = compiled(CXX, ROOT / "examples/c/posterior.cpp", tmp_path / "posterior")
    done = run(program, flow[1], 0.5, -1)
    assert done.returncode == 0, done.stderr
    *lines, density = done.stdout.splitlines()
    table = np.array([line.split(",") for line in lines], float)
    x = flow[0].sample(10_000, np.array([0.5, -1.0]), seed=1, dtype="float64")
    np.testing.assert_allclose(table[:, 0], x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table[:, 1], x.std(axis=0), rtol=1e-4)
    log_prob, score = flow[0].log_prob_and_score(x.mean(axis=0), np.array([0.5, -1.0]))
    np.testing.assert_allclose(float(density), log_prob, rtol=1e-6)
    np.testing.assert_allclose(table[:, 2], score, rtol=1e-3, atol=1e-4)
    refused = run(program, flow[1], 0.5)
    assert refused.stderr == "posterior: error: expected rows of 2 values, got 1 values in all\n"


@pytest.mark.costly
def test_the_example_of_showers(tmp_path, flow):
    """The showers of two events have the bits of one sample for the particles of both events."""
    program = compiled(CXX, ROOT / "examples/c/shower.cpp", tmp_path / "shower")
    particles = [[2.0, -1.0], [0.5, 0.0], [1.0, 0.25], [3.0, 0.5]]
    lines = [" ".join(map(str, one)) for one in particles]
    done = run(program, flow[1], 7, input="\n".join([*lines[:3], "", *lines[3:]]))
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed.pop(0) == "tracked in detail"
    taken = np.array([one for one in particles if one[0] >= 1.0], np.float32)
    want = flow[0].sample(3, taken, seed=7, first_row=0, dtype="float32")
    np.testing.assert_array_equal(np.array([line.split(",") for line in printed], np.float32), want)
    refused = run(program, flow[1])
    assert (refused.returncode, refused.stderr) == (2, "usage: shower DENSITY.safetensors SEED\n")


CMAKE = """
cmake_minimum_required(VERSION 3.16)
project(draw LANGUAGES C CXX)
find_package(headrace {version} REQUIRED)
add_executable(draw "{draw}")
target_link_libraries(draw PRIVATE headrace::headrace)
add_executable(own own.cpp)
target_link_libraries(own PRIVATE headrace::runtime)
"""
# The program does not use the header's templates, which take seconds to compile; tests/runtime compiles the example
# that uses them.
OWN = """
#include <headrace.hpp>
#include <iostream>
static_assert(__cplusplus >= 201703L);
int main() {
  try {
    throw headrace::FileFormatError("found");
  } catch (const std::runtime_error& error) {
    std::cout << error.what();
  }
}
"""


@pytest.mark.costly
def test_cmake_finds_the_library(tmp_path, flow):
    if shutil.which("cmake") is None:
        pytest.skip("no CMake")
    version = ".".join(hr.__version__.split(".")[:2])
    text = CMAKE.format(version=version, draw=ROOT / "examples/c/draw.c")
    (tmp_path / "CMakeLists.txt").write_text(text)
    (tmp_path / "own.cpp").write_text(OWN)
    (folder,) = config("--cmakedir")
    for command in (
        ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dheadrace_DIR={folder}", "-DCMAKE_BUILD_TYPE=Debug"],
        ["cmake", "--build", tmp_path / "build"],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(tmp_path / "build" / "draw", flow[1], 1, 1)
    assert done.stderr == "draw: error: context: expected 2 columns, got NULL\n"
    assert run(tmp_path / "build" / "own").stdout == "found"


def test_pkg_config_finds_the_library():
    tool = shutil.which("pkg-config") or shutil.which("pkgconf")
    if tool is None:
        pytest.skip("no pkg-config")
    (folder,) = config("--pkgconfigdir")
    found = subprocess.run(
        [tool, "--cflags", "--libs", "headrace"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PKG_CONFIG_PATH": folder},
    ).stdout.split()
    assert [os.path.realpath(option[2:]) for option in found if option.startswith("-I")] == [hr.config.include()]
    assert "-lheadrace" in found
    assert [os.path.realpath(o[2:]) for o in found if o.startswith("-L")] == [str(c_library.PACKAGE)]


def test_the_output_of_config():
    assert config("--version") == [hr.__version__]
    assert config("--cflags") == [f"-I{hr.config.include()}"]
    nothing = run(sys.executable, "-m", "headrace.config")
    assert nothing.returncode == 2
    assert "expected at least one option" in nothing.stderr


def test_an_editable_installation_has_its_library_beside_the_module(tmp_path, monkeypatch):
    """The Python files of an editable installation stay in the clone, and its compiled files are in site-packages."""
    (tmp_path / "libheadrace.so").touch()
    monkeypatch.setattr(_cpu, "__file__", str(tmp_path / "_cpu.so"))
    assert library_folder() == tmp_path
    assert hr.config.include() == str(tmp_path / "include")
    (tmp_path / "libheadrace.so").unlink()
    with pytest.raises(FileNotFoundError, match=f"^libheadrace: expected it in {tmp_path}, got none"):
        library_folder()


def test_the_library_needs_no_python():
    """The library needs only symbols of the C and C++ runtimes; it exports its functions, and symbols of the core."""
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    undefined = run("nm", "-D", "--undefined-only", c_library.PATH).stdout
    assert "_Znwm" in undefined  # operator new
    assert not re.search(r"\b_?Py", undefined)
    defined = {line.split()[-1] for line in run("nm", "-D", "--defined-only", c_library.PATH).stdout.splitlines()}
    text = (ROOT / "cpp/c/include/headrace.h").read_text()
    functions = {word.split("(")[0].split()[-1].lstrip("*") for word in text.split("HEADRACE_API ")[1:] if "(" in word}
    assert {name for name in functions if name.startswith("headrace_")} <= defined
    assert not [name for name in defined if "pybind11" in name]
