"""A density estimator for scikit-learn: `FlowDensity`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('headrace.sklearn needs scikit-learn 1.6 or newer: pip install "headrace[sklearn]"') from error

from headrace import _arguments as check
from headrace import files
from headrace.flow import Flow
from headrace.flows import IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace.training import PATIENCE

__all__ = ["FlowDensity"]

FLOWS = {"maf": MAF, "iaf": IAF, "realnvp": RealNVP, "nsf": NSF, "planar": PlanarFlow, "radial": RadialFlow}

_LEAST_ROWS = 8  # fewer take another path through the core, which may differ in the last digits


class FlowDensity(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A normalising flow as a density estimator, in the way of `sklearn.neighbors.KernelDensity`.

    Numbers are float32 if the training data are, and float64 otherwise, unless `dtype` says which; either way data of
    both types are read as they are. An estimator can be pickled; the pickle holds the flow as `Flow.save` writes it.

    Args:
        flow: "maf", "iaf", "realnvp", "nsf", "planar" or "radial".
        transforms: Number of transforms; None for the flow's own default.
        hidden: Units of each hidden layer.
        validation: The share of rows held out to choose the best epoch by; 0 for none.
        epochs, batch_size, learning_rate, patience: See `Flow.fit`, whose defaults follow the number of rows.
        dtype: "float32" (faster), "float64" or None.
        random_state: Of fresh weights, of the rows held out and of the order of rows: an int, a
            `numpy.random.RandomState` or None.

    Attributes:
        flow_: The fitted `Flow`.
        history_: The `History` of the fit.
        n_features_in_, feature_names_in_: As scikit-learn defines them.

    >>> import numpy as np
    >>> from headrace.sklearn import FlowDensity
    >>> x = np.random.default_rng(0).normal([1.0, -2.0], [1.0, 3.0], (500, 2))
    >>> density = FlowDensity(transforms=2, hidden=(16,), epochs=5, random_state=0).fit(x)
    >>> density.score_samples(x).shape, density.sample(3, random_state=0).shape
    ((500,), (3, 2))
    """

    def __init__(
        self,
        flow: str = "maf",
        *,
        transforms: int | None = None,
        hidden: Sequence[int] = (64, 64),
        validation: float = 0.1,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        patience: int | None = PATIENCE,
        dtype: str | None = None,
        random_state: Any = None,
    ) -> None:
        """See the class."""
        self.flow = flow
        self.transforms = transforms
        self.hidden = hidden
        self.validation = validation
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.dtype = dtype
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> FlowDensity:
        """Fit a fresh flow to rows.

        Args:
            X: Shape (rows, features).
            y: Ignored.
            sample_weight: Shape (rows,): weights of the rows in the likelihood, not negative. A weight of 2 says the
                same as a row given twice, but not to the same bits, as batches are then others.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=X.dtype)
        make = FLOWS[check.choice("flow", self.flow, tuple(FLOWS))]
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        options = {} if self.transforms is None else {"transforms": self.transforms}
        dtype = X.dtype if self.dtype is None else self.dtype
        flow: Flow = make(X.shape[1], hidden=self.hidden, seed=seed, dtype=dtype, **options)
        self.history_ = flow.fit(
            X,
            weights=weights,
            validation=self.validation,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            seed=seed,
            progress=False,
        )
        self.flow_ = flow
        return self

    def score_samples(self, X: Any) -> NDArray[Any]:
        """The log density of each row in nats, shape (rows,): the same for a row alone and among others."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        rows = len(X)
        if rows < _LEAST_ROWS:
            X = np.concatenate([X, np.repeat(X[:1], _LEAST_ROWS - rows, axis=0)])
        log_prob: NDArray[Any] = self.flow_.log_prob(X)[:rows]
        return log_prob

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log density of rows in nats."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> NDArray[Any]:
        """Draw rows, shape (n_samples, features)."""
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        drawn: NDArray[Any] = self.flow_.sample(n_samples, seed=seed)
        return drawn

    def __getstate__(self) -> dict[str, Any]:
        """The flow as the bytes of a file."""
        state: dict[str, Any] = super().__getstate__()
        return {**state, "flow_": files.to_bytes(state["flow_"])} if "flow_" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The way back."""
        if "flow_" in state:
            state = {**state, "flow_": files.from_bytes(state["flow_"])}
        super().__setstate__(state)
