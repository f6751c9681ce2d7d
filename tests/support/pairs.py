"""Small sets of cases for tests with several parameters: each pair of values of two parameters occurs at least once."""

import collections
import itertools

import pytest


def pairs_of(axes, together=(), empty=()):
    """Cases with one value of each axis, equal in every run: each value meets each value of every other axis.

    All combinations of values occur for the axes whose indices ``together`` has, such as those that choose a kernel;
    a combination that repeats meets different values of the other axes. ``empty`` has the values with which a case
    computes nothing, as pairs of an axis and an index in that axis: the other values of such a case do not count as
    covered.
    """
    return _Rows([len(axis) for axis in axes], together, empty).taken(axes)


class _Rows:
    """Cases as indices into the axes, chosen one by one until each required combination occurs."""

    def __init__(self, sizes, together, empty):
        self.sizes, self.rows, self.empty = sizes, [], set(empty)
        sets = {*itertools.combinations(range(len(sizes)), 2), *([tuple(sorted(together))] if together else [])}
        self.lengths = sorted({len(axes) for axes in sets})
        # The required combinations that no case has yet; each value is a pair of an axis and an index in that axis.
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
            computes = self.empty.isdisjoint(chosen.items())
            for axis, size in enumerate(self.sizes):
                if axis not in chosen:
                    places = [i for i in range(size) if not (computes and (axis, i) in self.empty)]
                    chosen[axis] = max(places, key=lambda i, axis=axis: self._gain((axis, i), chosen))
            self._have(chosen)
            self.rows.append(tuple(axes[a][chosen[a]] for a in range(len(axes))))
        return self.rows

    def _gain(self, value, chosen):
        """A key for the choice of a value: the number of missing combinations that the value completes with the chosen
        values, then the number of missing combinations that have the value, then how seldom it has occurred
        with the chosen values."""
        others = chosen.items()
        found = (
            tuple(sorted([value, *some]))
            for length in self.lengths
            for some in itertools.combinations(others, length - 1)
        )
        now = sum(one in self.missing for one in self._counted(found, [value, *others]))
        came = sum(self.seen[frozenset((value, other))] for other in others) if self.varied else 0
        return now, self.wanted[value], -came, -value[1]

    def _have(self, chosen):
        self.seen.update(map(frozenset, itertools.combinations(chosen.items(), 2)))
        row = sorted(chosen.items())
        for length in self.lengths:
            for one in self._counted(itertools.combinations(row, length), row):
                if one in self.missing:
                    self.missing.remove(one)
                    self.wanted.subtract(one)

    def _counted(self, combinations, row):
        """The combinations that a case covers. A case that computes nothing covers only combinations with a value that
        makes the case empty."""
        if self.empty.isdisjoint(row):
            return combinations
        return (one for one in combinations if not self.empty.isdisjoint(one))


# Arguments of sizes, each with a function of its values: a case is empty if the result is 0. A case with several
# ``sizes`` is empty only if all of them are 0.
COUNTS = {"shape": min, "rows": min, "n": min, "sizes": max}


def empty_of(names, axes):
    """For each axis, named by its arguments, the indices of values that by themselves make a case empty."""
    found = []
    for number, (arguments, axis) in enumerate(zip(names, axes, strict=True)):
        places = [i for i, value in enumerate(axis) if _is_empty(arguments, value)]
        found += [(number, i) for i in places] if len(places) < len(axis) else []
    return found


def _is_empty(arguments, value):
    values = value if len(arguments) > 1 else [value]
    counts = [(COUNTS[name], one) for name, one in zip(arguments, values, strict=True) if name in COUNTS]
    return any(least(one if isinstance(one, (tuple, list)) else [one], default=1) == 0 for least, one in counts)


def places_of(names, together):
    """The indices of the axes with the given names."""
    unknown = set(together) - set(names)
    assert not unknown, f"together: expected names of axes ({', '.join(names)}), got {', '.join(sorted(unknown))}"
    return [list(names).index(name) for name in together]


def pairwise(*, together=(), **axes):
    """Run a test with cases of ``pairs_of``. An axis is a list; for several arguments at once, a list of tuples.

    The name of an axis for several arguments joins their names by ``__``: ``pairwise(map__scale=[...], ...)``.
    All combinations of values occur for the axes that ``together`` names. A case without rows, or with an empty shape
    (``COUNTS``), covers only the values that make it empty: its other values also occur in another case.
    """
    names, rows = [name.split("__") for name in axes], []
    own = [list(axis) for axis in axes.values()]
    for row in pairs_of(own, places_of(axes, together), empty_of(names, own)):
        flat = itertools.chain(*(value if len(n) > 1 else [value] for n, value in zip(names, row, strict=True)))
        rows.append(tuple(flat))
    arguments = list(itertools.chain(*names))
    ids = ["-".join(getattr(value, "__name__", str(value)) for value in row) for row in rows]
    if len(arguments) == 1:
        rows = [row[0] for row in rows]
    return pytest.mark.parametrize(arguments, rows, ids=ids)
