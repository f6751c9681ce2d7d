"""Tables of arguments, and decorators for functions and constructors that take a table's arguments as keywords.

A table is a `TypedDict` whose keys are ``Annotated[type, argument(default, check)]``, or a dataclass whose fields are
``name: type = argument(default, check)``: a table has each argument's type, default, check and option, and, in the
"Args" of its docstring, the meaning. Signatures, help and the command line are made from tables.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, field, fields, is_dataclass
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from headrace._base.arguments import Check
from headrace._base.moved import renamed_keywords
from headrace._base.rng import seeded

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_PLACE = re.compile(r"^( +)\*\*\w+:.*$", re.MULTILINE)


def argument(
    default: Any = None, checked: Check | None = None, *, of_plan: bool = False, option: str | bool = False
) -> Any:
    """An argument of a table.

    Args:
        default: The argument's default.
        checked: A function of the argument's name and value that returns the checked value; an optional None is not
            checked.
        of_plan: Whether the argument affects the steps of a fit, so that a checkpoint is only valid for an equal value.
        option: The help of the argument's command-line option; True: the first sentence of the meaning; False: no
            option.
    """
    return field(default=default, metadata={"checked": checked, "of_plan": of_plan, "option": option})


def table_of(thing: Any) -> dict[str, Field[Any]]:
    """The arguments, by name, of a table or of a function that takes tables."""
    if is_dataclass(thing):
        return {entry.name: entry for entry in fields(thing)}
    if hasattr(thing, "_table"):
        return cast("dict[str, Field[Any]]", thing._table)
    return {name: hint.__metadata__[0] for name, hint in thing.__annotations__.items() if hasattr(hint, "__metadata__")}


def type_text(annotation: Any) -> str:
    """The text of a type in signatures."""
    annotation = getattr(annotation, "__origin__", annotation) if hasattr(annotation, "__metadata__") else annotation
    text = getattr(annotation, "__forward_arg__", annotation)
    return text.__name__ if type(text) is type else str(text).removeprefix("typing.")


def checked(name: str, entry: Field[Any], annotation: Any, value: Any) -> Any:
    """The value of an argument of a table after the argument's check."""
    check = entry.metadata.get("checked")
    is_none = value is None and type_text(annotation).endswith("None")
    return value if check is None or is_none else check(name, value)


def checked_fields(self: Any) -> dict[str, Any]:
    """The checked values, by name, of the arguments of an instance of a dataclass table."""
    return {e.name: checked(e.name, e, e.type, getattr(self, e.name)) for e in fields(self) if e.metadata}


def taken_from(table: type, keywords: Any) -> Any:
    """The checked values, or defaults, of a `TypedDict`'s arguments as attributes, removed from `keywords`."""
    return SimpleNamespace(
        **{
            name: checked(name, entry, table.__annotations__[name], keywords.pop(name, entry.default))
            for name, entry in table_of(table).items()
        }
    )


def takes(settings: type, /, *tables: type, **defaults: Any) -> Callable[[F], F]:
    """Replace ``**settings: Unpack[...]`` at a signature's end by the keywords' names, and refuse all other keywords.

    Args:
        settings: The `TypedDict` of the settings, which may itself be a table.
        *tables: Tables with the keywords' defaults and meanings; the first table with a keyword has priority. Tables
            may also have arguments that are not keywords.
        **defaults: Defaults of the function that differ from the tables' defaults.
    """
    every = (settings, *tables)
    table = {name: entry for each in reversed(every) for name, entry in table_of(each).items()}

    def signed(function: F) -> F:
        original = inspect.signature(function)
        named = [p for p in original.parameters.values() if p.kind is not p.VAR_KEYWORD]
        first = next(
            (i for i, p in enumerate(named) if p.kind is p.KEYWORD_ONLY and p.default is not p.empty), len(named)
        )
        shared = parameters_of(settings, {name: entry.default for name, entry in table.items()} | defaults)
        signature = original.replace(parameters=[*named[:first], *shared, *named[first:]])
        is_method = named[0].name == "self" or named[0].name == "cls"
        expected = [*signature.parameters][is_method:]
        known = frozenset(expected)

        @functools.wraps(function)
        def called(*values: Any, **keywords: Any) -> Any:
            if "rng" in keywords and "rng" in known:
                keywords = seeded(function.__qualname__, keywords, 31)
            if not keywords.keys() <= known:
                name = function.__name__
                owner = (values[0] if isinstance(values[0], type) else type(values[0])).__name__ if is_method else name
                owner = f"{owner}.fit" if is_method and name == "fit" else owner
                keywords = renamed_keywords(owner, keywords, known)
                refuse_others(owner, keywords, expected)
            return function(*values, **defaults | keywords)

        del called.__wrapped__  # Sphinx would take defaults from the wrapped function
        called.__signature__ = signature  # type: ignore[attr-defined]
        called._table, called._tables = table, every  # type: ignore[attr-defined]
        called.__doc__ = _explained(function.__doc__, called)
        return cast("F", called)

    return signed


