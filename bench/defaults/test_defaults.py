"""No default takes more than three times as long as its fastest setting; every public name has a row in the table."""

from __future__ import annotations

from itertools import groupby

import pytest

import headrace as hr
from bench.defaults.rows import Rows
from bench.defaults.table import ABOVE, CLASSES, LIMIT, ROWS, WITHOUT, Row
from headrace._cli.options import parser

GROUPS = {made: [*same] for made, same in groupby(ROWS, lambda row: row.made)}
EFFORTS = (3, 1e-4), (7, 1e-3), (15, 3e-3), (31, 3e-3)
"""Numbers of pairs of blocks, and the seconds of a block: later efforts decide where another process disturbed the
first."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return Rows(str(tmp_path_factory.mktemp("defaults")))


@pytest.mark.parametrize("made", GROUPS, ids=str)
def test_no_default_is_far_from_its_fastest_setting(table: Rows, made: str) -> None:
    ratios = {f"{row.call}, n = {row.n}": (_ratio(table, row), row.limit) for row in GROUPS[made]}
    assert {name: ratio for name, (ratio, limit) in ratios.items() if ratio > limit} == {}


def _ratio(table: Rows, row: Row) -> float:
    for pairs, block in EFFORTS:
        if (ratio := table.measure(row, pairs, block).ratio) <= row.limit:
            break
    return ratio


def test_every_public_name_has_a_row_or_a_reason() -> None:
    commands = next(action.choices for action in parser()._actions if action.dest == "COMMAND" or action.choices)
    folders = {"ops": hr.ops.__all__, "transforms": hr.transforms.__all__, "command": commands}
    public = {*hr.__all__, *(f"{folder}.{name}" for folder, names in folders.items() for name in names)}
    for cls in CLASSES.values():
        names = {name for name in dir(cls) if name[0] != "_" and callable(getattr(cls, name))}
        public |= {f"{cls.__name__}.{name}" for name in names if not name.endswith("_and_vjp")}  # earlier names
    measured_names = set().union(*(row.names for row in ROWS))
    assert public - measured_names - set(WITHOUT) == set()
    assert set(WITHOUT) - public == set(), "no public names"
    assert set(WITHOUT) & measured_names == set(), "have a row"


def test_at_most_five_limits_are_above_the_common_one_and_have_a_reason() -> None:
    above = {(row.limit, row.reason) for row in ROWS if row.limit > LIMIT}
    assert above == set(ABOVE.values())
    assert len(above) == len(ABOVE) <= 5
    assert all(len(reason) > 20 for _, reason in above)
    assert not any(row.reason for row in ROWS if row.limit <= LIMIT)
