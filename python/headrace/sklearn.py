"""Estimators of scikit-learn: `FlowDensity`, for densities and outliers, and `FlowRegressor`, for responses."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from headrace._base.install import install

try:
    from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin, clone
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"headrace.sklearn needs scikit-learn 1.6 or newer: {install('sklearn')}") from error

from headrace._arrays import frames
from headrace._arrays.caller import is_array
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.keywords import closed, refuse, refuse_others
from headrace._base.moved import ENDS, renamed_keywords
from headrace._base.warn import FREQUENT, silent, warn
from headrace._fit.ensemble import Ensemble
from headrace._fit.high_effort import with_effort
from headrace._flow.flow import Flow
from headrace._flow.flows import DEFAULT, IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace._regression.regressor import FlowRegressor
from headrace._tables import table as _tables
from headrace._tables.arguments import Treatment
from headrace._tables.density import Columns, TableDensity, by_row, library_of
from headrace._tables.mixed_fit import can_gate, fit_table
from headrace._tables.preparing import Prepared, prepared
from headrace._tables.stream import Present
from headrace.rows._as_stream import arrays_of, stream_of
from headrace.rows._stream import Block, Stream

__all__ = ["FitSettings", "FlowDensity", "FlowRegressor", "FlowSettings"]

F = TypeVar("F", bound=Callable[..., Any])

FLOWS = {"maf": MAF, "iaf": IAF, "realnvp": RealNVP, "nsf": NSF, "planar": PlanarFlow, "radial": RadialFlow}


# Parameters of flows and fits that the data or other parameters of the estimator determine; all others are parameters
# of the estimator.
_BY_DATA = {"self", "features", "context", "x", "weights"}
_OF_ITS_OWN = {"seed", "dtype", "progress"}


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    given = inspect.signature(function).parameters
    return {name: p for name, p in given.items() if name not in _BY_DATA | _OF_ITS_OWN}


_MADE_WITH = {name: _parameters(make) for name, make in FLOWS.items()}
# Parameters that both flows and fits have, such as `matmul`, are set on the flow, and the fit uses the flow's value.
_FITTED_WITH = {name: p for name, p in _parameters(Flow.fit).items() if not any(name in m for m in _MADE_WITH.values())}


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_BOOTSTRAP = inspect.Parameter("bootstrap", _KEYWORD, default=False)
_BY_FLOW = [*dict.fromkeys(name for each in _MADE_WITH.values() for name in each)]
# Rarely used settings of flows, which `FlowSettings` contains.
_RARE = ("last_activation", "dropout", "scale", "slope", "link", "matmul", "nonlinearity", "negative_slope")


def _init(parameters: list[inspect.Parameter]) -> Any:
    """A constructor that stores these parameters, as scikit-learn requires, and refuses other keywords."""

    def __init__(self: Any, **given: Any) -> None:
        refuse_others(type(self).__name__, given, [one.name for one in parameters])
        for one in parameters:
            setattr(self, one.name, given.get(one.name, one.default))

    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    return __init__


class FitSettings(BaseEstimator):  # type: ignore[misc]
    """Settings of the fit of a `FlowDensity`: the keywords of `Flow.fit` with the same defaults, and `bootstrap` of
    `Ensemble.fit`.

    A grid search sets these settings by names like ``fit__learning_rate``.

    >>> from headrace.sklearn import FitSettings, FlowDensity
    >>> FlowDensity(fit=FitSettings(patience=5)).set_params(fit__learning_rate=1e-3).get_params()["fit__patience"]
    5
    """

    __init__ = _init([*(one.replace(kind=_KEYWORD) for one in _FITTED_WITH.values()), _BOOTSTRAP])


class FlowSettings(BaseEstimator):  # type: ignore[misc]
    """Rarely used settings of flows; see `MAF`, `NSF` and `PlanarFlow`. None stands for the flow's own default."""

    __init__ = _init([inspect.Parameter(name, _KEYWORD, default=None) for name in _RARE])


_NESTED = {"fit": FitSettings, "settings": FlowSettings}
_OLD = {name: nested for nested, kind in _NESTED.items() for name in kind._get_param_names()}


