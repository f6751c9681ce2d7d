"""Flows of headrace as flows of zuko, if zuko has the same parts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.stored import header_of
from headrace._core.maps import MAPS
from headrace._flow.flow import Flow
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.rotation import matrix_of
from headrace.convert._parts import Numbers
from headrace.convert._to_torch import opened_flow
from headrace.convert._verify import verify_made
from headrace.convert.plain.networks import reads_of, rows_of
from headrace.convert.plain.transforms import below

Header = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]

ACTIVATIONS = {
    "relu": "ReLU", "tanh": "Tanh", "elu": "ELU", "silu": "SiLU", "gelu": "GELU", "gelu_tanh": "GELU",
    "softplus": "Softplus", "leaky_relu": "LeakyReLU", "sigmoid": "Sigmoid", "identity": "Identity",
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "gelu_tanh": {"approximate": "tanh"},
    "softplus": {"threshold": 40.0},  # PyTorch's default, linear beyond 20, has an error of 2e-9
}


def to_zuko(flow: Flow, *, verify: bool = True) -> Any:
    """A flow as a `zuko.lazy.Flow` with the same density, in the same dtype.

    Flows may be MAF, IAF, NSF, RealNVP and chains of their transforms, with the maps "affine" (with scale
    "soft_clamp"), "additive" and "rq_spline" and with networks of plain layers or of residual blocks as in zuko; also
    `Elementwise`, `Permutation`, `Standardize`, `Gaussianize`, `ActNorm`, `Linear`, `Rotation` and inverses; normal and
    uniform bases. A standardised context becomes part of the first layers; means and standard deviations of the data
    become tensors in the flow's dtype, so that float32 rows far from zero lose digits. A pickle of the model needs only
    zuko and PyTorch, but a pickle of a `MAF` or an `IAF`, which have the inverse of zuko's formula, or of a
    `Gaussianize` also needs headrace.

    Args:
        flow: Any flow, but not an `Ensemble`.
        verify: Whether to compare log densities of some rows with the flow's.

    Raises:
        TypeError: `flow` is not a `Flow`, or has a part of a class that files do not support.
        NotImplementedError: zuko lacks a part; the message has its path, and `to_torch` converts all parts.
        ValueError: densities differ by more than rounding.
    """
    import torch
    from zuko.lazy import Flow as ZukoFlow

    wide, header, arrays = opened_flow(flow, "float64")
    scale = header["standardize_context"]
    maker = _Maker(int(header["context"]), scale and (np.array(scale["mean"]), np.array(scale["std"])))
    parts: list[Any] = []
    for i, part in reversed(list(enumerate(header["transforms"]))):
        parts += maker.chain(part, below(arrays, f"transforms.{i}."), f"transforms[{i}]", False)
    model = ZukoFlow(parts, _base(header["base"], below(arrays, "base."))).double()
    if verify:

        def log_prob(x: Numbers, context: Numbers | None) -> Numbers:
            with torch.no_grad():
                density = model(None if context is None else torch.from_numpy(context))
                return np.asarray(density.log_prob(torch.from_numpy(x)).numpy())

        verify_made(wide, log_prob)
    return model.to(getattr(torch, str(flow.dtype)))


def _lacks(place: str, expected: str, given: str) -> NotImplementedError:
    return NotImplementedError(f"{place}: expected {expected}, as zuko has, got {given}; headrace's to_torch has it")


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(array))


def _base(header: Header, arrays: Arrays) -> Any:
    import torch
    from zuko.distributions import BoxUniform, DiagNormal
    from zuko.lazy import UnconditionalDistribution

    kind, n = header["kind"], header["features"]
    if kind == "Uniform":
        return UnconditionalDistribution(BoxUniform, -torch.ones(n), torch.ones(n), buffer=True)
    if kind not in ("StandardNormal", "Normal"):
        raise _lacks("base", "StandardNormal, Normal or Uniform", kind)
    loc, scale = np.zeros(n), np.ones(n)
    is_trained = bool(header.get("trainable", False))
    if is_trained:
        loc, scale = arrays["loc"], np.exp(arrays["log_scale"])
    elif kind == "Normal":
        loc, scale = np.array(header["loc"]), np.array(header["scale"])
    return UnconditionalDistribution(DiagNormal, _tensor(loc), _tensor(scale), buffer=not is_trained)


class _Maker:
    """A maker of lazy transforms of zuko, in data → latent order."""

    def __init__(self, context: int, scale: tuple[Numbers, Numbers] | None) -> None:
        self.context, self.scale = context, scale

    def chain(self, header: Header, arrays: Arrays, place: str, flipped: bool) -> list[Any]:
        """The transforms of zuko, in data → latent order, for one transform of headrace."""
        kind = header["kind"]
        if kind == "Inverse":
            return self.chain(header["transform"], arrays, place, not flipped)
        if kind == "Rotation":
            matrix = matrix_of(arrays["blocks"], header["blocks"])
            linear = Linear.from_matrix(matrix, np.zeros(header["features"]), dtype="float64")
            return self.chain(header_of(linear), linear.named_parameters(), place, flipped)
        makers = {
            "Permutation": self._permutation, "Standardize": self._standardize, "ActNorm": self._act_norm,
            "Linear": self._linear, "Elementwise": self._elementwise, "Gaussianize": self._gaussianize,
            "Coupling": self._coupling, "MaskedAutoregressive": self._masked,
        }  # fmt: skip
        if kind not in makers:
            raise _lacks(place, ", ".join(makers), kind)
        parts: list[Any] = makers[kind](header, arrays, place)
        return [part.inv for part in reversed(parts)] if flipped else parts

    # ---- without a network ---------------------------------------------------------------------------------------

    def _fixed(self, name: str, *tensors: Any, trained: bool = False, **options: Any) -> Any:
        from zuko import transforms
        from zuko.lazy import UnconditionalTransform

        return UnconditionalTransform(getattr(transforms, name), *map(_tensor, tensors), buffer=not trained, **options)

    def _affine(self, shift: Any, scale: Any, trained: bool) -> list[Any]:
        """The transform x = shift + scale z."""
        return [self._fixed("AffineTransform", shift, scale, trained=trained, event_dim=1).inv]

    def _permutation(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        return [self._fixed("PermutationTransform", np.argsort(header["order"]))]

    def _standardize(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        mean, std = np.array(header["mean"]), np.array(header["std"])
        return [] if not mean.any() and (std == 1.0).all() else self._affine(mean, std, False)

    def _act_norm(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        return self._affine(arrays["shift"], np.exp(arrays["log_scale"]), True)

    def _linear(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        """The transform x = signs · y[order] + shift, y = L E U z; zuko has L E and U as two triangles of a matrix."""
        unit, order = np.eye(header["features"]), list(header["order"])
        lower = (np.tril(arrays["lower"], -1) + unit) * np.exp(arrays["log_diagonal"].astype(np.float64))
        both = lower + np.triu(arrays["upper"], 1)
        ends = self._affine(arrays["shift"], np.array(header["signs"], np.float64), False)
        return [*ends, self._fixed("PermutationTransform", np.argsort(order)),
                self._fixed("LULinearTransform", both, trained=header.get("trainable", True)).inv]  # fmt: skip

    # ---- with parameters of coordinates ----------------------------------------------------------------------------

    def _elementwise(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        univariate, shapes = _univariate(header, place)
        groups = MAPS[header["map"]].groups(header["bins"])
        raw = np.concatenate([arrays[name] for name in groups], axis=1)
        transform = self._of_context(header["features"], univariate, shapes, raw.reshape(-1), None)
        return [transform if header["formula"] == "to_latent" else transform.inv]

    def _gaussianize(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        from zuko.lazy import UnconditionalTransform

        from headrace.convert._zuko_marginal import Marginal

        tensors = (_tensor(arrays[name]) for name in ("width", "height", "derivative"))
        marginal = UnconditionalTransform(functools.partial(Marginal, dict(header)), *tensors, buffer=True)
        return [*self._standardize(header, arrays, place), marginal]

    def _of_context(self, n: int, univariate: Any, shapes: Any, constants: Any, hyper: Any) -> Any:
        """A transform of maps with constant parameters, or with parameters from a network of the context."""
        import torch
        from zuko.flows import ElementWiseTransform

        transform = ElementWiseTransform(n, self.context, univariate, shapes, hidden_features=())
        if hyper is not None:
            transform.hyper = hyper
        elif self.context:  # zuko passes a flow's context to all its transforms
            weight = np.zeros((len(constants), self.context), constants.dtype)
            transform.hyper = torch.nn.Sequential(_layer(weight, constants, None))
        else:
            sizes = [int(np.prod(shape)) for shape in shapes]
            parts = np.split(constants.reshape(n, -1), np.cumsum(sizes)[:-1], axis=1)
            tensors = [_tensor(part.reshape(n, *shape)) for part, shape in zip(parts, shapes, strict=True)]
            transform.phi = torch.nn.ParameterList(tensors)
        return transform

    def _coupling(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        from zuko.flows.coupling import GeneralCouplingTransform

        univariate, shapes = _univariate(header, place)
        n, passive = header["features"], list(header["passive"])
        order = np.argsort(passive)
        transform: Any
        if passive:
            mask = np.isin(np.arange(n), passive)
            transform = GeneralCouplingTransform(n, self.context, _tensor(mask), univariate, shapes, hidden_features=())
            transform.hyper = self._hyper(header, arrays, place, order, n - len(passive), False)
        else:
            transform = self._without_coordinates(header, arrays, place, univariate, shapes)
        return [transform if header["formula"] == "to_latent" else transform.inv]

    def _without_coordinates(self, header: Header, arrays: Arrays, place: str, univariate: Any, shapes: Any) -> Any:
        """The transform for a network that reads no coordinate: only the context, or nothing."""
        import torch

        n = header["features"]
        drop = 0 if header["kind"] == "Coupling" else n
        net = self._hyper(header, arrays, place, np.arange(0), n, False, drop)
        if header["context"]:
            return self._of_context(n, univariate, shapes, None, net)
        with torch.no_grad():
            constants = net(_tensor(np.zeros((1, max(self.context, 1)))))
        return self._of_context(n, univariate, shapes, constants.numpy()[0], None)

    def _masked(self, header: Header, arrays: Arrays, place: str) -> list[Any]:
        from zuko.flows.autoregressive import MaskedAutoregressiveTransform

        n = header["features"]
        call = "to_latent" if header["reads"] == "data" else "to_data"  # the direction whose input the network reads
        univariate, shapes = _univariate(header, place, inverted=header["formula"] != call)
        transform: Any
        if n == 1:
            transform = self._without_coordinates(header, arrays, place, univariate, shapes)
        else:
            adjacency = np.eye(n, dtype=bool)
            for i, read in enumerate(reads_of(np.eye, header, arrays)):
                adjacency[i, [c for c in read if c < n]] = True
            hyper = self._hyper(header, arrays, place, np.arange(n), n, True)
            masks = {"adjacency": _tensor(adjacency), "univariate": univariate, "shapes": shapes}
            transform = MaskedAutoregressiveTransform(n, self.context, **masks, hidden_features=())
            transform.hyper = hyper
        return [transform if call == "to_latent" else transform.inv]

    # ---- networks ----------------------------------------------------------------------------------------------------

    def _hyper(
        self, header: Header, arrays: Arrays, place: str, order: Any, active: int, masked: bool, drop: int = 0
    ) -> Any:
        """The network with columns and rows in zuko's order, without the first `drop` columns, which are not read."""
        import torch
        from zuko.nn import Residual

        layers = self._layers(header, arrays, order, active, drop)
        hidden = header.get("network") or [{"activation": header["activation"]}] * (len(layers) - 1)
        if any(layer.get("context") for layer in hidden):
            raise _lacks(f"{place}.network", "a context that the first layer alone reads", "one that joins layers")
        made = [_layer(weight, bias, mask if masked else None) for weight, bias, mask in layers]
        modules: list[Any] = []
        i = 0
        while i < len(hidden):
            if hidden[i].get("adds") is not None:
                raise _lacks(f"{place}.network[{i}]", "residual blocks x + W2 σ(W1 x)", "other sums")
            modules += [made[i], *_activation(hidden[i])]
            i += 1
            while i + 1 < len(hidden) and hidden[i + 1].get("adds") == i - 1 and hidden[i].get("adds") is None:
                outside = {hidden[i - 1]["activation"], hidden[i + 1]["activation"]}
                if outside != {"identity"}:
                    raise _lacks(f"{place}.network[{i}]", "residual blocks x + W2 σ(W1 x)", "an activation outside")
                modules.append(Residual(made[i], *_activation(hidden[i]), made[i + 1]))
                i += 2
        return torch.nn.Sequential(*modules, made[-1])

    def _layers(self, header: Header, arrays: Arrays, order: Any, active: int, drop: int) -> list[Any]:
        """The layers as ``(weight, bias, mask)``, with a standardised context folded in and rows in zuko's order."""
        layers: list[Any] = []
        while f"layers.{len(layers)}.weight" in arrays:
            name = f"layers.{len(layers)}"
            layers.append(tuple(arrays[f"{name}.{what}"] for what in ("weight", "bias", "mask")))
        weight, bias, mask = layers[0]
        columns = np.r_[drop + np.asarray(order, int), np.arange(drop + len(order), weight.shape[1])]
        weight, mask = weight[:, columns], mask[:, columns]
        context = weight.shape[1] - len(order)
        if not context and (self.context or not len(order)):  # zuko's networks read the whole context
            more = np.zeros((len(weight), max(self.context, 1)), weight.dtype)
            weight, mask = np.hstack([weight, more]), np.hstack([mask, more != 0])
        elif context and self.scale is not None:
            mean, std = self.scale
            wide = np.where(mask, weight, 0).astype(np.float64)
            wide[:, len(order) :] /= std
            bias = (bias - wide[:, len(order) :] @ mean).astype(bias.dtype)
            weight = wide.astype(weight.dtype)
        layers[0] = weight, bias, mask
        by_name = rows_of(header, active)
        rows = np.concatenate([np.array(by_name[name]) for name in MAPS[header["map"]].groups(header["bins"])], axis=1)
        layers[-1] = tuple(array[rows.reshape(-1)] for array in layers[-1])
        return layers


