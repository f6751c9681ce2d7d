"""Products of parameters made small: every pair of values together at least once, where no more of them interact."""

import collections
import itertools

import pytest


def pairs_of(axes, together=()):
    """Rows, one value of each axis, so that each value meets each value of every other axis. The same on every run.

    ``together`` has the numbers of axes of whose values every combination comes, as those that choose a kernel; then it
    meets different values of the other axes, as one of these may be an empty shape.
    """
    return _Rows([len(axis) for axis in axes], together).taken(axes)


class _Rows:
    """Rows of places in the axes, taken one by one until nothing is missing that must come together."""

    def __init__(self, sizes, together):
        self.sizes, self.rows = sizes, []
        sets = {*itertools.combinations(range(len(sizes)), 2), *([tuple(sorted(together))] if together else [])}
        self.lengths = sorted({len(axes) for axes in sets})
        # Of each combination its values, as pairs of an axis and a place in it.
        self.missing = {
            tuple(zip(axes, places, strict=True))
            for axes in sets
            for places in itertools.product(*(range(sizes[axis]) for axis in axes))
        }
        self.wanted = collections.Counter(value for one in self.missing for value in one)
        self.varied, self.seen = bool(together), collections.Counter()

    def taken(self, axes):
        while self.missing:
            chosen = dict(min(self.missing, key=lambda one: (-len(one), one)))
            for axis, size in enumerate(self.sizes):
                if axis not in chosen:
                    chosen[axis] = max(range(size), key=lambda i, axis=axis: self._gain((axis, i), chosen))
            self._have(chosen)
            self.rows.append(tuple(axes[a][chosen[a]] for a in range(len(axes))))
        return self.rows

    def _gain(self, value, chosen):
        """How many are missing of this value with those chosen; where nothing tells, with those of later rows, or how
        seldom it came with those chosen."""
        others = chosen.items()
        now = sum(
            tuple(sorted([value, *some])) in self.missing
            for length in self.lengths
            for some in itertools.combinations(others, length - 1)
        )
        came = sum(self.seen[frozenset((value, other))] for other in others) if self.varied else 0
        return now, self.wanted[value], -came, -value[1]

    def _have(self, chosen):
        self.seen.update(map(frozenset, itertools.combinations(chosen.items(), 2)))
        for length in self.lengths:
            for one in itertools.combinations(sorted(chosen.items()), length):
                if one in self.missing:
                    self.missing.remove(one)
                    self.wanted.subtract(one)


def places_of(names, together):
    """The numbers of the axes of these names."""
    unknown = set(together) - set(names)
    assert not unknown, f"together: expected names of axes ({', '.join(names)}), got {', '.join(sorted(unknown))}"
    return [list(names).index(name) for name in together]


def pairwise(*, together=(), **axes):
    """Runs a test with rows of ``pairs_of``. An axis is a list, or for several arguments at once a list of tuples.

    The name of such an axis has the arguments' names with ``__`` between them: ``pairwise(map__scale=[...], ...)``.
    ``together`` names axes of whose values every combination comes.
    """
    names, rows = [name.split("__") for name in axes], []
    for row in pairs_of([list(axis) for axis in axes.values()], places_of(axes, together)):
        flat = itertools.chain(*(value if len(n) > 1 else [value] for n, value in zip(names, row, strict=True)))
        rows.append(tuple(flat))
    arguments = list(itertools.chain(*names))
    ids = ["-".join(getattr(value, "__name__", str(value)) for value in row) for row in rows]
    if len(arguments) == 1:
        rows = [row[0] for row in rows]
    return pytest.mark.parametrize(arguments, rows, ids=ids)
