"""Products of parameters made small: every pair of values together at least once, where no more of them interact."""

import itertools

import pytest


def pairs_of(axes):
    """Rows, one value of each axis, so that each value meets each value of every other axis. The same on every run."""
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(range(len(axes)), 2)
        for i in range(len(axes[a]))
        for j in range(len(axes[b]))
    }
    rows = []
    while missing:
        chosen = dict(min(missing))
        for axis in range(len(axes)):
            if axis not in chosen:
                chosen[axis] = max(range(len(axes[axis])), key=lambda i: _gain((axis, i), chosen, missing))
        missing -= set(itertools.combinations(sorted(chosen.items()), 2))
        rows.append(tuple(axes[a][chosen[a]] for a in range(len(axes))))
    return rows


def _gain(value, chosen, missing):
    """How many missing pairs this value makes with those chosen; where nothing tells, with those of later rows."""
    now = sum(tuple(sorted([value, other])) in missing for other in chosen.items())
    return now, sum(value in pair for pair in missing), -value[1]


def pairwise(**axes):
    """Runs a test with rows of ``pairs_of``. An axis is a list, or for several arguments at once a list of tuples.

    The name of such an axis has the arguments' names with ``__`` between them: ``pairwise(map__scale=[...], ...)``.
    """
    names, rows = [name.split("__") for name in axes], []
    for row in pairs_of([list(axis) for axis in axes.values()]):
        flat = itertools.chain(*(value if len(n) > 1 else [value] for n, value in zip(names, row, strict=True)))
        rows.append(tuple(flat))
    arguments = list(itertools.chain(*names))
    ids = ["-".join(str(value) for value in row) for row in rows]
    if len(arguments) == 1:
        rows = [row[0] for row in rows]
    return pytest.mark.parametrize(arguments, rows, ids=ids)