def _layer(weight: Any, bias: Any, mask: Any) -> Any:
    import torch
    from zuko.nn import Linear, MaskedLinear

    made = Linear(weight.shape[1], weight.shape[0]) if mask is None else MaskedLinear(_tensor(mask != 0))
    made.weight, made.bias = torch.nn.Parameter(_tensor(weight)), torch.nn.Parameter(_tensor(bias))
    return made


def _activation(layer: Header) -> list[Any]:
    import torch

    name = layer["activation"]
    return [] if name == "identity" else [getattr(torch.nn, ACTIVATIONS[name])(**OPTIONS.get(name, {}))]


def _univariate(header: Header, place: str, inverted: bool = False) -> tuple[Any, Sequence[Any]]:
    """The constructor of zuko's scalar transform, and the shapes of its arguments."""
    from zuko import transforms

    name, bins = header["map"], header["bins"]
    if name == "affine" and header["scale"] == "soft_clamp":
        make: Any = functools.partial(transforms.MonotonicAffineTransform, slope=float(header["slope"]))
        shapes: Any = ((), ())
    elif name == "additive":
        make, shapes = transforms.AdditiveTransform, ((),)
    elif name == "rq_spline":
        options = {"bound": float(header["bound"]), "slope": float(header["slope"])}
        make, shapes = functools.partial(transforms.MonotonicRQSTransform, **options), ((bins,), (bins,), (bins - 1,))
    else:
        called = f"{name} with the scale {header['scale']}" if name == "affine" else name
        raise _lacks(f"{place}.map", "affine with the scale soft_clamp, additive or rq_spline", called)
    return (Inverted(make) if inverted else make), shapes


@dataclass(frozen=True)
class Inverted:
    """A constructor of the inverse of a univariate transform of zuko, because zuko has no such constructor."""

    univariate: Any

    def __call__(self, *raw: Any) -> Any:
        """The inverse of the univariate transform with the parameters `raw`."""
        return self.univariate(*raw).inv
