"""Keywords that many constructors share: stated once as a `TypedDict`, shown in each signature and help one by one."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_PLACE = re.compile(r"^( +)\*\*\w+:.*$", re.MULTILINE)


def takes(settings: type, stated: type, /, **defaults: Any) -> Callable[[F], F]:
    """Give a function that ends in ``**settings: Unpack[...]`` a signature with each name, and refuse all others.

    Args:
        settings: That `TypedDict`.
        stated: The dataclass with the keywords' defaults and meanings.
        **defaults: Others, where the function has its own.
    """

    def signed(function: F) -> F:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        first = next(
            (i for i, p in enumerate(named) if p.kind is p.KEYWORD_ONLY and p.default is not p.empty), len(named)
        )
        own_defaults = {name: defaults.get(name, _fields(stated)[name].default) for name in settings.__annotations__}
        shared = parameters_of(settings, own_defaults)
        signature = own.replace(parameters=[*named[:first], *shared, *named[first:]])
        expected = [*signature.parameters][1:]  # without self or cls
        known = frozenset(expected)

        @functools.wraps(function)
        def called(*given: Any, **keywords: Any) -> Any:
            if not keywords.keys() <= known:
                owner = (given[0] if isinstance(given[0], type) else type(given[0])).__name__
                refuse_others(f"{owner}.fit" if function.__name__ == "fit" else owner, keywords, expected)
            return function(*given, **defaults | keywords)

        del called.__wrapped__  # Sphinx would read defaults from the source of the wrapped function, and find too few
        called.__signature__ = signature  # type: ignore[attr-defined]
        called._keywords = settings, stated  # type: ignore[attr-defined]
        called.__doc__ = _explained(function.__doc__, settings, stated)
        return cast("F", called)

    return signed


def parameters_of(settings: type, defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The keywords of a `TypedDict` as parameters of a signature."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults[name],
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
        for name, annotation in settings.__annotations__.items()
    ]


def refuse_others(owner: str, keywords: Collection[str], expected: Collection[str]) -> None:
    """Refuse keywords that are not among the expected ones of a class or function.

    Raises:
        TypeError: it names the owner, all its keywords, and the one that is probably meant.
    """
    for name in keywords:
        if name not in expected:
            raise TypeError(
                f"{name}: expected a keyword of {owner} ({', '.join(expected)}), got {name!r}"
                + suggestion(name, expected)
            )


def closed(function: F) -> F:
    """Leave ``**others``, which a function passes to `refuse`, out of its signature."""
    own = inspect.signature(function)
    named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
    return function


def refuse(method: Callable[..., Any], others: Collection[str]) -> None:
    """Refuse the ``**others`` of a bound method that is `closed`, by `refuse_others`."""
    if others:
        owner = f"{type(method.__self__).__name__}.{method.__name__}"  # type: ignore[attr-defined]
        refuse_others(owner, others, list(inspect.signature(method).parameters))


_ELSEWHERE = {
    "hidden_features": "hidden",
    "hidden_units": "hidden",
    "hidden_sizes": "hidden",
    "nn_width": "hidden",
    "num_bins": "bins",
    "knots": "bins",
    "tail_bound": "bound",
    "interval": "bound",
    "n_layers": "transforms",
    "num_layers": "transforms",
    "layers": "transforms",
    "flow_layers": "transforms",
    "n_transforms": "transforms",
    "num_transforms": "transforms",
    "lr": "learning_rate",
    "n_epochs": "epochs",
    "max_epochs": "epochs",
    "training_batch_size": "batch_size",
    "validation_fraction": "validation",
    "stop_after_epochs": "patience",
    "random_state": "seed",
    "seed": "random_state",
    "n_samples": "n",
    "size": "n",
    "key": "seed",
    "cond_dim": "context",
    "context_features": "context",
    "dim": "features",
}
"""Names that other libraries have for a keyword: nflows, zuko, sbi, flowjax, normflows, scikit-learn, Keras."""


def suggestion(name: str, expected: Collection[str]) -> str:
    """The end of an error about an unknown keyword, with the one that is probably meant, or nothing.

    >>> suggestion("num_bins", ["bins", "bound"]), suggestion("transform", ["transforms"]), suggestion("x", ["seed"])
    ('; did you mean bins?', '; did you mean transforms?', '')
    """
    close = meant(name, expected)
    return f"; did you mean {close}?" if close else ""


def meant(name: str, expected: Collection[str]) -> str | None:
    """The keyword that is probably meant; None if none is near."""
    import difflib  # here, because only an error needs it

    elsewhere = _ELSEWHERE.get(name)
    if elsewhere in expected:
        return elsewhere
    return next(iter(difflib.get_close_matches(name, expected, 1, 0.75)), None)


def documented(cls: type[T]) -> type[T]:
    """Explain the settings of a class's constructor in its docstring, at the line for ``**settings``."""
    cls.__doc__ = _explained(cls.__doc__, *cls.__init__._keywords)  # type: ignore[attr-defined]
    return cls


def _fields(stated: type) -> dict[str, Any]:
    return {one.name: one for one in fields(stated)}


def _explained(text: str | None, settings: type, stated: type) -> str | None:
    """The docstring with a line for each setting instead of the one that begins with two stars."""
    if text is None:  # python -OO
        return None

    def lines(place: re.Match[str]) -> str:
        wrapped = textwrap.TextWrapper(120, place[1], place[1] + 4 * " ", break_on_hyphens=False)
        return "\n".join(
            wrapped.fill(f"{name}: {_fields(stated)[name].metadata['meaning']}") for name in settings.__annotations__
        )

    return _PLACE.sub(lines, text)
