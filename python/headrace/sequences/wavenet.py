"""A ready-made WaveNet: a teacher, or a student that samples all steps at once."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import DTypeLike

from headrace._base import arguments as check
from headrace._base.keywords import argument, documented, taken_from, takes
from headrace._base.rng import Rng
from headrace._base.stored import storable
from headrace._base.types import Unpack
from headrace._core.settings import MapShape, Settings
from headrace._flow.bases import Base, Logistic, StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.flows import MAF, NSF
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.support import Bounds, support_or_none
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.flow import SequenceFlow
from headrace.sequences.prediction import AdaptivePrediction, LinearPrediction
from headrace.sequences.settings import MOST_LAYERS, CausalSettings, OverTime, doubling

_LAYERS = 16


class WaveNetKeywords(OverTime, MapShape, total=False):
    """Keywords of a `WaveNet`, whose docstring has their meanings."""

    layers: Annotated[int | None, argument(None, check.whole(1, MOST_LAYERS), option=True)]
    dilations: Annotated["Sequence[int] | None", argument(None, option=True)]
    inner: Annotated["Flow | str | None", argument()]
    transforms: Annotated[int | None, argument(None, check.whole(1))]
    prediction: Annotated[int | None, argument(None, check.integer, option=True)]
    adaptive: Annotated[bool, argument(False, check.truth, option="a linear prediction and a scale of the past alone")]
    companded: Annotated[bool | None, argument(None, option=True)]
    level: Annotated[bool | None, argument(None, option="whether each value also has a scale of its own")]
    bounds: Annotated["Bounds | None", argument()]
    standardize: Annotated["tuple[Any, Any] | None", argument()]
    standardize_context: Annotated["tuple[Any, Any] | None", argument()]
    base: Annotated["Base | None", argument()]
    seed: Annotated[int, argument(0, check.integer)]
    rng: Rng
    dtype: Annotated["DTypeLike", argument("float32")]
    matmul: Annotated[str, argument("exact", option="products of networks: exact, or for float32 bf16")]


@storable
@documented
class WaveNet(SequenceFlow):
    """A flow of `CausalConvolution` and `LinearPrediction`, with a `Standardize` at the data end.

    With ``reads="data"`` (van den Oord et al. 2016) one convolution, which reads values at two scales, models the
    residual of a linear prediction: densities of all steps are computed at once, samples step by step. With
    ``reads="latent"`` (van den Oord et al. 2017, Ping et al. 2019) there are three convolutions: samples of all steps
    are computed at once, densities step by step. By default the distribution of a step of one value is a mixture of 10
    logistic distributions (Salimans et al. 2017), and that of a step of several values a neural spline flow, whose
    context the network computes from the past (Rasul et al. 2021).

    Args:
        layers: Layers of each convolution, with dilations 1, 2, 4, ..., 128 and again; by default 16, or as many as
            `dilations` has.
        dilations: Steps between two taps, one for each layer.
        inner: The flow of a step's values given the past: "nsf" or "maf", of two transforms and with as many context
            columns as the network has skip units, or any other flow with context (see `CausalConvolution`), of which
            each convolution has a copy; by default "nsf" for several features. If any setting of the map is given, each
            value has that map, and values of one step are independent given the past.
        transforms: The number of convolutions; by default 1, and 3 with ``reads="latent"``.
        prediction: The number of earlier steps in the linear prediction at the data end, 0 for none; by default 32, but
            0 with ``reads="latent"`` or `adaptive`. `fit` starts with the best linear prediction of the training steps.
        adaptive: Whether an `AdaptivePrediction` is at the data end in place of the linear prediction; the network then
            reads running sizes. With ``adaptive=False``, `fit` may choose the `AdaptivePrediction`.
        companded: Whether the networks also read each value as asinh(512 v) / asinh(512), which resolves levels that
            lie decades apart; by default true, but false with ``reads="latent"`` or `adaptive`.
        level: Whether the networks also output a level of each value, the log of its scale (see `CausalConvolution`);
            by default true, but false with an inner flow or ``reads="latent"``.
        standardize: ``(mean, std)`` of the data, each of shape (features,) or a single value; the identity by default.
        bounds: For each feature ``(low, high)``, with None for an end without a bound, or None: a
            `headrace.transforms.Support` at the data end. With bounds, `standardize` is for the values mapped to the
            real line. Bounds of counts should be half a step outside of the counts: ``(-0.5, None)``. A step on a bound
            or beyond has the log density NaN.
        standardize_context: ``(mean, std)`` of the context, each of shape (context,): the networks read
            (context - mean) / std.
        base: The base of one step; by default `Logistic` with a logistic mixture, which then is the density, and
            `StandardNormal` otherwise.
        seed: The seed of the fresh weights.
        rng: A generator instead of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".
        matmul: "exact", or for float32 "bf16", which rounds the networks' weights: single streams are drawn faster
            (docs/sequences.md).
        **keywords: Keywords of `CausalConvolution`, and of the map, by default a logistic mixture of 10 components.

    >>> import headrace as hr
    >>> flow = hr.WaveNet()
    >>> flow.field, len(flow.transforms), flow.n_parameters
    (544, 3, 101567)
    >>> hr.WaveNet(reads="latent", layers=8, map="affine", kernel=3).sample(2, steps=100, seed=0).shape
    (2, 100, 1)
    >>> type(hr.WaveNet(3, layers=4).transforms[0].inner).__name__
    'NSF'
    """

    _chooses_prediction = True

    @takes(WaveNetKeywords, CausalSettings, Settings, **dict.fromkeys(MapShape.__annotations__))
    def __init__(self, features: int = 1, **keywords: "Unpack[WaveNetKeywords]") -> None:
        settings, rest = taken_from(WaveNetKeywords, keywords), dict[str, Any](keywords)
        n = check.integer("features", features, least=1)
        inner, dtype, layers = settings.inner, settings.dtype, settings.layers
        spread = doubling(layers or _LAYERS) if settings.dilations is None else tuple(settings.dilations)
        if layers is not None and len(spread) != layers:
            raise ValueError(f"dilations: expected {layers} of them, one for each of the layers, got {len(spread)}")
        is_teacher = check.choice("reads", rest.get("reads", "data"), ("data", "latent")) == "data"
        count = settings.transforms or (1 if is_teacher else 3)
        if settings.adaptive and (not is_teacher or settings.prediction or rest.get("covariates")):
            raise ValueError("adaptive: expected False beside reads='latent', prediction or covariates, got True")
        reads_all = is_teacher and not settings.adaptive
        order = (32 if reads_all else 0) if settings.prediction is None else settings.prediction
        of_map = {name: value for name in MapShape.__annotations__ if (value := rest.pop(name)) is not None}
        if inner is None and n > 1 and not of_map:
            inner = "nsf"
        if inner is None:
            of_map = {"map": "logistic_mixture", "bins": 10} | of_map
        units = rest.get("skip") or rest.get("channels", CausalSettings.channels)
        chain: list[Any] = [
            CausalConvolution(
                n,
                dilations=spread,
                inner=_flow_of_steps(inner, n, units, settings.seed + i, dtype) if isinstance(inner, str) else inner,
                companded=reads_all if settings.companded is None else settings.companded,
                sizes=settings.adaptive and i + 1 == count,
                level=is_teacher and inner is None if settings.level is None else settings.level,
                seed=(settings.seed, i),
                dtype=dtype,
                **rest,
                **of_map,
            )
            for i in range(count)
        ]
        if settings.adaptive:
            chain.append(AdaptivePrediction(n))
        if order:
            chain.append(LinearPrediction(n, order=order, dtype=dtype))
        scale = (np.zeros(n), np.ones(n)) if settings.standardize is None else settings.standardize
        standardize = Standardize(*check.mean_and_std("standardize", scale, n))
        base = settings.base
        if base is None:
            base = Logistic(n) if of_map.get("map") == "logistic_mixture" else StandardNormal(n)
        support = support_or_none(settings.bounds, n)
        super().__init__(
            [*chain, standardize, *([] if support is None else [support])],
            base,
            dtype=dtype,
            standardize_context=settings.standardize_context,
            matmul=settings.matmul,
        )


def _flow_of_steps(name: str, features: int, context: int, seed: int, dtype: DTypeLike) -> Flow:
    """A fresh inner flow, "nsf" or "maf", for the values of a step."""
    kind: type[NSF] | type[MAF] = NSF if check.choice("inner", name, ("nsf", "maf")) == "nsf" else MAF
    return kind(features, check.integer("skip", context, least=1), transforms=2, hidden=(64,), seed=seed, dtype=dtype)
