"""The linters' list of refused wordings: the texts that are searched, and the findings."""

import importlib.util
import re
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


# A sentence for each pattern, which the pattern has to find, in the order of the patterns.
ODD = """Nobody reads it.
There are so many of them.
It takes a list of whatever.
Zeros are not spoken of.
The core is told.
It has a say.
It ends after what it may take.
How many there are.
The way back of a map.
See both.
Of one's own kind.
The rows at hand.
It is closed, lest it leaks.
It is naught.
It stands in the place of a row.
It wants a row.
It ought to fit.
A row on its way.
It lies there a third time.
It is that which fits.
It ends, as there is no row.
It ends, as it has no row.
It adds what comes.
A list of what was given.
A copy of what they had.
The kernel knows nothing of it.
In all places.
It is as it were done.
Of no less than two rows.
It is the one that was given.""".splitlines()


def test_each_pattern_finds_its_sentence(prose):
    assert len(ODD) == len(prose.WORDS)
    missed = [word for word, text in zip(prose.WORDS, ODD, strict=True) if not re.search(word, text, re.IGNORECASE)]
    assert not missed
