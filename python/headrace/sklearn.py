"""A density estimator and outlier detector for scikit-learn: `FlowDensity`."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.install import install

try:
    from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"headrace.sklearn needs scikit-learn 1.6 or newer: {install('sklearn')}") from error

from headrace._arrays import columns as _columns
from headrace._arrays import frames
from headrace._arrays.caller import is_array
from headrace._arrays.frames import check_numbers, inferred, kinds_of
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.keywords import closed, refuse, refuse_others
from headrace._base.moved import renamed_keywords
from headrace._base.warn import FREQUENT, silent, warn
from headrace._core import LEAST_ROWS
from headrace._fit.ensemble import Ensemble
from headrace._fit.high_effort import with_effort
from headrace._fit.streams import check_stream
from headrace._flow.flow import Flow
from headrace._flow.flows import DEFAULT, IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace._flow.transforms.support import Support, support_or_none
from headrace._tables import arguments as _given
from headrace._tables import table as _tables
from headrace._tables.facts import Passed
from headrace._tables.stream import Present, Treated
from headrace.rows._as_stream import arrays_of, stream_of
from headrace.rows._stream import Stream

__all__ = ["FlowDensity"]

FLOWS = {"maf": MAF, "iaf": IAF, "realnvp": RealNVP, "nsf": NSF, "planar": PlanarFlow, "radial": RadialFlow}


# Parameters that depend on the data, or on others of the estimator; all else comes from the flows and `Flow.fit`.
_BY_DATA = {"self", "features", "context", "x", "weights"}
_OF_ITS_OWN = {"seed", "dtype", "progress"}


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    given = inspect.signature(function).parameters
    return {name: p for name, p in given.items() if name not in _BY_DATA | _OF_ITS_OWN}


_MADE_WITH = {name: _parameters(make) for name, make in FLOWS.items()}
# Parameters of flows and of fits, such as `matmul`, go to the flow: a fit then follows it.
_FITTED_WITH = {name: p for name, p in _parameters(Flow.fit).items() if not any(name in m for m in _MADE_WITH.values())}


def _signature() -> inspect.Signature:
    """The parameters of `FlowDensity`: its own, those of any flow, those of `Flow.fit`."""

    def own(
        self: Any,
        flow: str = DEFAULT,
        *,
        ensemble: int | None = None,
        bootstrap: bool = False,
        contamination: float = 0.1,
        discrete: Any = "auto",
        jitter: Any = None,
        missing: str = "refuse",
        dtype: str | None = None,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        """The parameters that no flow has."""

    first, flow, *others = inspect.signature(own).parameters.values()
    named = dict.fromkeys(name for each in _MADE_WITH.values() for name in each)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            first,
            flow,
            *(inspect.Parameter(name, keyword, default=None) for name in named),
            *(p.replace(kind=keyword) for p in _FITTED_WITH.values()),
            *others,
        ]
    )


class FlowDensity(OutlierMixin, DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A normalising flow as an estimator: of densities as `sklearn.neighbors.KernelDensity`, and of outliers.

    Numbers are float32 if the training data are, and float64 otherwise, unless `dtype` is given; either way data of
    both types are read as they are. An estimator can be pickled, as its flow can.

    Args:
        flow: "nsf", "maf", "iaf", "realnvp", "planar" or "radial".
        transforms, hidden, activation, map, scale, slope, coupling, bins, bound, nonlinearity, negative_slope: What the
            flow is made with; see `MAF`, `NSF` and `PlanarFlow`. None is the flow's own default. `fit` refuses what the
            flow does not take.
        base: "standard_normal", "normal" (location and scale are trained), "logistic", "student_t" (degrees of freedom
            are trained), "uniform" (beside `bounds` with both ends of each column; see `MAF`), or a `Base` of as many
            features as the data; None for the flow's own default.
        bounds: For each column ``(low, high)``, with None for an end without a bound, or None; or a dict of the columns
            with bounds, by number or name; see `MAF`. Rows on a bound or beyond are refused by `fit`, and have a log
            density of -inf.
        periodic: For each column ``(low, high)``, one period of it, or None, or such a dict; see `MAF`.
        validation, epochs, batch_size, learning_rate, schedule, weight_decay, clip, average, patience, time_budget:
            See `Flow.fit`, whose defaults these are; its other keywords are taken in the same way.
        effort, keep: See `Flow.fit`. With ``effort="high"`` a flow that takes `residual` has residual blocks,
            unless it is given: it learns more of a mixture.
        checkpoint, checkpoint_every: See `Flow.fit`; `random_state` has to be an int then, and no ensemble can be
            fitted.
        ensemble: How many flows to fit, each from a seed of its own; their mixture is the density (see `Ensemble`).
            None: one flow by itself.
        bootstrap: Whether each of them gets rows drawn with replacement, see `Ensemble.fit`.
        discrete: Which columns are whole numbers or truth values: they are spread by noise over the gap to the next
            ones before a fit, draws are rounded, and their part of a log density is a log probability
            (docs/tables.md). "auto": the columns of frames that have such dtypes, and arrays of integers; None for
            none; or a list of columns, by number or name.
        jitter: Uniform noise for columns of other numbers whose values repeat: None; "auto", as wide as the smallest
            gap between two values of such columns; a width for all of them; or a dict of widths by number or name.
        missing: "refuse" rows with NaN, with the counts of each column; or "drop" them in `fit`, and give NaN for them
            elsewhere.
        contamination: The share of the training rows that `predict` calls outliers, above 0 and at most 0.5.
        dtype: "float32" (faster), "float64" or None.
        random_state: Of fresh weights, of the rows held out and of the order of rows: an int, a
            `numpy.random.RandomState` or None.
        progress: Whether `fit` shows a bar on the standard error.

    Attributes:
        flow_: The fitted `Flow`, or `Ensemble`.
        history_: The `History` of the fit, or a list of one for each member.
        offset_: The log density below which a row is an outlier.
        n_context_: Number of context columns.
        table_: The preprocessing of each column; print it. `flow_` has those that are not constant.
        n_features_in_, feature_names_in_: As scikit-learn defines them.

    >>> import numpy as np
    >>> from headrace.sklearn import FlowDensity
    >>> x = np.random.default_rng(0).normal([1.0, -2.0], [1.0, 3.0], (500, 2))
    >>> density = FlowDensity(transforms=2, hidden=(16,), random_state=0).fit(x)
    >>> density.score_samples(x).shape, density.sample(3, random_state=0).shape
    ((500,), (3, 2))
    >>> density.predict([[1.0, -2.0], [9.0, 9.0]]).tolist()
    [1, -1]
    """

    table_: _tables.Table

    def __init__(self, flow: str = DEFAULT, **parameters: Any) -> None:
        parameters = renamed_keywords("FlowDensity", parameters, self._signature.parameters)
        refuse_others("FlowDensity", parameters, [*self._signature.parameters][1:])
        given = self._signature.bind(self, flow, **parameters)
        given.apply_defaults()
        for name, value in given.arguments.items():
            if name != "self":
                setattr(self, name, value)

    _signature = _signature()
    __init__.__signature__ = _signature  # type: ignore[attr-defined]  # read by get_params, clone and help

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, context: Any = None) -> FlowDensity:
        """Fit a fresh flow to rows.

        Args:
            X: Shape (rows, features), or a stream with context and weights of its own (`headrace.rows`), of which as
                many rows as its buffer holds determine the outliers. A column that counts the rows, as a saved index
                does, gives a warning. A column with one value in all rows is kept aside, and put back by `sample`.
            y: Ignored.
            sample_weight: Shape (rows,): weights of the rows in the likelihood, not negative. A weight of 2 has the
                effect of a row given twice, but not the same bits, because batches then differ.
            context: Shape (rows, columns), or (rows,) for one column: the conditions of the density. Then all
                other methods need it too. In a grid search scikit-learn hands it on by its metadata routing.

        Raises:
            ValueError: rows, weights or context with a NaN or an infinity or of another shape, a weight below 0, or a
                parameter that the flow does not take.
            KeyboardInterrupt: Ctrl-C before the flow has better weights than fresh ones. After this or any other
                error the estimator is as before the call.
        """
        before = dict(self.__dict__)
        try:
            return self._fit(X, sample_weight, context)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, sample_weight: Any, context: Any) -> FlowDensity:
        """`fit`, which may leave the estimator partly changed."""
        check.choice("missing", self.missing, _tables.MISSING)
        if (stream := stream_of(X, context, sample_weight)) is not None:
            return self._fit_stream(stream)
        self._frame = _given.library_of(X)
        if self._frame != "pandas":  # pandas columns of objects may hold numbers
            check_numbers("X", X)  # dates of polars would be numbers of days
        kinds = kinds_of(inferred(X))
        self._names: tuple[str, ...] | None = None  # of the columns of a stream
        try:
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan")
        except (TypeError, ValueError):
            check_numbers("X", X)  # names the column that is not numeric
            raise
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=X.dtype)
        if weights is not None and (weights < 0.0).any():
            raise ValueError(f"sample_weight: expected numbers of at least 0, got {weights.min()}")
        share = self._outliers()
        if message := _columns.about_index(X, self._called()):
            warn(f"X: {message}; drop it if it is an index")
        conditions, self._contexts = None, frames.labels_of(context)
        if context is not None:
            conditions = _two_dimensional(context, X.dtype)
            if len(conditions) != len(X):
                raise ValueError(f"context: expected {len(X)} rows, as many as X has, got {len(conditions)}")
        return self._fit_rows(X, weights, conditions, kinds, share)

    def _fit_rows(
        self, X: NDArray[Any], weights: Any, conditions: Any, kinds: list[str] | None, share: float
    ) -> FlowDensity:
        """`fit` of rows in memory; `kinds`: kinds of the columns, by their dtypes."""
        X, weights, conditions = self._present(X, weights, conditions)
        counts: Any = slice(None) if weights is None or not weights.any() else weights > 0.0  # rows that take part
        self._learn_table(X[counts], kinds)
        columns = 0 if conditions is None else conditions.shape[1]
        self._fit_flow(self.table_.without_constants(X), columns, X, conditions, weights)
        conditions, weights = (None if part is None else part[counts] for part in (conditions, weights))
        self.offset_ = _quantile(self._log_prob(X[counts], conditions), weights, share)
        return self

    def _outliers(self) -> float:
        """The share of training rows called outliers, checked."""
        share = check.number("contamination", self.contamination, above=0.0, below=np.inf)
        if share > 0.5:
            raise ValueError(f"contamination: expected a number of at most 0.5, got {self.contamination!r}")
        return share

    def _fit_stream(self, stream: Stream) -> FlowDensity:
        """`fit` of rows that may not fit in memory."""
        share = self._outliers()
        stream = stream.of_table()
        if self.missing == "drop":
            stream = Present(stream)
        self.__dict__.pop("feature_names_in_", None)  # rows to score may come without names
        self._frame, self._contexts, whole = None, None, stream.whole()
        first = next(iter(stream), None) if whole is None else whole
        if first is None:
            raise ValueError("x: expected rows that miss no number, got none")
        self.n_features_in_, self._names = first.x.shape[1], stream.called
        if message := _columns.about_index(first.x, self._called()):
            warn(f"X: {message}; drop it if it is an index")
        if whole is not None:
            return self._fit_rows(whole.x, whole.weights, whole.context, stream.kinds, share)
        support = self._support()
        seen = Passed(stream, None if support is None else support.bounds)
        check_stream(stream, None, self.progress, seen.add)
        self._learn_table(seen, stream.kinds)
        some = stream.some()
        columns = 0 if some.context is None else some.context.shape[1]
        self._fit_flow(self.table_.without_constants(some.x), columns, stream, None, None)
        self.offset_ = _quantile(self._log_prob(some.x, some.context), some.weights, share)
        return self

    @silent(FREQUENT)  # the table's warning names jitter, too
    def _fit_flow(self, like: NDArray[Any], columns: int, x: Any, context: Any, weights: Any) -> None:
        """Fit a fresh flow, or several, for rows such as those of `like`."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        how = {name: getattr(self, name) for name in _FITTED_WITH}
        self.table_ = replace(self.table_, seed=seed)
        if isinstance(x, np.ndarray):
            x = self.table_.spread(x)
        elif not self.table_.is_plain:
            x = Treated(x, self.table_)
        how["validation"] = self._held_out(how["validation"])
        if self.ensemble is None:
            if self.bootstrap:
                raise ValueError("bootstrap: expected False without an ensemble, got True")
            flow: Any = self._fresh(like, columns, seed)
        else:
            members = check.integer("ensemble", self.ensemble, least=1)
            flow = Ensemble([self._fresh(like, columns, seed + i) for i in range(members)])
            how["bootstrap"] = bool(self.bootstrap)
        self.history_ = flow.fit(x, context, weights=weights, seed=seed, progress=self.progress, **how)
        if self.ensemble is not None:
            flow = flow[: len(self.history_)]  # members that were fitted before Ctrl-C
        called = self._called()
        flow._names = Names(None if called is None else tuple(called[i] for i in self.table_.kept), self._contexts)
        self.flow_, self.n_context_ = flow, flow.context

    def _held_out(self, validation: Any) -> Any:
        """Given validation rows, treated as those to fit; a share, None and plain tables unchanged."""
        parts = validation if isinstance(validation, tuple) else (validation,)
        if 1 <= len(parts) <= 3 and (stream := stream_of(*parts)) is not None:
            validation = parts = arrays_of(stream.of_table())
        if not parts or not is_array(parts[0]) or (self.table_.is_plain and self.missing == "refuse"):
            return validation
        X: NDArray[Any] = check_array(
            parts[0], dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", input_name="validation"
        )
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"validation: expected {self.n_features_in_} columns, as X has, got {X.shape[1]}")
        others = [None if part is None else np.asarray(part) for part in parts[1:]]
        return self.table_.to_look_at(X, *others, names=self._called(), x_name="validation")

    def _to_look_at(self, x: Any, context: Any, weights: Any, training: Any, names: Any) -> tuple[Any, ...]:
        """The arguments of `headrace.diagnose`, in the flow's form."""
        called = self._called() if names is None else names
        own = None if called is None or len(called) != self.n_features_in_ else [called[i] for i in self.table_.kept]
        given = self._looked_at(x, context, weights, "x", _tables.LOOK)
        known = None
        if training is not None:
            parts = training if isinstance(training, tuple) else (training,)
            known = self._looked_at(parts[0], parts[1] if len(parts) > 1 else None, None, "training", _tables.FIT)[:2]
        return *given, known, names if own is None else own

    def _looked_at(self, x: Any, context: Any, weights: Any, x_name: str, purpose: int) -> tuple[Any, ...]:
        X = self._opened(x)
        conditions, share = self._context(context, len(X)), None if weights is None else np.asarray(weights)
        if conditions is not None and conditions.ndim == 1:
            conditions = np.broadcast_to(conditions, (len(X), conditions.size))
        found: tuple[Any, ...] = self.table_.to_look_at(
            X, conditions, share, names=self._called(), x_name=x_name, purpose=purpose
        )
        return found

    def _called(self) -> list[str] | None:
        """The names of the columns."""
        names = getattr(self, "feature_names_in_", self._names)
        return None if names is None else list(names)

    def score_samples(self, X: Any, context: Any = None) -> NDArray[Any]:
        """The log density of each row in nats, shape (rows,), float64: the same for a row alone and among others.

        For whole numbers it is a log probability (`discrete`). A row with another number in a column that was constant
        has -inf, with a warning; a row with missing values has NaN if ``missing="drop"``.

        Args:
            X: Shape (rows, features).
            context: Shape (rows, columns), or one row for all, (columns,) or (1, columns); (rows,) where there is one
                column.
        """
        check_is_fitted(self)
        X = self._opened(X)
        return self._log_prob(X, self._context(context, len(X)))

    def spread_samples(self, X: Any, context: Any = None) -> NDArray[Any]:
        """How far the members of an ensemble differ in `score_samples`, shape (rows,), see `Ensemble.spread`.

        Args:
            X, context: As in `score_samples`.
        """
        check_is_fitted(self)
        if not isinstance(self.flow_, Ensemble):
            raise ValueError("ensemble: expected a number of flows for a spread, got None")
        X = self._opened(X)
        found = self._by_row(self.flow_.spread, self.table_.without_constants(X), self._context(context, len(X)))
        return np.where(np.isnan(X).any(axis=1), np.nan, found)

    def score(self, X: Any, y: Any = None, *, context: Any = None) -> float:
        """The mean log density of rows in nats; if ``missing="drop"``, of those without missing values."""
        log_prob = self.score_samples(X, context)
        return float(log_prob[~np.isnan(self._opened(X)).any(axis=1)].mean(dtype=np.float64))

    def decision_function(self, X: Any, *, context: Any = None) -> NDArray[Any]:
        """`score_samples` less `offset_`: below 0 for outliers, NaN for rows with missing values, shape (rows,)."""
        decision: NDArray[Any] = self.score_samples(X, context) - self.offset_
        return decision

    def predict(self, X: Any, *, context: Any = None) -> NDArray[np.int64]:
        """1 for rows like those that were fitted, -1 for outliers and for rows without a density, shape (rows,).

        The latter are rows with missing values (if ``missing="drop"``; otherwise they are refused).
        """
        return np.where(self.decision_function(X, context=context) >= 0.0, 1, -1)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None, *, context: Any = None) -> Any:
        """`fit`, and `predict` of the same rows."""
        return self.fit(X, y, sample_weight, context=context).predict(X, context=context)

    @closed
    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        context: Any = None,
        as_frame: bool = False,
        **others: Any,
    ) -> Any:
        """Draw rows, shape (n_samples, features): as an array, or as a frame with names and dtypes.

        Args:
            n_samples: How many.
            random_state: An int, a `numpy.random.RandomState` or None.
            context: As `score_samples` takes it, for n_samples rows.
            as_frame: Whether to give a frame of polars, where `fit` was given one, or else of pandas, with the columns'
                names and whole numbers as integers and truth values.

        Raises:
            ImportError: pandas is not installed, for a frame.
        """
        refuse(self.sample, others)
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        n = check.integer("n", n_samples)
        drawn = self.table_.back(self.flow_.sample(n, self._context(context, n), seed=seed))
        if not as_frame:
            return drawn
        return _given.as_frame(drawn, self.table_, self._called(), self._frame)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore an estimator; one that was pickled before tables existed gets a plain table."""
        old = {name: p.default for name, p in self._signature.parameters.items() if p.default is not p.empty}
        super().__setstate__({**old, "_frame": None, "_names": None, "_contexts": None, **state})
        if "flow_" in state and "table_" not in state:
            self.table_ = _tables.Table((_tables.Column(),) * self.n_features_in_)

    # ---- tables as they come ---------------------------------------------------------------------------------------

    def _present(self, X: NDArray[Any], *others: NDArray[Any] | None) -> tuple[Any, ...]:
        """Rows without missing values, and their context and weights."""
        labels = [_columns.label(i, self._called()) for i in range(X.shape[1])]
        good = _tables.without_missing(X, labels, self.missing, "X")
        if good.all():
            return X, *others
        return X[good], *(None if part is None else part[good] for part in others)

    def _learn_table(self, X: NDArray[Any] | Passed, kinds: list[str] | None) -> None:
        """Determine each column's kind and noise, from the rows that take part or from a sample of them."""
        called = self._called()
        self.table_ = _given.learn(
            X,
            kinds,
            discrete=self.discrete,
            jitter=self.jitter,
            missing=self.missing,
            support=self._support(),
            names=called,
            x_name="X",
        )
        some = X.some if isinstance(X, Passed) else X
        if message := _tables.about_repeats(some, self.table_, called):
            warn(f"X: {message}")

    def _opened(self, X: Any) -> NDArray[Any]:
        """Rows to score."""
        finite: Any = "allow-nan" if self.missing == "drop" else True
        rows: NDArray[Any] = validate_data(
            self, X, dtype=[np.float64, np.float32], reset=False, ensure_all_finite=finite
        )
        return rows

    def _by_column(self, name: str, value: Any) -> Any:
        """Bounds or periods of each column, from a dict by index or name too."""
        return _columns.by_column(name, value, self.n_features_in_, self._called(), "X")

    def _support(self) -> Support | None:
        """The support of all columns."""
        bounds, periodic = self._by_column("bounds", self.bounds), self._by_column("periodic", self.periodic)
        return support_or_none(bounds, self.n_features_in_, periodic)

    def _fresh(self, X: NDArray[Any], context: int, seed: int) -> Flow:
        """A fresh flow of the columns that are left."""
        name = check.choice("flow", self.flow, tuple(FLOWS))
        takes = _MADE_WITH[name]
        every = dict.fromkeys(parameter for each in _MADE_WITH.values() for parameter in each)
        settings = {key: getattr(self, key) for key in every if getattr(self, key) is not None}
        settings = {**with_effort(self.effort, [key for key in takes if key not in settings]), **settings}
        for key in settings:
            if key not in takes:
                raise ValueError(f"{key}: expected None, as flow={name!r} does not take it, got {settings[key]!r}")
        for key, left in (("bounds", self.table_.bounds), ("periodic", self.table_.periods)):
            if (own := left(self._by_column(key, settings.pop(key, None)))) is not None:
                settings[key] = own
        dtype = X.dtype if self.dtype is None else self.dtype
        flow: Flow = FLOWS[name](X.shape[1], context=context, seed=seed, dtype=dtype, **settings)
        return flow

    def _context(self, context: Any, rows: int) -> NDArray[Any] | None:
        """The context in the flow's form, (rows, columns), or (columns,) for all rows."""
        columns = self.n_context_
        if (context is None) != (columns == 0):
            wanted = f"{columns} columns, as fit was given" if columns else "None, as fit was given none"
            raise ValueError(f"context: expected {wanted}, got {'None' if context is None else 'an array'}")
        if context is None:
            return None
        self.flow_._names.check("context", context)
        given = _two_dimensional(context, self.flow_.dtype)
        if (given.shape == (1, columns) and rows != 1) or (np.ndim(context) == 1 and len(given) == columns > 1):
            return given.ravel()
        if given.shape != (rows, columns):
            raise errors.wrong_shape("context", errors.context_shape(columns, (rows,)), np.shape(context))
        return given

    def _log_prob(self, X: NDArray[Any], context: NDArray[Any] | None) -> NDArray[Any]:
        verb = partial(self._by_row, self.flow_.log_prob)
        return self.table_.log_prob(verb, X, context, name="X", names=self._called())

    def _by_row(self, verb: Any, X: NDArray[Any], context: NDArray[Any] | None) -> NDArray[Any]:
        """A result of at least `LEAST_ROWS` rows, which give each row the bits that it has among others."""
        rows = len(X)
        missing = max(LEAST_ROWS - rows, 0)
        if missing:
            X = np.concatenate([X, np.repeat(X[:1], missing, axis=0)])
            if context is not None and context.ndim == 2:
                context = np.concatenate([context, np.repeat(context[:1], missing, axis=0)])
        # scikit-learn expects float64 scores; it holds those of a float32 flow exactly.
        return np.asarray(verb(X, context)[:rows], np.float64)


def _two_dimensional(context: Any, dtype: Any) -> NDArray[Any]:
    """A finite array (rows, columns), from (rows,) too."""
    if np.ndim(context) not in (1, 2):
        raise errors.wrong_shape("context", "(rows, columns) or (rows,)", np.shape(context))
    given: NDArray[Any] = check_array(context, dtype=dtype, ensure_2d=False, input_name="context")
    return given[:, None] if given.ndim == 1 else given


def _quantile(values: NDArray[Any], weights: NDArray[Any] | None, share: float) -> float:
    """The value below which this share of the rows, or of their weights, lies."""
    if weights is None:
        return float(np.quantile(values, share))
    order = np.argsort(values)
    total = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order[np.searchsorted(total, share * total[-1], side="right")]])
