"""Products of parameters made small: every pair of values together at least once, where no more of them interact."""

import collections
import itertools

import pytest


def pairs_of(axes, together=(), empty=()):
    """Rows, one value of each axis, so that each value meets each value of every other axis; equal on every run.

    ``together`` has the numbers of axes of whose values every combination comes, as those that choose a kernel; then it
    meets different values of the other axes. ``empty`` has those values, as pairs of an axis and a place in it, with
    which a case computes nothing: what other values a row of them has does not count as seen.
    """
    return _Rows([len(axis) for axis in axes], together, empty).taken(axes)


class _Rows:
    """Rows of places in the axes, taken one by one until nothing is missing that must come together."""

    def __init__(self, sizes, together, empty):
        self.sizes, self.rows, self.empty = sizes, [], set(empty)
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
            computes = self.empty.isdisjoint(chosen.items())
            for axis, size in enumerate(self.sizes):
                if axis not in chosen:
                    places = [i for i in range(size) if not (computes and (axis, i) in self.empty)]
                    chosen[axis] = max(places, key=lambda i, axis=axis: self._gain((axis, i), chosen))
            self._have(chosen)
            self.rows.append(tuple(axes[a][chosen[a]] for a in range(len(axes))))
        return self.rows

    def _gain(self, value, chosen):
        """The number of missing pairs of this value with those chosen; else with those of later rows, or how
        seldom it came with those chosen."""
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
        """The pairs that a row covers: of a row that computes nothing, those with the values that make it empty."""
        if self.empty.isdisjoint(row):
            return combinations
        return (one for one in combinations if not self.empty.isdisjoint(one))


# Arguments that give the sizes of a case. Of sizes one after another, all must be 0 for it to have none.
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
    """The indices of the axes of these names."""
    unknown = set(together) - set(names)
    assert not unknown, f"together: expected names of axes ({', '.join(names)}), got {', '.join(sorted(unknown))}"
    return [list(names).index(name) for name in together]


def pairwise(*, together=(), **axes):
    """Runs a test with rows of ``pairs_of``. An axis is a list, or for several arguments at once a list of tuples.

    The name of such an axis has the arguments' names with ``__`` between them: ``pairwise(map__scale=[...], ...)``.
    ``together`` names axes of whose values every combination comes. A case without rows, or with a shape of no numbers
    (``COUNTS``), stands for its own values alone: what else it has comes in another case, too.
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
