"""The compiler of a build that names none, on simulated machines with different compilers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CMAKE = shutil.which("cmake")

pytestmark = [
    pytest.mark.skipif(CMAKE is None, reason="cmake is not installed"),
    pytest.mark.skipif(sys.platform == "win32", reason="the programs that it fakes are shell scripts"),
]

# A script that acts as a compiler: it has a version, and it can link if `needs` is among its options.
CLANG = """#!/bin/sh
[ "$1" != -dumpversion ] || {{ echo {version}; exit; }}
case " $* " in *" {needs} "*) exit 0 ;; esac
exit 1
"""
GCC = "#!/bin/sh\n[ $1 = -print-libgcc-file-name ] && echo /some/gcc/12/libgcc.a\n"
OF_GCC = "--gcc-install-dir=/some/gcc/12"


@pytest.fixture
def choose(tmp_path):
    """A function that returns the compiler command that CMake's project() gets if none is named; `programs` are all
    compilers of the machine."""
    (tmp_path / "programs").mkdir()

    def run(programs, *options, cxx=None):
        for name, text in programs.items():
            program = tmp_path / "programs" / name
            program.write_text(text)
            program.chmod(0o755)
        script = tmp_path / "script.cmake"
        script.write_text(f'include({ROOT}/cmake/compiler.cmake)\nfile(WRITE {tmp_path}/found "$ENV{{CXX}}")\n')
        environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CMAKE_PROGRAM_PATH")}
        environment |= {"PATH": str(tmp_path / "programs")} | ({"CXX": cxx} if cxx else {})
        done = subprocess.run(
            [CMAKE, *options, "-P", script], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(" ".join(done.stderr.split()))
        return (tmp_path / "found").read_text().replace(f"{tmp_path}/programs/", "")

    return run


def clang(version, needs="-std=c++20"):
    return CLANG.format(version=version, needs=needs)


CHOICES = [
    ({"clang++": clang("19.1.7")}, "clang++"),
    ({"clang++": clang("14.0.6"), "clang++-20": clang("20.1.0"), "clang++-19": clang("19.1.7")}, "clang++-20"),
    ({"clang++-19": clang("19.1.7", OF_GCC), "g++": GCC}, f"clang++-19 {OF_GCC}"),
    ({"clang++-20": clang("20.1.0", "nothing"), "clang++-19": clang("19.1.7"), "g++": GCC}, "clang++-19"),
]


@pytest.mark.parametrize("cxx", [None, "g++-14"])
@pytest.mark.parametrize(("programs", "command"), CHOICES)
def test_clang_is_the_compiler_where_one_works(choose, programs, command, cxx):
    """CXX does not have precedence, because scikit-build-core sets CXX where a user has not set it."""
    assert choose(programs, "-DHEADRACE_COMPILER=CLANG", cxx=cxx) == command


@pytest.mark.parametrize(
    "programs", [{"clang++": clang("18.1.8"), "g++": GCC}, {"clang++-19": clang("19.1.7", OF_GCC)}, {}]
)
def test_clang_is_refused_where_none_works(choose, programs):
    with pytest.raises(ValueError, match=r"HEADRACE_COMPILER: expected a Clang 19 or newer .* got none"):
        choose(programs, "-DHEADRACE_COMPILER=CLANG")


@pytest.mark.parametrize(
    ("options", "cxx"),
    [
        ([], None),
        (["-DHEADRACE_COMPILER=DEFAULT"], None),
        ([], "g++-14"),
        (["-DHEADRACE_COMPILER=CLANG", "-DCMAKE_CXX_COMPILER=g++-14"], None),
        (["-DHEADRACE_COMPILER=CLANG", "-DCMAKE_TOOLCHAIN_FILE=other.cmake"], None),
    ],
)
def test_a_named_compiler_is_taken(choose, options, cxx):
    assert choose({"clang++": clang("19.1.7")}, *options, cxx=cxx) == (cxx or "")


def test_another_preference_is_refused(choose):
    with pytest.raises(ValueError, match="HEADRACE_COMPILER: expected DEFAULT or CLANG, got clang"):
        choose({}, "-DHEADRACE_COMPILER=clang")


def check(tmp_path, **variables):
    """The error message of a build whose compiler has these variables of CMake; "" for an accepted compiler."""
    script = tmp_path / "check.cmake"
    script.write_text(f"include({ROOT}/cmake/compiler.cmake)\nheadrace_check_compiler()\n")
    options = [f"-D{name}={value}" for name, value in variables.items()]
    done = subprocess.run([CMAKE, *options, "-P", script], cwd=tmp_path, capture_output=True, text=True)
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(("name", "id"), [("cl.exe", "MSVC"), ("clang-cl.exe", "Clang")])
def test_a_compiler_with_the_options_of_msvc_is_refused(name, id, tmp_path):
    """A compiler with MSVC's options would ignore options on which the bits of a row depend."""
    text = check(
        tmp_path, CMAKE_CXX_COMPILER=name, CMAKE_CXX_COMPILER_ID=id, CMAKE_CXX_COMPILER_FRONTEND_VARIANT="MSVC"
    )
    assert "CMAKE_CXX_COMPILER: expected GCC or Clang with their own options (on Windows CXX=clang++" in text
    assert f"got {name}, which takes those of MSVC" in text


@pytest.mark.parametrize("id", ["GNU", "Clang", "AppleClang"])
def test_gcc_and_clang_are_taken(id, tmp_path):
    assert check(tmp_path, CMAKE_CXX_COMPILER_ID=id, CMAKE_CXX_COMPILER_FRONTEND_VARIANT="GNU") == ""
