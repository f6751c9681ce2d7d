"""The module ``_emu``: the CUDA sources compiled by the host compiler, for tests without a GPU.

``HEADRACE_EMU`` names a module that was built before (``.ci/run`` sets it, for sanitizers). Otherwise the module is
built in ``tests/cuda_emulation/build``, before the workers of ``pytest -n`` start or by the first test that needs it.
Later runs compile only sources that have changed since the last build, and all sources in a clone that was moved.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import interpreted
from locks import locked

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "tests" / "cuda_emulation" / "build"


class Unavailable(Exception):
    """The error for a machine without the emulation, with the reason."""


def tool(name):
    """The path of a program: first in the folder of the running Python, then on the system's search path."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if not found:
        raise Unavailable(f"the emulation of CUDA needs {name} to be built")
    return found


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


def moved(cache):
    """Whether CMake's cache belongs to another folder of sources, as in a clone that was moved; CMake refuses such a
    cache."""
    return cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT.as_posix()}\n" not in cache.read_text("utf-8")


def build():
    """Build the emulation, in one process at a time. Raises Unavailable, or RuntimeError with the compiler's output."""
    cmake, ninja = tool("cmake"), tool("ninja")
    tool(os.environ.get("CXX", "c++").split()[0])
    try:
        import pybind11
    except ImportError as error:
        raise Unavailable("the emulation of CUDA needs pybind11 to be built") from error
    BUILD.mkdir(exist_ok=True)
    with locked(BUILD / "lock"):
        run(
            *(cmake, "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
            *(["--fresh"] if moved(BUILD / "CMakeCache.txt") else []),
            *("-DHEADRACE_EMULATION=ON", "-DHEADRACE_CUDA=OFF", f"-DPython_EXECUTABLE={sys.executable}"),
            *(
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
                f"-DHEADRACE_WERROR={os.environ.get('HEADRACE_WERROR', 'OFF')}",
            ),
        )
        run(cmake, "--build", str(BUILD), "--target", "_emu", "--parallel", str(os.cpu_count()))
    return BUILD / "tests" / "cuda_emulation"


@functools.cache
def folder():
    """The folder that holds the module `_emu` and the program of planted bugs."""
    given = os.environ.get("HEADRACE_EMU")
    return Path(given).resolve().parent if given else build()


def prepare(say):
    """Build the emulation, unless it is up to date; a first build is announced."""
    if not os.environ.get("HEADRACE_EMU"):
        if not list(BUILD.glob("tests/cuda_emulation/_emu*")):
            say("building the emulation of CUDA devices (a minute or two on two cores, once) ...")
        folder()


def built():
    """Whether the module `_emu` has been built."""
    return bool(os.environ.get("HEADRACE_EMU") or list(BUILD.glob("tests/cuda_emulation/_emu*")))


_failed = []


def load():
    """The module ``_emu``. Raises Unavailable, or RuntimeError if the sources do not compile; all later calls raise the
    same error."""
    if _failed:
        raise _failed[0]
    try:
        return _load()
    except Exception as error:
        _failed.append(error)
        raise


@functools.cache
def _load():
    given = os.environ.get("HEADRACE_EMU")
    # Pythons of other versions may have built their modules in the same folder.
    path = given or folder() / f"_emu{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location("_emu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    interpreted.begin(module)
    return module