def _signature() -> inspect.Signature:
    """The signature of `FlowDensity`: the parameters of all flows, and the parameters of `own`."""

    def own(
        self: Any,
        flow: str = DEFAULT,
        *,
        settings: FlowSettings | None = None,
        fit: FitSettings | None = None,
        ensemble: int | None = None,
        contamination: float = 0.1,
        discrete: Any = "auto",
        spread: Any = "auto",
        missing: str = "refuse",
        categories: Any = "auto",
        dtype: str | None = None,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        """The parameters that flows do not have."""

    first, flow, *others = inspect.signature(own).parameters.values()
    shown = [inspect.Parameter(name, _KEYWORD, default=None) for name in _BY_FLOW if name not in _RARE]
    return inspect.Signature([first, flow, *shown, *others])


class _Beside:
    """A descriptor for a method and a parameter of the same name, whose value each instance stores."""

    def __init__(self, function: Any) -> None:
        self._function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._function if instance is None else self._function.__get__(instance)

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._function.__name__] = value


def _beside_its_parameter(function: F) -> F:
    return cast("F", _Beside(function))


class FlowDensity(OutlierMixin, DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A normalising flow as an estimator: of densities, like `sklearn.neighbors.KernelDensity`, and of outliers.

    Results are float32 if the training data are float32, and otherwise float64, unless `dtype` is set; data of both
    dtypes are read without conversion. An estimator can be pickled, like its flow.

    Args:
        flow: "nsf", "maf", "iaf", "realnvp", "planar" or "radial".
        transforms, hidden, activation, residual, map, bins, bound, coupling: Arguments of the flow; see `MAF` and
            `NSF`. None stands for the flow's own default. `fit` refuses arguments that the flow does not have.
        base: "standard_normal", "normal" (location and scale are trained), "logistic", "student_t" (degrees of freedom
            are trained), "uniform" (with two `bounds` for each column; see `MAF`), or a `Base` with the
            number of features of the data; None for the flow's own default.
        bounds: For each column ``(low, high)``, with None for an end without a bound, or None; or a dict of the columns
            with bounds, by number or name; see `MAF`. `fit` refuses rows on a bound or beyond, whose log density is
            -inf.
        periodic: For each column the ends ``(low, high)`` of one period, or None; or a dict like that of `bounds`; see
            `MAF`.
        settings: Further settings of flows, a `FlowSettings`; None for the defaults.
        fit: A `FitSettings` with the keywords of `Flow.fit`; None for the defaults. With ``effort="high"`` a flow that
            takes `residual` has residual blocks unless `residual` is set. With a checkpoint, `random_state` must be an
            int, and `ensemble` None.
        ensemble: The number of flows to fit, each with its own seed; their mixture is the density (see `Ensemble`).
            None: a single flow.
        discrete: The columns of integers or truth values: before a fit, noise spreads their values over the gap to the
            next value; samples are rounded, and the columns' part of a log density is a log probability
            (docs/tables.md). "auto": columns of frames with dtypes of integers or truth values, and all columns of
            integer arrays; None for no columns; or a list of columns, by number or name.
        spread: Uniform noise for columns of other repeating values: "auto", as wide as the smallest gap between two
            values of such a column; "none"; a width for all such columns; or a dict of widths by number or name.
        missing: "refuse" rows with NaN, with the counts of each column; "drop" such rows in `fit`, and return NaN for
            them in other methods; or "model" missing values, which then have a probability, whereas present values have
            a density.
        categories: The columns with a probability for each value, from a network before the flow: "auto", columns of
            text, categories and truth values, integers of up to 128 values if held-out rows prefer probabilities to
            noise, and values that a twentieth of the rows share, with a density of all other values; None for no
            columns, which leaves out text; or a list of columns, by number or name. Streams have no columns with
            probabilities.
        contamination: The share of the training rows that `predict` counts as outliers, above 0 and at most 0.5.
        dtype: "float32" (faster), "float64" or None.
        random_state: The source of fresh weights, of held-out rows and of the order of rows: an int, a
            `numpy.random.RandomState` or None.
        progress: Whether `fit` shows a bar on the standard error.

    Attributes:
        flow_: The fitted `Flow`, or `Ensemble`.
        history_: The `History` of the fit, or a list with a `History` for each member.
        offset_: The log density below which a row is an outlier.
        n_context_: The number of context columns.
        table_: The treatment of each column, for printing. Columns of text, indices and identifiers are left out;
            `flow_` has the remaining columns that are not constant.
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
        parameters = self._renamed(parameters)
        refuse_others("FlowDensity", parameters, [*self._signature.parameters][1:])
        given = self._signature.bind(self, flow, **parameters)
        given.apply_defaults()
        for name, value in given.arguments.items():
            if name != "self":
                setattr(self, name, value)

    _signature = _signature()
    __init__.__signature__ = _signature  # type: ignore[attr-defined]  # read by get_params, clone and help

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; `deep`: whether to add the parameters of `fit` and `settings`, as ``fit__epochs``."""
        found = {name: vars(self)[name] for name in self._get_param_names()}
        for nested, kind in _NESTED.items() if deep else ():
            inner = (found[nested] if isinstance(found[nested], kind) else kind()).get_params()
            found |= {f"{nested}__{name}": value for name, value in inner.items()}
        return found

    def set_params(self, **parameters: Any) -> FlowDensity:
        """Set parameters by name; parameters of `fit` and `settings` have names like ``fit__epochs``."""
        parameters = self._renamed(parameters)
        for nested, kind in _NESTED.items():
            inner = {name: parameters.pop(name) for name in [*parameters] if name.startswith(f"{nested}__")}
            if nested in parameters:
                setattr(self, nested, parameters.pop(nested))
            if inner:  # set in a copy, because other estimators may share the object
                own = clone(vars(self)[nested] or kind())
                values = {name.partition("__")[2]: value for name, value in inner.items()}
                setattr(self, nested, own.set_params(**values))
        super().set_params(**parameters)
        return self

    def _renamed(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters by their current names; former names work until version 0.7."""
        parameters = renamed_keywords("FlowDensity", parameters, _OLD)
        old = {name: parameters[name] for name in parameters if name in _OLD or name == "jitter"}
        if not old:
            return parameters
        kept = {name: value for name, value in parameters.items() if name not in old}
        advice = []
        if "jitter" in old:
            kept["spread"] = "none" if old["jitter"] is None else old["jitter"]
            advice.append("spread=...")
        for nested, kind in _NESTED.items():
            inner = {name: value for name, value in old.items() if _OLD.get(name) == nested}
            if inner:
                before = kept.get(nested) or vars(self).get(nested)
                kept[nested] = clone(before or kind()).set_params(**inner)
                advice.append(f"{nested}={kind.__name__}({', '.join(f'{name}=...' for name in inner)})")
        warn(f"{', '.join(old)}: give {', '.join(advice)} in place of it; the old way ends with {ENDS}", FutureWarning)
        return kept

    def _inner(self, nested: str) -> dict[str, Any]:
        """The settings `fit` or `settings` as a dict."""
        value, kind = vars(self)[nested], _NESTED[nested]
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{nested}: expected None or {kind.__name__}, got {check.kind_of(value)}")
        return dict((value or kind()).get_params())

    @_beside_its_parameter
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, context: Any = None) -> FlowDensity:
        """Fit a new flow to rows.

        Args:
            X: Shape (rows, features), or a stream with its own context and weights (`headrace.rows`); for a stream, as
                many rows as its buffer has determine the outliers. Columns of text, and columns that count the rows or
                have a different integer in each row, are left out, with a warning, unless `discrete`, `spread`,
                `bounds` or `periodic` names them. A column with one value in all rows is left out of the flow, and
                included again by `sample`.
            y: Ignored.
            sample_weight: Shape (rows,): weights of the rows in the likelihood, not negative. A weight of 2 has the
                effect of a repeated row, but results have other bits, because batches differ.
            context: Shape (rows, columns), or (rows,) for one column: the conditions of the density. With a context,
                all other methods need a context, too. In a grid search, scikit-learn passes the context by its metadata
                routing.

        Raises:
            ValueError: rows, weights or context have a NaN, an infinity or a wrong shape, a weight is below 0, or the
                flow does not have a parameter.
            KeyboardInterrupt: Ctrl-C was pressed before the flow had better weights than its initial weights. After any
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
        """Fit a new flow; an error may leave the estimator partly changed."""
        check.choice("missing", self.missing, _tables.MISSING)
        share = check.number("contamination", self.contamination, above=0.0, below=np.inf)
        if share > 0.5:
            raise ValueError(f"contamination: expected a number of at most 0.5, got {self.contamination!r}")
        self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self._names: tuple[str, ...] | None = None  # the names of a stream's columns
        self._frame: str | None = None
        self._contexts: tuple[str, ...] | None = None
        self._labels: dict[str, tuple[str, ...]] = {}
        texts: tuple[str, ...] = ()
        rows: Block | Stream
        if (stream := stream_of(X, context, sample_weight)) is not None:
            self.__dict__.pop("feature_names_in_", None)  # rows in later calls may have no names
            rows = stream.of_table()
            whole = (Present(rows) if self.missing == "drop" else rows).whole()
            first = next(iter(rows), None) if whole is None else whole
            if first is None:
                raise ValueError("x: expected rows that miss no number, got none")
            self.n_features_in_, self._names = first.x.shape[1], rows.called
            kinds, rows = rows.kinds, rows if whole is None else whole
        else:
            rows, kinds, texts = self._of_arrays(X, sample_weight, context)
        ready = prepared(rows, kinds, self._treatment(texts), self.progress)
        self._fit_flow(ready)
        some = ready.given.some() if isinstance(ready.given, Stream) else ready.given
        if some.weights is not None and some.weights.any():  # only rows that affect the fit
            some = some.take(some.weights > 0.0)
        scores = self.as_table().scores(some.x[:, self.table_.places], some.context, x_name="X", alone=True)
        self.offset_ = _quantile(scores, some.weights, share)
        return self

    def _of_arrays(self, X: Any, sample_weight: Any, context: Any) -> tuple[Block, list[str] | None, tuple[str, ...]]:
        """The rows in memory, the kinds of their columns by dtype, and the names of text columns."""
        self._frame = library_of(X)
        X, self._labels = (X, {}) if self.categories is None else frames.coded(X)
        X, texts = frames.without_text(X)
        if self._frame != "pandas":  # columns of objects in pandas may contain numbers
            frames.check_numbers("X", X)  # NumPy would read dates of polars as numbers of days
        kinds = frames.kinds_of(frames.inferred(X))
        try:
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan")
        except (TypeError, ValueError):
            frames.check_numbers("X", X)  # raises an error with the name of a column that is not numeric
            raise
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=X.dtype)
        if weights is not None and (weights < 0.0).any():
            raise ValueError(f"sample_weight: expected numbers of at least 0, got {weights.min()}")
        conditions, self._contexts = None, frames.labels_of(context)
        if context is not None:
            conditions = _two_dimensional(context, X.dtype)
            if len(conditions) != len(X):
                raise ValueError(f"context: expected {len(X)} rows, as many as X has, got {len(conditions)}")
        return Block(X, conditions, weights), kinds, texts

    def _treatment(self, texts: tuple[str, ...] = ()) -> Treatment:
        """The settings by which columns are treated."""
        names = ("discrete", "spread", "missing", "bounds", "periodic")
        how: dict[str, Any] = {name: getattr(self, name) for name in names}
        how |= {"categories": self.categories, "labels": self._labels}
        may_gate = self.categories is not None and self.periodic is None
        how["gates"] = may_gate and can_gate(self._fresh(np.dtype(np.float32), None, [0, 1], 0, 0))
        labels = [f"column {name!r}" for name in texts]
        return Treatment(**how, names=self._called(), seed=self._seed, texts=labels, x_name="X")

    @silent(FREQUENT)  # the treatment of columns has its own warning
    def _fit_flow(self, ready: Prepared) -> None:
        """Fit a new flow, or a new ensemble, to prepared rows."""
        how, seed = self._inner("fit"), self._seed
        bootstrap, self.table_ = how.pop("bootstrap"), ready.table
        how["validation"] = self._held_out(how["validation"])
        like = next(iter(ready.rows)) if isinstance(ready.rows, Stream) else ready.rows
        make = partial(self._fresh, like.x.dtype if self.dtype is None else self.dtype, ready)
        members = None if self.ensemble is None else check.integer("ensemble", self.ensemble, least=1)
        if members is not None:
            how["bootstrap"] = bool(bootstrap)
        elif bootstrap:
            raise ValueError("bootstrap: expected False without an ensemble, got True")

        def made(kept: list[int], contexts: int) -> Any:
            if members is None:
                return make(kept, contexts, seed)
            return Ensemble([make(kept, contexts, seed + i) for i in range(members)])

        columns = [self.table_.columns[i] for i in self.table_.kept]
        flow, self.history_ = fit_table(ready.rows, columns, made, seed, progress=self.progress, **how)
        called = self._called()
        flow._names = Names(None if called is None else tuple(called[i] for i in self.table_.kept), self._contexts)
        self.flow_, self.n_context_ = flow, flow.context

    def _held_out(self, validation: Any) -> Any:
        """Validation rows after the treatment of columns; a share, None and untreated rows are returned unchanged."""
        parts = validation if isinstance(validation, tuple) else (validation,)
        if 1 <= len(parts) <= 3 and (stream := stream_of(*parts)) is not None:
            validation = parts = arrays_of(stream.of_table())
        if not parts or not is_array(parts[0]) or (self.table_.is_plain and self.missing == "refuse"):
            return validation
        columns = self._columns()
        rows = columns.opened(*parts, x_name="validation")
        return columns.used.to_look_at(*rows, names=columns.used_names, x_name="validation")

    def as_table(self) -> TableDensity:
        """The density of the original table, which its `save` writes to a file and `headrace.load` reads."""
        check_is_fitted(self, "flow_")
        return TableDensity(self.flow_, self._columns(self.flow_.dtype.name))

    def _columns(self, dtype: str = "float64") -> Columns:
        """The kinds and names of the columns, and the dtype of results."""
        names = None if (called := self._called()) is None else tuple(called)
        return Columns(self.table_, names, self._contexts, dtype, self._frame, names)

    def _called(self) -> list[str] | None:
        """The names of the columns, or None."""
        names = getattr(self, "feature_names_in_", self._names)
        return None if names is None else list(names)

    def score_samples(self, X: Any, context: Any = None) -> NDArray[Any]:
        """The log density of each row in nats, shape (rows,), float64, which does not depend on the other rows.

        For columns of integers a log probability takes the place of the log density (`discrete`). The result of a row
        with another value in a constant column is -inf, with a warning; with ``missing="drop"`` the result of a row
        with missing values is NaN.

        Args:
            X: Shape (rows, features).
            context: Shape (rows, columns), or one row for all, (columns,) or (1, columns); (rows,) for a single
                column.
        """
        check_is_fitted(self)
        rows = self._opened(X)
        return self.as_table().scores(rows, self._context(context, len(rows)), x_name="X", alone=True)

    def spread_samples(self, X: Any, context: Any = None) -> NDArray[Any]:
        """The spread of the ensemble's members in `score_samples`, shape (rows,); see `Ensemble.spread`.

        Args:
            X, context: As in `score_samples`.
        """
        check_is_fitted(self)
        if not self.as_table().has_members:
            raise ValueError("ensemble: expected a number of flows for a spread, got None")
        rows = self._opened(X)
        found = by_row(self.as_table().spread, rows, self._context(context, len(rows)))
        return np.where(np.isnan(rows).any(axis=1), np.nan, found)

    def score(self, X: Any, y: Any = None, *, context: Any = None) -> float:
        """The mean log density of rows in nats; with ``missing="drop"``, of rows without missing values."""
        log_prob = self.score_samples(X, context)
        there = ~np.isnan(self._opened(X)).any(axis=1) if self.missing == "drop" else slice(None)
        return float(log_prob[there].mean(dtype=np.float64))

    def decision_function(self, X: Any, *, context: Any = None) -> NDArray[Any]:
        """`score_samples` less `offset_`, shape (rows,): below 0 for outliers, NaN for rows with missing values."""
        return self.score_samples(X, context) - self.offset_

    def predict(self, X: Any, *, context: Any = None) -> NDArray[np.int64]:
        """An array (rows,): 1 for rows like the training rows, -1 for outliers and for rows without a density.

        A row with missing values has no density if ``missing="drop"``; if ``missing="refuse"``, such a row is an error.
        """
        return np.where(self.decision_function(X, context=context) >= 0.0, 1, -1)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None, *, context: Any = None) -> Any:
        """Fit to rows, and return `predict` of the same rows."""
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
        """Draw rows, shape (n_samples, features), as an array, or as a frame with names and dtypes.

        Args:
            n_samples: The number of rows.
            random_state: An int, a `numpy.random.RandomState` or None.
            context: As in `score_samples`, for n_samples rows.
            as_frame: Whether to return a frame, of polars if `fit` had such a frame, or else of pandas, with the
                columns' names, integers and truth values.

        Raises:
            ImportError: a frame was requested, and pandas is not installed.
        """
        refuse(self.sample, others)
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        n = check.integer("n", n_samples)
        return self.as_table().sample(n, self._context(context, n), seed=seed, as_frame=as_frame)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore an estimator from a pickle; add settings objects and a table if an old version wrote the pickle."""
        old = {name: p.default for name, p in self._signature.parameters.items() if p.default is not p.empty}
        state = {**old, "_labels": {}, "_frame": None, "_names": None, "_contexts": None, **state}
        for nested, kind in _NESTED.items():
            inner = {name: state.pop(name) for name in [*state] if _OLD.get(name) == nested}
            state[nested] = kind(**inner) if inner else state[nested]
        if "jitter" in state:
            state["spread"] = state.pop("jitter") or "none"
        super().__setstate__(state)
        if "flow_" in state and "table_" not in state:
            self.table_ = _tables.Table((_tables.Column(),) * self.n_features_in_)

    def _opened(self, X: Any) -> NDArray[Any]:
        """The used columns of X, checked; X has all columns of the table or, like a sample, only the used ones."""
        finite: Any = True if self.missing == "refuse" else "allow-nan"
        X = frames.without_text(frames.coded(X, self.as_table().columns.labels)[0], self._called() or ())[0]
        how: dict[str, Any] = {"dtype": [np.float64, np.float32], "ensure_all_finite": finite}
        places = self.table_.places
        if len(places) < self.n_features_in_ and np.shape(X)[1:] == (len(places),):
            return check_array(X, **how, input_name="X")
        rows = validate_data(self, X, reset=False, **how)
        return rows if len(places) == rows.shape[1] else rows[:, places]

    def _fresh(self, dtype: Any, ready: Prepared | None, columns: list[int], context: int, seed: int) -> Flow:
        """A new flow with the estimator's settings for some of the table's columns."""
        name = check.choice("flow", self.flow, tuple(FLOWS))
        takes = _MADE_WITH[name]
        rare = self._inner("settings")
        given = {key: rare[key] if key in rare else getattr(self, key) for key in _BY_FLOW}
        settings = {key: value for key, value in given.items() if value is not None}
        effort = self._inner("fit")["effort"]
        settings = {**with_effort(effort, [key for key in takes if key not in settings]), **settings}
        for key in settings:
            if key not in takes:
                raise ValueError(f"{key}: expected None, as flow={name!r} does not take it, got {settings[key]!r}")
        for key in ("bounds", "periodic"):
            settings.pop(key, None)
            value = None if ready is None else getattr(ready, key)
            if (ends := _tables.ends_of(value, columns)) is not None:
                settings[key] = ends
        return FLOWS[name](len(columns), context=context, seed=seed, dtype=dtype, **settings)

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


def _two_dimensional(context: Any, dtype: Any) -> NDArray[Any]:
    """A finite array (rows, columns), from an array (rows,) or (rows, columns)."""
    if np.ndim(context) not in (1, 2):
        raise errors.wrong_shape("context", "(rows, columns) or (rows,)", np.shape(context))
    given: NDArray[Any] = check_array(context, dtype=dtype, ensure_2d=False, input_name="context")
    return given[:, None] if given.ndim == 1 else given


def _quantile(values: NDArray[Any], weights: NDArray[Any] | None, share: float) -> float:
    """The quantile of `values` for the probability `share`, with the weights of the values if given."""
    if weights is None:
        return float(np.quantile(values, share))
    order = np.argsort(values)
    total = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order[np.searchsorted(total, share * total[-1], side="right")]])
