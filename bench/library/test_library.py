"""The C library gives the bits of the module, and the header its values: that is what `bench.library` times."""

from __future__ import annotations

import shutil

import pytest

from bench.library import __main__ as library


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_what_is_timed_is_right(capsys):
    assert library.main(["--quick"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == (2 + 3 * 2 * 2) + 1 + (2 + 2 * 2)
