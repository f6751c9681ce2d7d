"""Log scores of `FlowRegressor`, of its flow of x alone, and of NGBoost where it is installed.

`python -m bench.mixed.regression NAME...` takes "diabetes" (scikit-learn's), and paths of csv files whose last
column is left out and whose last but one is the response, as of the wines: duplicated rows are left out.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

import headrace as hr
from headrace.sklearn import FlowRegressor

try:
    from ngboost import NGBRegressor
except ImportError:
    NGBRegressor = None
MOST, TEST = 2500, 1000
GRID = 0.1  # of the responses of such files, which get noise as wide: otherwise repeated values decide


def opened(name, split):
    """Standardised responses and features, to fit and to judge."""
    if name == "diabetes":
        x, y = load_diabetes(return_X_y=True)
    else:
        separator = ";" if ";" in Path(name).read_text().partition("\n")[0] else ","
        table = np.genfromtxt(name, delimiter=separator, skip_header=1)
        table = table[np.sort(np.unique(table, axis=0, return_index=True)[1])]
        x, y = table[:, :-2], table[:, -2] + GRID * (np.random.default_rng(9).random(len(table)) - 0.5)
    order = np.random.default_rng(split).permutation(len(y))
    n = min(MOST, int(0.8 * len(y)))
    train, test = order[:n], order[n : n + TEST]
    y = (y - y[train].mean()) / y[train].std()
    return x[train], y[train], x[test], y[test]


def of_ngboost(x, y, seed):
    """With early stopping by a sixth of the rows; None where it is not installed."""
    if NGBRegressor is None:
        return None
    order = np.random.default_rng(seed).permutation(len(x))
    held, train = order[: len(x) // 6], order[len(x) // 6 :]
    model = NGBRegressor(n_estimators=500, learning_rate=0.03, verbose=False, random_state=seed)
    return model.fit(x[train], y[train], x[held], y[held], early_stopping_rounds=25)


def main():
    """Print mean held-out log densities, root mean squares, calibration and CPU seconds of two splits."""
    hr.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in sys.argv[1:]:
        for split in (0, 1):
            x, y, others, responses = opened(name, split)
            ways = {
                "regressor": lambda x, y, split=split: FlowRegressor(random_state=split).fit(x, y),
                "flow alone": lambda x, y, split=split: FlowRegressor(trees=False, random_state=split).fit(x, y),
                "ngboost": lambda x, y, split=split: of_ngboost(x, y, split),
            }
            for way, fit in ways.items():
                start = time.process_time()
                if (model := fit(x, y)) is None:
                    continue
                seconds = time.process_time() - start
                is_ours = isinstance(model, FlowRegressor)
                law = None if is_ours else model.pred_dist(others)
                log_prob = model.log_prob(others, responses) if is_ours else law.logpdf(responses)
                below = np.sort(model.cdf(others, responses) if is_ours else law.cdf(responses))
                levels = np.arange(1, 20) / 20
                off = np.abs(np.searchsorted(below, levels) / len(below) - levels).mean()
                error = np.sqrt(np.mean((model.predict(others) - responses) ** 2))
                print(
                    f"{Path(name).name} {split} {way}: {log_prob.mean():.3f}, root mean square {error:.3f}, "
                    f"calibration {off:.3f}, {seconds:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
