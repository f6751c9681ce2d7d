"""`FlowRegressor`: the conditional density of responses given features, as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from headrace._arrays import columns, frames
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.types import Floats
from headrace._base.warn import FREQUENT, silent, warn
from headrace._fit.given_rows import listing
from headrace._fit.moments import scale_of_context
from headrace._flow.flow import Flow
from headrace._flow.flows import NSF
from headrace._regression.trees import Boosting, Forest

LEAST_ROWS = 200  # with fewer rows there are neither trees nor held-out rows for weights
HELD_OUT, LEAST_HELD_OUT = 0.15, 50
ROUNDS, PRIOR, LEAST_WEIGHT = 200, 3.0, 0.01  # steps of EM, rows added for a member, least share of a member
POINTS, DRAWS, HALVINGS = 64, 512, 50  # points for means, draws of several responses, bisections for quantiles


class FlowRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A conditional density of one or several responses given features, with means, quantiles, intervals and samples.

    The density is a mixture of neural spline flows and a forest. The context of the first flow is x. The second flow
    also has the mean and the log scale from gradient boosting as context, the third one quantiles of the forest; for a
    training row these are from trees that have not seen the row. The fourth member is a kernel density of the training
    rows' responses with the weights of the forest. Held-out rows determine the share of each member
    (docs/regression.md).

    Args:
        transforms: The transforms of each flow; None for 2 with one response and 5 with several.
        hidden: The units of each hidden layer.
        trees: Whether the mixture has members with trees; if not, or with fewer than 200 rows, a single flow is fitted.
        settings: A `FitSettings` for the flows; None for the defaults.
        random_state: An int, a `numpy.random.RandomState` or None.

    Attributes:
        weights_: The members' shares by name: "raw", "boosted", "quantiles", "forest".
        flows_: The flows by name.
        n_features_in_, feature_names_in_: As scikit-learn defines them.

    >>> import numpy as np
    >>> from headrace.sklearn import FlowRegressor
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-1.0, 1.0, (400, 2))
    >>> y = x[:, 0] + 0.1 * rng.standard_normal(400)
    >>> model = FlowRegressor(trees=False, hidden=(16,), random_state=0).fit(x, y)
    >>> model.predict(x[:3]).shape, model.predict_quantiles(x[:3], [0.1, 0.9]).shape, model.log_prob(x, y).shape
    ((3,), (3, 2), (400,))
    """

    def __init__(
        self,
        transforms: int | None = None,
        *,
        hidden: Any = (64, 64),
        trees: bool = True,
        settings: Any = None,
        random_state: Any = None,
    ) -> None:
        self.transforms, self.hidden, self.trees, self.settings = transforms, hidden, trees, settings
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's tags: features may be missing, responses may be several, and `score` is not R²."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan, tags.target_tags.multi_output = True, True
        tags.regressor_tags.poor_score = True
        return tags

    @silent(FREQUENT)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FlowRegressor:
        """Fit the members to rows.

        Args:
            X: Shape (rows, features), or a frame, which may have columns of text or categories; values may be missing.
            y: Shape (rows,), or (rows, responses).
            sample_weight: Shape (rows,): weights of the rows in the likelihood.
        """
        X, self._labels = frames.coded(X)
        X, y = validate_data(
            self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", multi_output=True, y_numeric=True
        )
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        y = np.asarray(y, np.float64).reshape(len(X), -1)
        self._responses, self._is_one = y.shape[1], y.shape[1] == 1
        if weights is not None and not weights.all():
            X, y, weights = X[weights > 0], y[weights > 0], weights[weights > 0]
        if spikes := [text for i, response in enumerate(y.T) if (text := columns.spike(response, f"response {i}"))]:
            warn(f"y: one value is frequent in {listing(spikes)}: a density spikes there, and its score means little")
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        rng, n = np.random.default_rng(seed), len(X)
        names = getattr(self, "feature_names_in_", ())
        self._texts = {i: len(self._labels[name]) for i, name in enumerate(names) if name in self._labels}
        self._middle = np.array([np.median(c[~np.isnan(c)]) if (~np.isnan(c)).any() else 0.0 for c in X.T])
        self._gaps = np.flatnonzero(np.isnan(X).any(axis=0))
        self._trees: dict[str, Any] = {}
        contexts = {"raw": self._raw(X)}
        if self.trees and n >= LEAST_ROWS:
            boosting, forest = Boosting(X, y, weights, rng), Forest(X, y, weights, seed)
            self._trees = {"boosted": boosting, "quantiles": forest}
            for name, features in (("boosted", boosting.training), ("quantiles", forest.quantiles(forest.training))):
                contexts[name] = np.concatenate([contexts["raw"], features], axis=1)
        named = {} if self.settings is None else self.settings.get_params()
        named = {k: value for k, value in named.items() if k != "bootstrap"} | {"progress": False, "seed": seed}
        held = rng.permutation(n)[: max(int(HELD_OUT * n), LEAST_HELD_OUT)] if n >= LEAST_ROWS else np.empty(0, int)
        train = np.setdiff1d(np.arange(n), held)
        self.flows_, log_probs = {}, {}
        transforms = (2 if self._is_one else 5) if self.transforms is None else self.transforms
        for i, (name, context) in enumerate(contexts.items()):
            flow = NSF(y.shape[1], context.shape[1], transforms, self.hidden, seed=seed + i)
            flow._interior.rescale(None, scale_of_context(context))
            if held.size:
                named["validation"] = (y[held], context[held], *([] if weights is None else [weights[held]]))
            flow.fit(y[train], context[train], weights=None if weights is None else weights[train], **named)
            self.flows_[name] = flow
            if held.size:
                log_probs[name] = np.asarray(flow.log_prob(y[held], context[held]), np.float64)
        if self._trees and self._is_one:
            log_probs["forest"] = self._trees["quantiles"].choose(held)
        self.weights_ = _weighed(log_probs, None if weights is None else weights[held]) if held.size else {"raw": 1.0}
        return self

    def _raw(self, X: NDArray[Any]) -> Floats:
        """x as context: missing values become medians, labels one-hot, and columns with missing values get
        a flag each.
        """
        gone = np.isnan(X)
        filled = np.where(gone, self._middle, X)
        parts = [filled[:, [i for i in range(X.shape[1]) if i not in self._texts]], gone[:, self._gaps].astype(float)]
        parts += [(X[:, [i]] == np.arange(size)).astype(float) for i, size in self._texts.items()]
        return np.concatenate(parts, axis=1)

    def _laws(self, X: Any) -> list[tuple[float, Any]]:
        """The share of each member with a share above 0, and the member's density for new rows, as pairs."""
        check_is_fitted(self, "flows_")
        X = frames.coded(X, self._labels)[0]
        X = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite="allow-nan")
        raw, laws = self._raw(X), []
        for name, share in self.weights_.items():
            context = np.concatenate([raw, self._trees[name].features(X)], axis=1) if name in self._trees else raw
            law = _OfFlow(self.flows_[name], context) if name in self.flows_ else self._trees["quantiles"].law(X)
            laws.append((share, law))
        return laws

    def log_prob(self, X: Any, y: Any) -> Floats:
        """The log density of each row's responses given the row's features, shape (rows,), in nats."""
        laws, y = self._laws(X), self._given(y, len(X))
        return np.asarray(np.logaddexp.reduce([np.log(w) + law.log_prob(y) for w, law in laws]), np.float64)

    def _given(self, y: Any, rows: int) -> Floats:
        """Check responses, and return them as an array of shape (rows, responses)."""
        responses = np.asarray(y, np.float64)
        if (responses if responses.ndim > 1 else responses[..., None]).shape != (rows, self._responses):
            raise errors.wrong_shape("y", (rows,) if self._is_one else (rows, self._responses), responses.shape)
        return responses.reshape(rows, -1)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean log density of the rows' responses in nats."""
        return float(np.average(self.log_prob(X, y), weights=sample_weight))

    def cdf(self, X: Any, y: Any) -> Floats:
        """The distribution function at each row's response, shape (rows,); only for models of one response."""
        laws = self._laws(X)
        if not self._is_one:
            raise ValueError("cdf: expected a model of one response, got several")
        y = self._given(y, len(X))[:, 0]
        return np.asarray(sum(share * law.cdf(y) for share, law in laws))

    def predict(self, X: Any, point: str = "mean") -> Floats:
        """The mean or the median of each row's responses, shape (rows,), or (rows, responses)."""
        if check.choice("point", point, ("mean", "median")) == "median":
            return self.predict_quantiles(X, 0.5)[:, 0]
        laws = self._laws(X)
        if not self._is_one:
            return np.asarray(_drawn(laws, len(X), DRAWS, 0).mean(axis=1))
        return np.asarray(sum(share * law.mean() for share, law in laws))

    def predict_quantiles(self, X: Any, levels: Any) -> Floats:
        """Quantiles of the response, shape (rows, levels); for several responses estimated from draws, shape (rows,
        levels, responses).
        """
        at = np.atleast_1d(np.asarray(levels, np.float64))
        if not ((at > 0.0) & (at < 1.0)).all():
            raise ValueError(f"levels: expected numbers between 0 and 1, got {levels!r}")
        laws = self._laws(X)
        if not self._is_one:
            return np.moveaxis(np.quantile(_drawn(laws, len(X), DRAWS, 0), at, axis=1), 0, 1)
        quantiles = []
        for level in at:
            ends = [law.around(level) for _, law in laws]
            low, high = np.min([a for a, _ in ends], axis=0), np.max([b for _, b in ends], axis=0)
            for _ in range(HALVINGS if (low < high).any() else 0):
                middle = 0.5 * (low + high)
                below = sum(share * law.cdf(middle) for share, law in laws) < level
                low, high = np.where(below, middle, low), np.where(below, high, middle)
            quantiles.append(0.5 * (low + high))
        return np.stack(quantiles, axis=1)

    def predict_interval(self, X: Any, coverage: float = 0.9) -> Floats:
        """The central interval with the probability `coverage`, shape (rows, 2), or (rows, 2, responses)."""
        share = check.number("coverage", coverage, above=0.0, below=1.0)
        return self.predict_quantiles(X, [0.5 - 0.5 * share, 0.5 + 0.5 * share])

    def sample(self, X: Any, n_samples: int = 1, random_state: Any = None) -> Floats:
        """Draw responses for each row, shape (rows, n_samples), or (rows, n_samples, responses)."""
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        drawn = _drawn(self._laws(X), len(X), check.integer("n_samples", n_samples, least=1), seed)
        return drawn[:, :, 0] if self._is_one else drawn


