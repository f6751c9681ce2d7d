"""The chain of a flow with periodic columns: couplings that are continuous around each circle."""

from __future__ import annotations

from typing import Any

from headrace.bases import Base
from headrace.tails import Independent, Uniform
from headrace.transforms.masked import Coupling
from headrace.transforms.support import Support
from headrace.transforms.transform import Transform

__all__ = ["base_of_circles", "circle_couplings", "refuse_periodic"]


def refuse_periodic(flow: str, periodic: Any) -> None:
    """Say which flow takes periodic columns."""
    if periodic is not None:
        raise ValueError(
            f"periodic: expected None, as hr.NSF(coupling=True) alone takes it, got {periodic!r} for {flow}"
        )


def circle_couplings(
    features: int, circles: list[int], transforms: int, key: int, sizes: Any, conditioner: Any
) -> list[Transform]:
    """Couplings on [-1, 1) for the columns of `circles`, and on the line for the others, from latent to data.

    A number of a circle goes through a shift and a circular spline, whose parameters are a network's of the other
    columns and the context. No network reads a circle's own number, which jumps where it wraps. Even and odd columns
    of the others take turns.
    """
    line = [c for c in range(features) if c not in circles]
    spline: Any = {name: value for name, value in conditioner.items() if name not in ("bound", "slope")}
    shift = {name: value for name, value in spline.items() if name != "bins"}
    wrap = Support([None] * features, [(-1.0, 1.0) if c in circles else None for c in range(features)])
    chain: list[Transform] = [wrap]
    for i in range(transforms):
        if line:
            passive = [*circles, *(line[i % 2 :: 2] if len(line) > 1 else [])]
            split = Coupling(
                features, passive, seed=(key, i), map="rq_spline", formula="to_latent", **sizes, **conditioner
            )
            chain.append(_blind(split, passive, circles, map="rq_spline", formula="to_latent", **conditioner))
        spline = {**spline, "map": "rq_spline_circular", "bound": 1.0, "formula": "to_latent"}
        chain.append(Coupling(features, line, seed=(key, i, 1), **sizes, **spline))
        chain.append(Coupling(features, line, seed=(key, i, 2), map="additive", formula="to_latent", **sizes, **shift))
    return chain


def _blind(coupling: Coupling, passive: list[int], circles: list[int], **conditioner: Any) -> Coupling:
    """The same with a network that does not read some of its columns."""
    weights, biases, masks = coupling.to_dense()
    context_weights, context_biases = coupling.context_to_dense()
    for column, c in enumerate(passive):
        if c in circles:
            masks[0][:, column] = False
    told = {name: conditioner[name] for name in ("map", "formula", "slope", "bins", "bound") if name in conditioner}
    return Coupling.from_dense(
        weights,
        biases,
        masks,
        features=coupling.features,
        passive=passive,
        network=coupling.network,
        context=coupling.context,
        context_weights=context_weights,
        context_biases=context_biases,
        **told,
    )


def base_of_circles(base: Base | None, features: int, circles: list[int]) -> Base:
    """The base, which is uniform on circles alone."""
    want = ["uniform" if c in circles else "normal" for c in range(features)]
    if base is None:
        return Independent(want)
    got = list(base.densities) if isinstance(base, Independent) else None
    if isinstance(base, Uniform):
        got = ["uniform"] * base.features
    if got is None or [name == "uniform" for name in got] != [name == "uniform" for name in want]:
        raise ValueError(
            f"base: expected an Independent, uniform in the periodic columns alone, as {Independent(want)!r}, got "
            f"{base!r}"
        )
    return base
