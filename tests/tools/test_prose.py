"""The list of wordings that the linters refuse: what is searched, and what is found."""

import importlib.util
from pathlib import Path

import pytest

PLACE = Path(__file__).resolve().parents[2] / ".ci" / "prose.py"


@pytest.fixture(scope="module")
def prose():
    spec = importlib.util.spec_from_file_location("prose", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TEXTS = {
    "one.py": '''"""Nobody reads it."""

x = "nobody"  # whoever


def test_rows_of_ones_own():
    """Of whatever.

    Nobody.
    """
''',
    "one.md": "Nobody.\n```\nnobody\n```\n    nobody\nNobody, whoever.\n",
    "one.hpp": "int nobody;  // nobody\n// So many of them.\n",
}
EXPECTED = {"one.py": [1, 3, 6, 7, 9], "one.md": [1, 6], "one.hpp": [1, 2]}


@pytest.mark.parametrize("name", TEXTS)
def test_prose_is_searched_and_code_is_not(prose, name, tmp_path):
    path = tmp_path / name
    path.write_text(TEXTS[name], encoding="utf-8")
    lines = [int(line.removeprefix(f"{path}:").split(":")[0]) for line in prose.findings(path)]
    assert sorted(set(lines)) == EXPECTED[name]


def test_plain_sentences_pass(prose, tmp_path):
    path = tmp_path / "one.md"
    path.write_text("How many rows are there? The number of rows, so many that a tile is full.\nThe same for rows.\n")
    assert not [*prose.findings(path)]
    assert len(prose.WORDS) == 30
