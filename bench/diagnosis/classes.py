"""The share of diagnoses that reject samples of a density with labels, and samples that differ in one respect.

The command `python -m bench.diagnosis.classes [SEEDS]` takes 500 rows for each seed; set `OMP_NUM_THREADS=1`.
"""

import sys
import warnings
from collections import Counter

import numpy as np
import pandas

import headrace as hr
from headrace.sklearn import FlowDensity

ROWS, SHARE, MORE = 500, 0.2, 1.5


def table(rows, rng):
    """Rows: a label, a boolean that depends on the label, a column with zeros, and one that depends on the others."""
    kind = rng.choice(["elm", "fir", "oak"], rows, p=[0.3, SHARE, 0.5])
    flag = rng.random(rows) < np.where(kind == "oak", 0.7, 0.2)
    rain = np.where(rng.random(rows) < 0.4, 0.0, rng.standard_normal(rows) + 2.0)
    size = rng.standard_normal(rows) + rain + (kind == "oak")
    return pandas.DataFrame({"kind": kind, "flag": flag, "rain": rain, "size": size})


def right(density, seed):
    """Samples of the density itself."""
    return density.sample(ROWS, random_state=seed + 1, as_frame=True)


def more_firs(density, seed):
    """Samples in which one label has 1.5 times its share."""
    rows = density.sample(4 * ROWS, random_state=seed + 1, as_frame=True)
    share = np.where(rows["kind"] == "fir", MORE, (1.0 - MORE * SHARE) / (1.0 - SHARE)) / MORE
    return rows[np.random.default_rng(seed).random(len(rows)) < share][:ROWS]


def apart(density, seed):
    """Samples in which the boolean does not depend on the label."""
    rows = right(density, seed)
    return rows.assign(flag=np.random.default_rng(seed).permutation(rows["flag"]))


def main():
    """Print the number of seeds whose overall p-value is at most 0.05, and the number in which each test fails."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    hr.set_num_threads(1)
    warnings.simplefilter("ignore")
    density = FlowDensity(transforms=2, hidden=(16,), random_state=0).fit(table(900, np.random.default_rng(0)))
    for way in (right, more_firs, apart):
        each = [hr.diagnose(density, way(density, seed), seed=seed, progress=False) for seed in range(seeds)]
        rejected = sum(one.p_value <= 0.05 for one in each)
        print(f"{way.__name__}: {rejected} of {seeds}", dict(Counter(test.name for one in each for test in one.misses)))


if __name__ == "__main__":
    main()
