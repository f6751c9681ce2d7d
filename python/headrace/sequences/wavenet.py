"""WaveNet, ready-made: a teacher, or a student that samples all steps at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from headrace._base import arguments as check
from headrace._base.keywords import documented, takes
from headrace._base.stored import storable
from headrace._core.settings import MapShape, Settings
from headrace._flow.bases import Base, Logistic, StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.flows import MAF, NSF
from headrace._flow.transforms.fixed import Standardize
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.flow import SequenceFlow
from headrace.sequences.prediction import LinearPrediction
from headrace.sequences.settings import MOST_LAYERS, doubling

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LAYERS = 16


@storable
@documented
class WaveNet(SequenceFlow):
    """A flow of `CausalConvolution`, and with it of `LinearPrediction`, over a `Standardize` at the data end.

    With ``reads="data"`` (van den Oord et al. 2016) it is one convolution: densities of all steps at once, samples step
    after step. It reads, and models, what a linear prediction leaves of a signal, at two scales. With
    ``reads="latent"`` (van den Oord et al. 2017, Ping et al. 2019) it is three: samples of all steps at once, densities
    step after step. By default the distribution of a step of one value is a mixture of 10 logistic
    ones (Salimans et al. 2017), and that of a step of several values a neural spline flow, the context of which the
    network computes from the past (Rasul et al. 2021).

    Args:
        features: Number of values in each step.
        layers: Of each convolution, with dilations 1, 2, 4, ..., 128 and again; by default 16, or as many as
            `dilations` has.
        channels: Units of each layer.
        kernel: Taps of each convolution.
        dilations: Steps between two taps, one for each layer.
        skip: Units of the skip sums and of the head; by default as many as channels.
        reads: "data" or "latent": which side the networks see.
        inner: The flow of a step's values given the past: "nsf" or "maf", of two transforms and with as many context
            columns as the network has skip units, or a flow of your own with context (see `CausalConvolution`), of
            which each convolution has a copy. By default "nsf" for several features. If any setting of the map is
            given, each value has that map, and values of one step are independent given the past.
        transforms: Number of convolutions; by default 1, and 3 with ``reads="latent"``.
        context: Number of context columns, one row for a whole sequence.
        prediction: Steps before a step from which a linear prediction at the data end predicts it; 0 for none. By
            default 32 (``reads="latent"``: 0). `fit` begins with that of the training steps.
        companded: See `CausalConvolution`. By default true (``reads="latent"``: false).
        level: See `CausalConvolution`. By default true without an inner flow (``reads="latent"``: false).
        covariates: Number of columns that are known of time.
        hop: Steps from one row of the covariates to the next.
        standardize: ``(mean, std)`` of the data, shape (features,) each or numbers; the identity by default.
        standardize_context: ``(mean, std)`` of the context, shape (context,) each: the networks read
            (context - mean) / std.
        base: Of one step; by default `Logistic` with a logistic mixture, so that the mixture is the density, and
            `StandardNormal` otherwise.
        seed: Of the fresh weights.
        dtype: "float32" or "float64".
        matmul: "exact", or for float32 "bf16", which rounds the networks' weights: single streams are drawn faster
            (docs/sequences.md).
        **settings: Settings of the map, `MapShape`; by default a logistic mixture of 10 components.

    >>> import headrace as hr
    >>> flow = hr.WaveNet()
    >>> flow.field, len(flow.transforms), flow.n_parameters
    (544, 3, 101567)
    >>> hr.WaveNet(reads="latent", layers=8, map="affine", kernel=3).sample(2, steps=100, seed=0).shape
    (2, 100, 1)
    >>> type(hr.WaveNet(3, layers=4).transforms[0].inner).__name__
    'NSF'
    """

    @takes(MapShape, Settings, **dict.fromkeys(MapShape.__annotations__))
    def __init__(
        self,
        features: int = 1,
        *,
        layers: int | None = None,
        channels: int = 32,
        kernel: int = 2,
        dilations: Sequence[int] | None = None,
        skip: int | None = None,
        reads: str = "data",
        inner: Flow | str | None = None,
        transforms: int | None = None,
        prediction: int | None = None,
        companded: bool | None = None,
        level: bool | None = None,
        context: int = 0,
        covariates: int = 0,
        hop: int = 1,
        standardize: tuple[Any, Any] | None = None,
        standardize_context: tuple[Any, Any] | None = None,
        base: Base | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
        matmul: str = "exact",
        **settings: Unpack[MapShape],
    ) -> None:
        key, n = check.integer("seed", seed), check.integer("features", features, least=1)
        depth = None if layers is None else check.integer("layers", layers, least=1, most=MOST_LAYERS)
        spread = doubling(_LAYERS if depth is None else depth) if dilations is None else tuple(dilations)
        if depth is not None and len(spread) != depth:
            raise ValueError(f"dilations: expected {depth} of them, one for each of the layers, got {len(spread)}")
        is_teacher = check.choice("reads", reads, ("data", "latent")) == "data"
        count = (1 if is_teacher else 3) if transforms is None else check.integer("transforms", transforms, least=1)
        order = (32 if is_teacher else 0) if prediction is None else check.integer("prediction", prediction)
        of_map: Any = {name: value for name, value in settings.items() if value is not None}
        if inner is None and n > 1 and not of_map:
            inner = "nsf"
        if inner is None:
            of_map = {"map": "logistic_mixture", "bins": 10} | of_map
        units = channels if skip is None else skip
        chain: list[Any] = [
            CausalConvolution(
                n,
                channels=channels,
                skip=skip,
                kernel=kernel,
                dilations=spread,
                reads=reads,
                inner=_flow_of_steps(inner, n, units, key + i, dtype) if isinstance(inner, str) else inner,
                context=context,
                covariates=covariates,
                hop=hop,
                companded=is_teacher if companded is None else companded,
                level=is_teacher and inner is None if level is None else level,
                seed=(key, i),
                dtype=dtype,
                **of_map,
            )
            for i in range(count)
        ]
        if order:
            chain.append(LinearPrediction(n, order=order, dtype=dtype))
        mean, std = (np.zeros(n), np.ones(n)) if standardize is None else _pair(standardize, n)
        if base is None:
            base = Logistic(n) if of_map.get("map") == "logistic_mixture" else StandardNormal(n)
        super().__init__(
            [*chain, Standardize(mean, std)],
            base,
            dtype=dtype,
            standardize_context=standardize_context,
            matmul=matmul,
        )


def _flow_of_steps(name: str, features: int, context: int, seed: int, dtype: DTypeLike) -> Flow:
    """A flow by its name."""
    kind: type[NSF] | type[MAF] = NSF if check.choice("inner", name, ("nsf", "maf")) == "nsf" else MAF
    return kind(features, check.integer("skip", context, least=1), transforms=2, hidden=(64,), seed=seed, dtype=dtype)


def _pair(value: Any, features: int) -> Any:
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"standardize: expected a tuple (mean, std), got {check.kind_of(value)}")
    mean = check.vector("standardize[0]", value[0], features)
    return mean, check.vector("standardize[1]", value[1], features, positive=True)
