"""Commands that install headrace, for messages about missing packages."""

from __future__ import annotations

# The argument of pip is the clone's folder. After a release on a package index, the argument is the package's name, as
# in the pages (tests/tools/test_install_hints.py). Before a release, a package called headrace on an index could be
# another project's.
PROJECT = "."


def install(extra: str) -> str:
    """The command that installs headrace with an extra of pip.

    >>> install("plot")
    'pip install ".[plot]" in the clone of headrace'
    """
    return f'pip install "{PROJECT}[{extra}]"' + (" in the clone of headrace" if PROJECT == "." else "")


def rebuild(setting: str) -> str:
    """The command that compiles headrace on this machine with a setting of the build.

    >>> rebuild("HEADRACE_SETS=ALL")
    'HEADRACE_SETS=ALL pip install .'
    """
    source = "" if PROJECT == "." else f"--no-binary {PROJECT} "
    return f"{setting} pip install {source}{PROJECT}"
