"""Compiler flags for the C library: ``cc main.c $(python -m headrace.config --cflags --libs)``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from headrace._core import cpu
from headrace.config import include


def library_folder() -> Path:
    """The folder of libheadrace and of the compiled module; an editable installation has Python files elsewhere.

    Raises:
        FileNotFoundError: the build has no libheadrace, for example on systems other than Linux.
    """
    folder = Path(cpu.__file__).parent
    if not any(folder.glob("libheadrace.*")):
        raise FileNotFoundError(
            f"libheadrace: expected it in {folder}, got none: this build of headrace has no library for C; "
            "cmake -DHEADRACE_PYTHON=OFF builds one, and headrace.hpp needs none"
        )
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m headrace.config", description=__doc__)
    options = {
        "cflags": "the compiler's option for headers",
        "libs": "the linker's options for the library",
        "cmakedir": "the folder for headrace_DIR, by which CMake's find_package(headrace) finds it",
        "pkgconfigdir": "the folder for PKG_CONFIG_PATH, by which pkg-config finds it",
        "version": "the version",
    }
    for name, meaning in options.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"print {meaning}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the values of the given options on one line; return the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if not any(vars(given).values()):
        parser.error("expected at least one option")
    found: list[str] = []
    try:
        if given.cflags:
            found.append(shlex.quote(f"-I{include()}"))
        if given.libs:
            folder = library_folder()
            found += [shlex.quote(f"-L{folder}"), shlex.quote(f"-Wl,-rpath,{folder}"), "-lheadrace"]
        if given.cmakedir:
            found.append(str(library_folder() / "cmake"))
        if given.pkgconfigdir:
            found.append(str(library_folder() / "pkgconfig"))
    except FileNotFoundError as error:
        print(f"headrace.config: error: {error}", file=sys.stderr)
        return 1
    if given.version:
        found.append(cpu.__version__)
    print(*found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
