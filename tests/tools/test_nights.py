"""The page of results of the night has one table row for each shard, which the shard writes."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = "# Title\n\n| shard | result |\n| --- | --- |\n"


def rows_of_nights():
    spec = importlib.util.spec_from_file_location("night_row", ROOT / ".ci" / "night_row.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_is_added_in_order_and_replaced():
    with_row = rows_of_nights().with_row
    page = with_row(with_row(HEAD + "\nThe end.\n", "sets", ["passed"]), "clang", ["failed (1)"])
    assert page == HEAD + "| clang | failed (1) |\n| sets | passed |\n\nThe end.\n"
    assert with_row(page, "clang", ["passed"]) == page.replace("failed (1)", "passed")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_rows_are_of_shards_alone():
    listed = subprocess.run(["bash", ROOT / ".ci" / "run", "list"], capture_output=True, text=True, check=True).stdout
    shards = re.search(r"^nightly, besides: (.*)$", listed, re.MULTILINE)[1].split()
    page = (ROOT / "docs" / "notes" / "nights.md").read_text()
    rows = re.findall(r"^\| ([a-z][\w-]*) \|", page, re.MULTILINE)
    assert set(rows) - {"shard"} <= set(shards)
