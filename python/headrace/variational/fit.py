"""Fitting a flow to a density that can be evaluated but not sampled: variational inference.

docs/variational.md has the objectives, the estimators and the measurements behind the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.keywords import taken_from, takes
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Unpack
from headrace._fit import optimizer as _optimizer
from headrace._flow.flow import Flow
from headrace._flow.program.module import is_of_sequences
from headrace.variational import descent
from headrace.variational.arguments import EVALUATED, Evaluated, OfSteps, ToDensity
from headrace.variational.target import Contexts, Target, contexts_of, target_of

CHUNK = 8192  # the samples that an estimate computes at a time

RATE = 0.4  # a factor of the default rate of `Flow.fit`
RATE_WITHOUT_NETWORKS = 1e-2  # the default rate of flows without networks
CONTEXTS = 256  # the most contexts of an estimate


@public("headrace.variational")
@dataclass(frozen=True)
class FreeEnergy:
    """Estimates from independent samples of a flow q for a density p = e^log_density / Z, all in nats.

    With a table of contexts, or a function that draws contexts, all values are means over `contexts` contexts, each
    with the same number of samples. Each context has a separate log Z and KL. n samples are divided into √n contexts
    with √n samples each, but at most 256 contexts, and at most the number of rows of a table.
    """

    free_energy: float
    """The mean of log q - log_density: KL(q ‖ p) - log Z."""
    standard_error: float
    """The standard error of the free energy."""
    log_z: float
    """log Z by importance weights: the log of the mean of e^(log_density - log q). It is too low, by at most the KL,
    if the samples miss parts of p."""
    log_z_error: float
    """The standard error of `log_z`, to first order; unreliable if few samples have most of the weight."""
    kl: float
    """KL(q ‖ p) from the estimated log Z: free_energy + log_z."""
    kl_error: float
    """The standard error of `kl`, to first order."""
    effective_samples: float
    """(Σ w)² / Σ w² of the importance weights w; equal to `samples` if q is p."""
    samples: int
    """The number of samples in the estimates."""
    skipped: int
    """The number of samples left out because log q or the log density was NaN or +infinity. A log density of -infinity
    is a weight of zero, which counts for log Z but not for the free energy."""
    contexts: int = 1
    """The number of contexts in the means; 1 if all samples share one context, or have none. If only one context is
    drawn from several, the standard errors are NaN."""

    def __repr__(self) -> str:
        """Estimates with their standard errors."""
        more = f", skipped={self.skipped}" if self.skipped else ""
        more += f", contexts={self.contexts}" if self.contexts > 1 else ""
        return (
            f"FreeEnergy({self.free_energy:.4f} ± {self.standard_error:.4f}, log_z={self.log_z:.4f} ± "
            f"{self.log_z_error:.4f}, kl={self.kl:.4f} ± {self.kl_error:.4f}, effective_samples="
            f"{self.effective_samples:.0f} of {self.samples}{more})"
        )


@public("headrace.variational")
@dataclass(frozen=True)
class DensityFit:
    """The result of `fit_to_density`."""

    history: descent.StepHistory
    final: FreeEnergy | None
    """The estimate for the kept weights, from fresh samples; None if the fit was interrupted or `evaluated` is 0."""

    def __repr__(self) -> str:
        """The final estimate and the history."""
        return f"DensityFit({self.final!r}, {self.history!r})"


@takes(ToDensity, OfSteps, Evaluated)
def fit_to_density(
    flow: Flow,
    log_density: Any,
    context: NDArray[Any] | Callable[[int, np.random.Generator], NDArray[Any]] | None = None,
    **keywords: Unpack[ToDensity],
) -> DensityFit:
    """Minimise KL(flow ‖ density) by gradients along samples of the flow, for any flow.

    After each twentieth of the steps the running mean of the weights is evaluated by its free energy on samples with
    the same noise each time, and kept unless its free energy is clearly above the lowest so far. At the end the flow
    gets the weights that were kept, also if Ctrl-C or an error ends the fit early. Ctrl-C before any weights were kept
    raises KeyboardInterrupt, and the flow is unchanged. The same seed gives the same bits for any number of threads if
    `log_density` returns the same bits.

    Args:
        flow: The flow, whose weights are changed in place. A `Standardize` in the flow is not changed.
        log_density: A function of rows, shape (samples, features), in the flow's dtype, that returns the log density of
            each row, up to one constant for all rows. `gradient` determines the function's arguments and results. If
            contexts vary, the function also takes contexts, ``log_density(x, context)``, shape (samples, context), in
            the flow's dtype; the constant may differ from context to context.
        context: The flow's context, if it takes one. An array (context,) is the one context for which the flow is
            fitted. From a table (rows, context) each step draws rows at random, so that one flow is fitted to the
            density of each context (amortised inference). A function of ``(rows, generator)``, the second a
            `numpy.random.Generator`, returns fresh rows, shape (rows, context). With a table or a function the flow
            standardises its context, unless the flow already standardises contexts.
        gradient: "returned": a function of NumPy arrays that returns ``(log densities, their gradients by the rows)``,
            shapes (samples,) and (samples, features), float32 or float64. "torch": a function of a CPU tensor that
            returns a tensor (samples,). "jax": a function of a JAX array that returns an array (samples,) and can be
            traced; the function is compiled once.
        estimator: "sticking_the_landing": the parameters are held fixed inside log q, so that the gradient's noise
            vanishes with the KL, at the cost of another pass to latent and back. "plain": the whole gradient of E[log q
            - log p]. Both estimators are unbiased.
        steps: Steps of the optimiser.
        samples: The samples of each step.
        per_context: The number of successive samples of a step that share a row of context: a divisor of `samples`.
            A value above 1 saves time if `log_density` does work for each different context.
        learning_rate: The rate at the start; by default 2e-3, or 0.51 over the units of the widest hidden layer if
            less; 1e-2 for flows without networks.
        **keywords: Those of `OfSteps`.

    Raises:
        TypeError, ValueError: an argument, or a result of `log_density`, is not as expected.
        KeyboardInterrupt: Ctrl-C came before there were better weights; the flow is then unchanged.
        ImportError: `gradient` names a framework that is not installed.

    >>> import headrace as hr
    >>> flow = hr.NSF(2, transforms=2, hidden=(16,))
    >>> fit = hr.fit_to_density(flow, hr.densities.U2(), steps=20, samples=64, progress=False)
    >>> len(fit.history), fit.final.free_energy > -hr.densities.U2().log_z
    (20, True)
    """
    require_flow("flow", flow)
    given = taken_from(ToDensity, keywords)
    plan = descent.DescentPlan.of(given, learning_rate=given.learning_rate or _default_rate(flow))
    target, contexts = _open(flow, log_density, given.gradient, context)
    rng = np.random.default_rng(given.seed)
    repeated = replace(contexts, repeats=_per_context(given.per_context, contexts, plan.samples))
    history = descent.StepHistory()
    with flow._interior.restored(unless=lambda: history.kept_step > 0):
        contexts.standardize(flow, rng)
        step = descent.PathStep(flow, target, repeated, plan, rng, landing=given.estimator == "sticking_the_landing")
        judge = descent.judge_of(flow, target, contexts, plan, descent.seed_of(rng))
        descent.Descent("fit_to_density", flow, plan, step, judge, history).go(bool(given.progress))
        if history.stopped == "interrupted" and not history.kept_step:
            raise KeyboardInterrupt  # without better weights there is no fit to return
    final = None
    if history.stopped != "interrupted" and given.evaluated:
        final = estimate_or_none(_estimate, flow, target, contexts, given.evaluated, rng, history)
    return DensityFit(history, final)


@takes_rng
def free_energy(
    flow: Flow,
    log_density: Any,
    context: NDArray[Any] | Callable[[int, np.random.Generator], NDArray[Any]] | None = None,
    *,
    gradient: str = "returned",
    samples: int = EVALUATED,
    seed: int = 0,
    rng: Rng = None,
) -> FreeEnergy:
    """Estimate the free energy of a flow for a density, and log Z by importance weights, from fresh samples.

    Args:
        flow, log_density, context, gradient: As in `fit_to_density`.
        samples: The number of samples.
        seed: The seed of the samples.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.

    >>> import headrace as hr
    >>> flow = hr.Flow([], hr.Normal(2, scale=2.0, trainable=False), dtype="float64")
    >>> result = hr.free_energy(flow, hr.densities.U1(), samples=100_000)
    >>> abs(result.log_z - hr.densities.U1().log_z) < 4 * result.log_z_error
    True
    """
    require_flow("flow", flow)
    target, contexts = _open(flow, log_density, gradient, context)
    n = check.integer("samples", samples, least=1)
    return _estimate(flow, target, contexts, n, np.random.default_rng(check.integer("seed", seed, most=2**64 - 1)))


def estimate_or_none(
    how: Callable[..., FreeEnergy],
    flow: Flow,
    target: Target,
    contexts: Contexts,
    samples: int,
    rng: np.random.Generator,
    history: descent.StepHistory,
) -> FreeEnergy | None:
    """The estimate after a fit; None after Ctrl-C, which does not change the fitted flow."""
    try:
        return how(flow, target, contexts, samples, rng)
    except KeyboardInterrupt:
        history.stopped = "interrupted"
        return None


def estimate(flow: Flow, target: Target, contexts: Contexts, samples: int, rng: np.random.Generator) -> FreeEnergy:
    """The estimate for checked arguments and contexts that do not vary."""
    chunks = (min(CHUNK, samples - start) for start in range(0, samples, CHUNK))
    log_w = np.concatenate([descent.log_weights(flow, target, contexts, rows, rng) for rows in chunks])
    return _of_weights(log_w)


def _estimate(flow: Flow, target: Target, contexts: Contexts, samples: int, rng: np.random.Generator) -> FreeEnergy:
    """The estimate; if contexts vary, the means over contexts with the same number of samples each."""
    if not contexts.vary:
        return estimate(flow, target, contexts, samples, rng)
    rows = contexts.some(min(CONTEXTS, max(math.isqrt(samples), 1)), rng)
    draws = -(-samples // len(rows))
    each = [estimate(flow, target, Contexts(one=row[None, :]), draws, rng) for row in rows]
    table = np.array([astuple(one)[:-1] for one in each]).T
    effective, counted, skipped = (row.sum() for row in table[6:])
    is_all = contexts.table is not None and len(rows) == len(contexts.table)

    def error(values: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
        """The standard error of a mean over contexts, which are a whole table or a sample of a population."""
        return math.sqrt(np.square(errors).sum()) / len(rows) if is_all else descent.mean_and_error(values)[1]

    pairs = zip(table[:6:2], table[1:6:2], strict=True)  # means and standard errors of the free energy, log Z and KL
    energy, log_z, kl = [(float(values.mean()), error(values, errors)) for values, errors in pairs]
    return FreeEnergy(*energy, *log_z, *kl, float(effective), int(counted), int(skipped), len(rows))


def _of_weights(log_w: NDArray[np.float64]) -> FreeEnergy:
    samples = log_w.size
    log_w = log_w[log_w < np.inf]  # this drops NaN, too
    skipped = samples - log_w.size
    largest = log_w.max(initial=-np.inf)
    if largest == -np.inf:
        return FreeEnergy(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0.0, int(log_w.size), skipped)
    w = np.exp(log_w - largest)
    mean = float(w.mean())
    log_z = float(largest) + math.log(mean)
    finite = log_w > -np.inf
    energy, error = descent.mean_and_error(-log_w[finite])
    # The KL is the free energy plus log Z: to first order its terms are w / mean - log w.
    _, kl_error = descent.mean_and_error(w[finite] / mean - log_w[finite])
    log_z_error, effective = descent.mean_and_error(w / mean)[1], float(w.sum() ** 2 / np.square(w).sum())
    kl = energy + log_z
    return FreeEnergy(energy, error, log_z, log_z_error, kl, kl_error, effective, int(log_w.size), skipped)


def _default_rate(flow: Flow) -> float:
    return RATE * _optimizer.default_rate(flow) if flow._interior.widest else RATE_WITHOUT_NETWORKS


def require_flow(name: str, flow: Any) -> None:
    """Refuse anything but a `Flow` on the CPU."""
    if not hasattr(flow, "log_prob_and_score") or is_of_sequences(flow):
        raise TypeError(f"{name}: expected a Flow, got {check.kind_of(flow)}")
    if flow.device != "cpu":
        raise ValueError(f"{name}: expected a flow on the CPU, got one on {flow.device}; call {name}.to('cpu')")


def _open(flow: Flow, log_density: Any, gradient: Any, context: Any) -> tuple[Target, Contexts]:
    """The density, and the contexts for which the flow is fitted to the density."""
    contexts = contexts_of(flow, context)
    return target_of(log_density, gradient, flow.dtype, contexts), contexts


def _per_context(repeats: int, contexts: Contexts, samples: int) -> int:
    if repeats > 1 and not contexts.vary:
        raise ValueError(f"per_context: expected 1, because all samples have one context or none, got {repeats}")
    if samples % repeats:
        raise ValueError(f"per_context: expected a divisor of samples ({samples}), got {repeats}")
    return repeats