def parameters_of(settings: type, defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The keys of a `TypedDict` as keyword parameters of a signature."""
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=type_text(annotation)
        )
        for name, annotation in settings.__annotations__.items()
    ]


def refuse_others(owner: str, keywords: Collection[str], expected: Collection[str]) -> None:
    """Refuse keywords that a class or function does not take.

    Raises:
        TypeError: a keyword is unknown; the message has all keywords of the owner, and the probably intended keyword.
    """
    for name in keywords:
        if name not in expected:
            known, meant = ", ".join(expected), suggestion(name, expected)
            raise TypeError(f"{name}: expected a keyword of {owner} ({known}), got {name!r}{meant}")


def closed(function: F, table: type | None = None, defaults: Mapping[str, Any] | None = None) -> F:
    """Replace ``**others``, which a function passes to `refuse`, in its signature by the keywords of a table.

    Unlike `takes`, this decorator does not wrap the function: a wrapper would slow calls that take microseconds.
    """
    original = inspect.signature(function)
    named = [p for p in original.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [] if table is None else parameters_of(table, defaults or {})
    function.__signature__ = original.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
    return function


def closed_but_for(table: type) -> Callable[[F], F]:
    """The decorator `closed` for a function that takes the keywords of a table."""
    return lambda function: closed(function, table)


def refuse(method: Callable[..., Any], unknown: Collection[str]) -> None:
    """Refuse the keywords in ``**others`` of a bound method that is `closed`, with the error of `refuse_others`."""
    if unknown:
        owner = f"{type(method.__self__).__name__}.{method.__name__}"  # type: ignore[attr-defined]
        refuse_others(owner, unknown, list(inspect.signature(method).parameters))


_ELSEWHERE = {
    theirs: ours
    for ours, names in {
        "hidden": "hidden_features hidden_units hidden_sizes nn_width",
        "bins": "num_bins knots",
        "bound": "tail_bound interval",
        "transforms": "n_layers num_layers layers flow_layers n_transforms num_transforms",
        "learning_rate": "lr",
        "epochs": "n_epochs max_epochs",
        "batch_size": "training_batch_size",
        "validation": "validation_fraction",
        "patience": "stop_after_epochs",
        "seed": "random_state key",
        "random_state": "seed",
        "n": "n_samples size",
        "formula": "direction",
        "context": "cond_dim context_features",
        "features": "dim",
    }.items()
    for theirs in names.split()
}
"""Headrace's keyword for each name of it in nflows, zuko, sbi, flowjax, normflows, scikit-learn and Keras."""


_OTHERWISE = {
    "randperm": "transforms have reversed orders in turn, and hr.transforms.MaskedAutoregressive takes any as order="
}
"""Advice for keywords of other libraries that have no counterpart."""
ATTRIBUTES = {
    "forward": "to_data(z), from latent to data, or to_latent(x)",
    "inverse": "to_latent(x), from data to latent, or to_data(z)",
    "train": "fit(x); modes are of modules, headrace.torch.FlowModule(flow)",
    "eval": "nothing, because flows have no modes; modules have, headrace.torch.FlowModule(flow)",
    "score": "log_prob(x), or log_prob_vjp for its gradient by rows",
    "state_dict": "save(path), or headrace.torch.FlowModule(flow).state_dict()",
}
"""Attributes of other libraries' flows, and their counterparts in headrace."""


def suggestion(name: str, expected: Collection[str]) -> str:
    """The end of a message about an unknown keyword: the probably intended keyword, or an empty text.

    >>> suggestion("num_bins", ["bins", "bound"]), suggestion("transform", ["transforms"]), suggestion("x", ["seed"])
    ('; did you mean bins?', '; did you mean transforms?', '')
    """
    if name in _OTHERWISE:
        return f"; {_OTHERWISE[name]}"
    close = meant(name, expected)
    return f"; did you mean {close}?" if close else ""


def meant(name: str, expected: Collection[str]) -> str | None:
    """The probably intended keyword for `name`; None if no expected keyword is similar."""
    import difflib  # imported here because only errors need difflib

    elsewhere = _ELSEWHERE.get(name)
    if elsewhere in expected:
        return elsewhere
    return next(iter(difflib.get_close_matches(name, expected, 1, 0.75)), None)


def documented(cls: type[T]) -> type[T]:
    """The class with its constructor's arguments explained in the docstring, in place of the line ``**settings``."""
    cls._table = cls.__init__._table  # type: ignore[attr-defined]
    cls.__doc__ = _explained(cls.__doc__, cls.__init__)
    return cls


@functools.cache
def meanings(text: str | None) -> dict[str, str]:
    """The entries under "Args" of a docstring by argument, in one line each; {} if Python runs without docstrings."""
    by_name: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(text or "").partition("Args:\n")[2].splitlines():
        if line.strip() and not line.startswith(" "):
            break
        start, colon, rest = line.strip().partition(": ")
        if line[4:5].strip() and colon:
            names = start.split(", ")
            by_name |= dict.fromkeys(names, rest)
        else:
            by_name |= {name: f"{by_name[name]} {line.strip()}".strip() for name in names}
    return by_name


def brief(meaning: str) -> str:
    """The first sentence of a meaning, for the command line, without None, code marks and quotes.

    >>> brief('Of eq. 25, "one" or "two"; None for no limit. By default 1.')
    'of eq. 25, one or two'
    """
    first = re.sub(r"; None[^;]*| or None\b[^,;]*|[`\"]", "", re.split(r"\.(?: (?=[A-Z])|$)", meaning)[0])
    return first[:1].lower() + first[1:]


def _explained(text: str | None, function: Any) -> str | None:
    """The docstring with the meanings of missing arguments in place of the line that begins with ``**``."""
    if text is None:  # python -OO
        return None
    stated = meanings(text)
    known = {name: e.metadata["meaning"] for name, e in function._table.items() if e.metadata.get("meaning")}
    for table in (base for settings in reversed(function._tables) for base in reversed(settings.__mro__)):
        known |= meanings(table.__doc__)
    lacking = {name: known[name] for name in inspect.signature(function).parameters if name in known.keys() - stated}

    return _PLACE.sub(lambda place: "\n".join(_entry(place[1], *entry) for entry in lacking.items()), text)


@functools.cache
def _entry(indent: str, name: str, meaning: str) -> str:
    return textwrap.fill(
        f"{name}: {meaning}", 120, initial_indent=indent, subsequent_indent=indent + 4 * " ", break_on_hyphens=False
    )