@dataclass(frozen=True)
class _OfFlow:
    """A flow's conditional density for some rows, given their contexts; it has the methods of `Kernels`."""

    flow: Flow
    context: Floats

    def log_prob(self, y: Floats) -> Floats:
        return np.asarray(self.flow.log_prob(y, self.context))

    def cdf(self, y: Floats) -> Floats:
        return np.asarray(ndtr(np.asarray(self.flow.to_latent(y[:, None], self.context)[0][:, 0], float)))

    def mean(self) -> Floats:
        z, rows = ndtri((np.arange(POINTS) + 0.5) / POINTS), len(self.context)
        each = self.flow.to_data(np.tile(z, rows)[:, None], np.repeat(self.context, POINTS, axis=0))[0]
        return np.asarray(each.astype(float).reshape(rows, POINTS).mean(axis=1))

    def around(self, level: float) -> tuple[Floats, Floats]:
        z = np.full((len(self.context), 1), ndtri(level))
        responses = np.asarray(self.flow.to_data(z, self.context)[0][:, 0], float)
        return responses, responses

    def sample(self, n: int, rng: np.random.Generator, seed: int) -> Floats:
        return np.moveaxis(np.asarray(self.flow.sample((n,), self.context, seed=seed)), 0, 1)


def _drawn(laws: list[tuple[float, Any]], rows: int, n: int, seed: int) -> Floats:
    """Draw responses from the mixture of `laws`, shape (rows, n, responses)."""
    rng, share = np.random.default_rng(seed), np.array([share for share, _ in laws])
    chosen = rng.choice(len(laws), (rows, n), p=share / share.sum())
    parts = [law.sample(n, rng, seed + i) for i, (_, law) in enumerate(laws)]
    return np.asarray(np.choose(chosen[:, :, None], parts), np.float64)


def _weighed(log_probs: dict[str, Floats], weights: Any) -> dict[str, float]:
    """Shares of the members with the largest posterior density given held-out rows, by expectation-maximisation."""
    each, share = np.stack([*log_probs.values()], axis=1), np.full(len(log_probs), 1.0 / len(log_probs))
    for _ in range(ROUNDS):
        terms = np.log(share) + each
        terms = np.exp(terms - np.logaddexp.reduce(terms, axis=1)[:, None])
        counts = len(terms) * np.average(terms, axis=0, weights=weights) + PRIOR
        share = counts / counts.sum()
    share[share < LEAST_WEIGHT] = 0.0
    return {name: float(value) for name, value in zip(log_probs, share / share.sum(), strict=True) if value > 0.0}
